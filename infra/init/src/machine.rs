//! The steps, on the real machine.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use attestation::{AttestError, Attester as _, NsmAttester};
use init::command_line::CommandLineError;
use init::console::Console;
use init::files::FilesError;
use init::{clock, command_line, files, heartbeat};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::mount::{mount, mount_remount};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::system::{RebootCommand, reboot};
use rustix::thread::set_no_new_privs;
use rustix::time::{ClockId, Timespec, clock_settime};

const PROGRAM: &str = "/app/enclave";
const CONFIG: &str = "/app/enclave.toml";
/// The enclave program's user and group: it owns nothing and may open only the secure module.
const USER: u32 = 1000;
const CLOCK_SOURCES: &str = "/sys/devices/system/clocksource/clocksource0";
const RANDOM_SOURCE: &str = "/sys/class/misc/hw_random/rng_current";
const MAX_FILES: u64 = 65_536;
/// Rounds of the heartbeat, some seconds each.
const HEARTBEATS: u32 = 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{what} cannot be mounted: {source}")]
    Mount { what: &'static str, source: Errno },
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("secure module: {source}{}", reason(.source))]
    Module {
        #[from]
        source: AttestError,
    },
    #[error("the clock cannot be set: {0}")]
    Clock(Errno),
    #[error("the kernel gives no randomness: {0}")]
    Random(Errno),
    #[error("no parent answers the heartbeat: {0}")]
    Heartbeat(String),
    #[error("privileges cannot be dropped: {0}")]
    Privileges(Errno),
    #[error("{path}: {source}")]
    Io {
        path: &'static str,
        source: io::Error,
    },
}

fn reason(error: &AttestError) -> String {
    std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"))
}

fn at(path: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { path, source }
}

/// All steps; gives how the enclave program ended.
pub(crate) fn run(console: &mut Console) -> Result<String, Error> {
    // 1. Mounts.
    mounts()?;
    console.say(&format!("cloister init {}", env!("CARGO_PKG_VERSION")));
    let line = fs::read_to_string("/proc/cmdline").map_err(at("/proc/cmdline"))?;
    command_line::check(&line)?;

    // 2. Files.
    let listed = files::check(Path::new("/"))?;
    let bytes: u64 = listed.iter().map(|file| file.size).sum();
    console.say(&format!("{} files, {bytes} bytes, as listed", listed.len()));

    // 3. Read-only.
    remount_read_only("/")?;

    // 4. Secure module.
    let module = NsmAttester::open()?;
    for (index, pcr) in module.measurements()? {
        if index <= 8 && !pcr.is_zero() {
            console.say(&format!("PCR{index} {pcr}"));
        } else if index == 0 {
            console.say("PCR0 is zero: debug mode, no key will be released");
        }
    }

    // 5. Clock.
    clock_source(console);
    #[expect(clippy::disallowed_methods, reason = "this is the main that sets it")]
    let system = SystemTime::now();
    if let Some(time) = clock::correction(system, module.time()?) {
        clock_settime(ClockId::Realtime, timespec(time)).map_err(Error::Clock)?;
        console.say("clock set to the secure module's");
    }

    // 6. Randomness.
    randomness(&module, console)?;

    // 7. Heartbeat.
    let parent = parent()?;
    console.tell_parent(parent);
    console.say(&format!("heartbeat answered by CID {parent}"));

    // 8. The program.
    chown("/dev/nsm", Some(0), Some(USER)).map_err(at("/dev/nsm"))?;
    fs::set_permissions("/dev/nsm", fs::Permissions::from_mode(0o660)).map_err(at("/dev/nsm"))?;
    drop(module);
    program(parent, console)
}

fn mounts() -> Result<(), Error> {
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let devices = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (what, to, flags) in [
        ("proc", "/proc", closed),
        ("sysfs", "/sys", closed),
        ("devtmpfs", "/dev", devices),
    ] {
        match mount(what, to, what, flags, None) {
            // A kernel may mount devtmpfs itself.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(source) => return Err(Error::Mount { what, source }),
        }
    }
    Ok(())
}

fn remount_read_only(what: &'static str) -> Result<(), Error> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(what, flags, "").map_err(|source| Error::Mount { what, source })
}

/// The hypervisor's, where the kernel has it: a plain processor counter drifts from the true time for as long as the
/// enclave runs. Elsewhere the kernel's choice stands, and is named.
fn clock_source(console: &mut Console) {
    let read = |name: &str| fs::read_to_string(format!("{CLOCK_SOURCES}/{name}"));
    if let Some(source) = read("available_clocksource")
        .ok()
        .as_deref()
        .and_then(clock::preferred)
        && let Err(error) = fs::write(format!("{CLOCK_SOURCES}/current_clocksource"), source)
    {
        console.say(&format!("clock source {source} cannot be taken: {error}"));
    }
    let current = read("current_clocksource").unwrap_or_default();
    console.say(&format!("clock source {}", current.trim()));
}

/// Mixed in without credit: who knows one of the sources learns nothing. Then waits until the kernel's generator is ready.
fn randomness(module: &NsmAttester, console: &mut Console) -> Result<(), Error> {
    let mut bytes = [0; 256];
    module.random(&mut bytes)?;
    fs::File::options()
        .write(true)
        .open("/dev/urandom")
        .and_then(|mut pool| pool.write_all(&bytes))
        .map_err(at("/dev/urandom"))?;
    let mut one = [0; 1];
    getrandom(&mut one, GetRandomFlags::empty()).map_err(Error::Random)?;
    let source = fs::read_to_string(RANDOM_SOURCE).unwrap_or_default();
    console.say(&format!("random source {}", source.trim()));
    Ok(())
}

fn parent() -> Result<u32, Error> {
    let mut said = String::new();
    for _ in 0..HEARTBEATS {
        match heartbeat::find_parent() {
            Ok(cid) => return Ok(cid),
            Err(what) => said = what,
        }
        thread::sleep(Duration::from_millis(500));
    }
    Err(Error::Heartbeat(said))
}

fn program(parent: u32, console: &mut Console) -> Result<String, Error> {
    let files = Rlimit {
        current: Some(MAX_FILES),
        maximum: Some(MAX_FILES),
    };
    setrlimit(Resource::Nofile, files).map_err(Error::Privileges)?;
    set_no_new_privs(true).map_err(Error::Privileges)?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut child = Command::new(PROGRAM)
        .args(["--config", CONFIG, "--parent-cid", &parent.to_string()])
        .env_clear()
        // Without it candle counts the processors anew before every matrix product.
        .env("RAYON_NUM_THREADS", threads.to_string())
        // Tensors come in pages of 2 MiB: clearing small ones takes half the time of opening a model.
        .env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .uid(USER)
        .gid(USER)
        .spawn()
        .map_err(at(PROGRAM))?;
    if let Some(said) = child.stderr.take() {
        console.pass_on(said);
    }
    let status = child.wait().map_err(at(PROGRAM))?;
    Ok(status.to_string())
}

/// Ends the machine. If the kernel cannot, this process never returns, and there is nothing else left that runs.
pub(crate) fn off(console: &mut Console) -> ! {
    if let Err(error) = reboot(RebootCommand::Restart) {
        console.say(&format!("error: the machine cannot be ended: {error}"));
    }
    loop {
        thread::park();
    }
}

fn timespec(time: SystemTime) -> Timespec {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timespec {
        tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: since.subsec_nanos().into(),
    }
}
