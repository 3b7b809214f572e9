//! A Nitro enclave without AWS: QEMU's `nitro-enclave` machine boots the very image, its secure module (with
//! `infra/qemu/*.patch`) signs with a leaf of the run's throwaway root, and `vhost-device-vsock` carries vsock to unix
//! sockets. What is true on such a machine: the kernel, the image format and its registers, `/dev/nsm`, vsock, the boot.
//! What is not: isolation from this host, and Amazon's signature.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use identity::pem;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use crate::nsm::{INSTANCE_ID, PkiError, SimPki};
use crate::stack::Clock;

/// What the secure module calls itself in its documents.
const MODULE_ID: &str = "i-00000000000c1015e-enc0c1015e000000000";
/// The enclave's context identifier, as `nitro-cli` gives the first one.
pub const CID: u32 = 16;
/// Well before a leaf ends.
const RENEWAL: Duration = Duration::from_secs(3600);
/// For a socket to appear, or the parent's machine to boot.
const PATIENCE: Duration = Duration::from_secs(60);

/// One machine, as its role reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// Made by `infra/qemu/build`.
    pub emulator: PathBuf,
    /// The enclave image.
    pub image: PathBuf,
    /// Directory for sockets, logs and the module's files.
    pub run: PathBuf,
    pub memory_mib: u32,
    pub processors: u32,
    /// The parent's IAM role, PCR3; its instance, PCR4, is [`INSTANCE_ID`].
    pub parent_role: String,
    /// Put behind the image's command line, unmeasured, as a hostile starter could.
    #[serde(default)]
    pub append: String,
    /// What is wrong with the secure module.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// Another parent than this host: a second machine, with CID 3.
    #[serde(default)]
    pub parent: Option<ParentConfig>,
}

/// A machine that is the parent instance: the same kernel, and one program in its ramdisk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParentConfig {
    pub kernel: PathBuf,
    pub ramdisk: PathBuf,
    pub command_line: String,
    pub memory_mib: u32,
}

/// Secure modules that nobody may believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Documents without a signature, as unpatched QEMU makes them.
    Unsigned,
    /// Signed by another key than the leaf's.
    WrongKey,
    /// The leaf ended an hour ago.
    ExpiredLeaf,
    /// The zonal certificate is missing from the bundle.
    MissingIntermediate,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    #[error("{context}: {source}")]
    Io { context: String, source: io::Error },
    #[error("the secure module's certificates: {0}")]
    Pki(#[from] PkiError),
    #[error("{0} did not come up; see its log in the run's directory")]
    NotUp(&'static str),
    /// The guest ended itself, or QEMU did; with the last error on its console.
    #[error("the machine ended: {0}")]
    Ended(String),
}

fn io_error(context: impl Into<String>) -> impl FnOnce(io::Error) -> MachineError {
    let context = context.into();
    move |source| MachineError::Io { context, source }
}

/// Where the parent's side of the enclave's vsock is: hybrid vsock.
pub fn enclave_socket(run: &Path) -> PathBuf {
    run.join("vm.vsock")
}

/// Likewise of the second machine's.
pub fn parent_socket(run: &Path) -> PathBuf {
    run.join("parent.vsock")
}

/// Runs the machine until it ends, which is an error, or `over` resolves.
///
/// # Errors
/// See [`MachineError`].
pub async fn run(
    config: &MachineConfig,
    mut pki: SimPki,
    now: Clock,
    over: impl Future<Output = ()>,
) -> Result<(), MachineError> {
    let module = ModuleFiles::new(&config.run, config.fault);
    module.write(&mut pki, &now)?;
    let mut vsock = spawn_vsock(config)?;
    let sockets = [
        Some("vm.sock"),
        config.parent.as_ref().map(|_| "parent.sock"),
    ];
    for socket in sockets.into_iter().flatten() {
        appear(&config.run.join(socket), &mut vsock).await?;
    }
    let _parent = match &config.parent {
        Some(parent) => Some(parent_up(config, parent).await?),
        None => None,
    };
    let mut qemu = spawn_enclave(config, &module)?;
    let mut over = std::pin::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => break,
            _ = qemu.wait() => return Err(MachineError::Ended(last_error(&config.run))),
            _ = vsock.wait() => return Err(MachineError::NotUp("vhost-device-vsock")),
            () = sleep(RENEWAL) => module.write(&mut pki, &now)?,
        }
    }
    Ok(())
}

/// The files that QEMU's secure module reads for each document.
struct ModuleFiles {
    run: PathBuf,
    fault: Option<Fault>,
}

impl ModuleFiles {
    fn new(run: &Path, fault: Option<Fault>) -> Self {
        Self {
            run: run.to_owned(),
            fault,
        }
    }

    /// Leaf and key share a file, so that one rename exchanges both.
    fn write(&self, pki: &mut SimPki, now: &Clock) -> Result<(), MachineError> {
        let now = now();
        pki.renew(now)?;
        let leaf = match self.fault {
            Some(Fault::ExpiredLeaf) => pki.issue_leaf_with(MODULE_ID, now, &|params| {
                let hour = Duration::from_secs(3600);
                params.not_before = (now - 2 * hour).into();
                params.not_after = (now - hour).into();
            })?,
            _ => pki.issue_leaf(MODULE_ID, now)?,
        };
        let key = match self.fault {
            Some(Fault::WrongKey) => pki.issue_leaf(MODULE_ID, now)?.key_pem(),
            _ => leaf.key_pem(),
        };
        let mut bundle = pki.cabundle();
        if self.fault == Some(Fault::MissingIntermediate) {
            bundle.remove(2);
        }
        self.replace("cabundle.pem", certificates(bundle).as_bytes())?;
        let mut file = Zeroizing::new(certificates(vec![leaf.certificate]));
        file.push_str(&key);
        self.replace("leaf.pem", file.as_bytes())
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<(), MachineError> {
        let path = self.run.join(name);
        let new = self.run.join(format!("{name}.new"));
        fs::write(&new, content)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(io_error(path.display().to_string()))
    }

    fn arguments(&self) -> Vec<String> {
        if self.fault == Some(Fault::Unsigned) {
            return Vec::new();
        }
        [
            ("attest-key", "leaf.pem"),
            ("attest-cert", "leaf.pem"),
            ("attest-cabundle", "cabundle.pem"),
        ]
        .iter()
        .flat_map(|(property, file)| {
            let path = self.run.join(file);
            let value = format!("virtio-nsm-device.{property}={}", path.display());
            ["-global".to_owned(), value]
        })
        .collect()
    }
}

fn spawn_vsock(config: &MachineConfig) -> Result<Child, MachineError> {
    let vm = |cid: u32, name: &str| {
        let run = config.run.display();
        format!("guest-cid={cid},uds-path={run}/{name}.vsock,socket={run}/{name}.sock")
    };
    let mut command = Command::new(config.emulator.join("bin/vhost-device-vsock"));
    command.args(["--vm", &vm(CID, "vm")]);
    if config.parent.is_some() {
        command.args(["--vm", &vm(3, "parent")]);
    }
    spawn(command, &config.run, "vsock.log")
}

fn spawn_enclave(config: &MachineConfig, module: &ModuleFiles) -> Result<Child, MachineError> {
    let run = config.run.display();
    let mut command = qemu(config, "vm", config.memory_mib);
    command
        .arg("-M")
        .arg(format!(
            "nitro-enclave,vsock=c,id={MODULE_ID},parent-role={},parent-id={INSTANCE_ID}",
            config.parent_role
        ))
        .args(["-smp", &config.processors.to_string()])
        .arg("-kernel")
        .arg(&config.image)
        // reboot=t: AWS's reboot=k asks a keyboard controller, which this machine lacks.
        .args(["-append", &format!("reboot=t {}", config.append)])
        .args(module.arguments())
        .args(["-serial", &format!("file:{run}/console.log")]);
    spawn(command, &config.run, "qemu.log")
}

fn spawn_parent(config: &MachineConfig, parent: &ParentConfig) -> Result<Child, MachineError> {
    let run = config.run.display();
    let memory = parent.memory_mib;
    let mut command = qemu(config, "parent", memory);
    command
        .args([
            "-M",
            "microvm,acpi=off,pit=on,pic=on,rtc=on,memory-backend=mem",
        ])
        .args([
            "-object",
            &format!("memory-backend-memfd,id=mem,size={memory}M"),
        ])
        .arg("-kernel")
        .arg(&parent.kernel)
        .arg("-initrd")
        .arg(&parent.ramdisk)
        .args(["-append", &parent.command_line])
        .args(["-device", "vhost-user-vsock-device,chardev=c"])
        .args(["-serial", &format!("file:{run}/parent.log")]);
    spawn(command, &config.run, "qemu-parent.log")
}

/// What both machines have: no KVM is needed, no window, no monitor.
fn qemu(config: &MachineConfig, socket: &str, memory_mib: u32) -> Command {
    let run = config.run.display();
    let mut command = Command::new(config.emulator.join("qemu-system-x86_64"));
    command
        .arg("-L")
        .arg(config.emulator.join("firmware"))
        .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-m", &format!("{memory_mib}M")])
        .args(["-chardev", &format!("socket,id=c,path={run}/{socket}.sock")])
        .args(["-display", "none", "-no-reboot", "-monitor", "none"]);
    command
}

fn spawn(mut command: Command, run: &Path, log: &str) -> Result<Child, MachineError> {
    let path = run.join(log);
    let log = File::create(&path).map_err(io_error(path.display().to_string()))?;
    let copy = log
        .try_clone()
        .map_err(io_error(path.display().to_string()))?;
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    command
        .env("TMPDIR", run) // QEMU unpacks the image there
        .stdin(Stdio::null())
        .stdout(copy)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(io_error(format!(
            "{program} (made by scripts/nitro-emulator)"
        )))
}

/// The parent instance, once its host listens: on Nitro nothing starts an enclave before.
async fn parent_up(config: &MachineConfig, parent: &ParentConfig) -> Result<Child, MachineError> {
    let mut qemu = spawn_parent(config, parent)?;
    let deadline = Instant::now() + PATIENCE;
    let listens = |log: Vec<u8>| String::from_utf8_lossy(&log).contains("relay");
    while !fs::read(config.run.join("parent.log")).is_ok_and(listens) {
        let ended = timeout(Duration::from_millis(50), qemu.wait())
            .await
            .is_ok();
        if ended || Instant::now() > deadline {
            return Err(MachineError::NotUp("the parent's machine"));
        }
    }
    Ok(qemu)
}

async fn appear(socket: &Path, vsock: &mut Child) -> Result<(), MachineError> {
    let deadline = Instant::now() + PATIENCE;
    while !socket.exists() {
        let ended = timeout(Duration::from_millis(10), vsock.wait())
            .await
            .is_ok();
        if ended || Instant::now() > deadline {
            return Err(MachineError::NotUp("vhost-device-vsock"));
        }
    }
    Ok(())
}

/// The last line with an error on the guest's console, else QEMU's own last line.
fn last_error(run: &Path) -> String {
    let read = |name: &str| {
        let bytes = fs::read(run.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let console = read("console.log");
    let line = console
        .lines()
        .rfind(|line| line.contains("error: ") || line.contains("Kernel panic"));
    match line {
        Some(line) => line.trim().to_owned(),
        None => read("qemu.log")
            .lines()
            .last()
            .unwrap_or("nothing on its console")
            .to_owned(),
    }
}

fn certificates(ders: Vec<Vec<u8>>) -> String {
    let chain: Vec<_> = ders.into_iter().map(CertificateDer::from).collect();
    pem::encode_certificates(&chain)
}
