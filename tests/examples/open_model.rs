//! What it costs to open a sealed model: through the real host's file server, over a unix socket, into the engine's tensors;
//! beside candle's own loaders on the same bytes unsealed, and OpenSSL's AES-256-GCM, in the same run.
//!
//! ```sh
//! cargo run --release -p tests --example open_model -- [--rounds 7] [--mib 90,1024] [--dir DIR] [--cold] [--gguf q8_0|f16|f32]
//! ```
//!
//! With `--cold` the files are dropped from the page cache before each run (`dd iflag=nocache`), and reading the sealed file with `dd`
//! stands beside: what the disk gives.
//!
//! With `--gguf` the weights are one GGUF file in that format, which candle's loaders of safetensors do not read.
//!
//! Each way of loading is a process of its own, so that its peak memory (`VmHWM`) is its own; the ways take turns, so that a
//! busy machine disturbs all alike. Give the ratios more weight than the times.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use candle_core::quantized::GgmlDType;
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use enclave::{HostFiles, PlainFiles};
use engine::{Engine, EngineOptions, ModelFiles};
use sealed_model::{DataKey, Package, PublisherKey, SealOptions, SigningKey, Source};
use serde_json::json;
use tests::models;
use tokio::time::Instant;
use transport::Endpoint;

/// As [`enclave::config::Limits`] has it by default.
const CONNECTIONS: usize = 4;
const DEADLINE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// What our way may take beyond the tensors.
const ALLOWED_MIB: f64 = 64.0;

/// Ways of loading, as they take turns: sealed through the host into the engine's tensors; every segment fetched and verified, and
/// no tensors; candle's two loaders; only reading the file.
const WAYS: [&str; 5] = ["sealed", "segments", "candle-mmap", "candle-read", "dd"];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", dir] => serve(Path::new(dir)),
        ["load", way, dir] => load(way, Path::new(dir)),
        _ => measure(&args),
    }
}

fn option(args: &[String], name: &str) -> Option<String> {
    let at = args.iter().position(|arg| arg == name)?;
    args.get(at + 1).cloned()
}

fn measure(args: &[String]) {
    let rounds: usize = option(args, "--rounds").map_or(7, |n| n.parse().unwrap());
    let sizes = option(args, "--mib").unwrap_or_else(|| "90,1024".to_owned());
    let temporary = tempfile::tempdir().unwrap();
    let root = option(args, "--dir").map_or(temporary.path().to_owned(), PathBuf::from);
    println!(
        "{} cores, {rounds} rounds",
        std::thread::available_parallelism().unwrap()
    );
    one_core(rounds);
    let format = option(args, "--gguf");
    for mib in sizes.split(',').map(|size| size.parse::<u64>().unwrap()) {
        let dir = root.join(format!(
            "{mib}-mib{}",
            format.as_deref().unwrap_or_default()
        ));
        if !dir.join("packages").is_dir() {
            generate(&dir, mib * MIB, format.as_deref());
        }
        one_size(&dir, rounds, args.iter().any(|arg| arg == "--cold"));
    }
}

/// Segments fetched from memory, verified and decrypted by one thread, taking turns with OpenSSL.
fn one_core(rounds: usize) {
    const SEGMENTS: u64 = 1024;
    const PLAIN: u64 = (1 << 20) - 16;
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), 90 * MIB, None);
    let files = Memory::read(&dir.path().join("packages/bench"));
    let (package, key) = keyed(dir.path(), files);
    let package = package.unlock(key).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut segment = vec![0; usize::try_from(PLAIN).unwrap()];
    for _ in 0..rounds {
        let begun = thread_cpu();
        for index in 0..SEGMENTS {
            // Aligned, so that no other thread joins; the first segment is shorter than the others.
            let at = PLAIN - 40 + index % 80 * PLAIN;
            package
                .read_at("model.safetensors", at, &mut segment)
                .unwrap();
        }
        ours.push((SEGMENTS * PLAIN) as f64 / (thread_cpu() - begun).as_secs_f64());
        theirs.extend(openssl());
    }
    ours.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    let median = |speeds: &[f64]| {
        speeds
            .get(speeds.len() / 2)
            .map_or(f64::NAN, |speed| speed / 1e9)
    };
    let (mine, other) = (median(&ours), median(&theirs));
    println!(
        "one core, segments of 1 MiB: {mine:.2} GB/s; openssl speed -evp aes-256-gcm: {other:.2} GB/s; {:.0} % (medians)",
        100.0 * mine / other
    );
}

/// Time that this thread was computing: what OpenSSL counts as well, and what other work on the machine does not take.
fn thread_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// CPU seconds that a process, all threads, has taken so far.
fn process_cpu(process: &str) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let ticks = |field: &str| field.parse::<f64>().unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    (ticks(fields[11]) + ticks(fields[12])) / TICKS_PER_SECOND
}

/// A package in memory.
struct Memory(std::collections::HashMap<String, Vec<u8>>);

impl Memory {
    fn read(dir: &Path) -> Self {
        let file = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        };
        Self(
            fs::read_dir(dir)
                .unwrap()
                .map(|entry| file(entry.unwrap()))
                .collect(),
        )
    }
}

impl Source for Memory {
    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.0[name].len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.0[name][at..at + buf.len()]);
        Ok(())
    }
}

/// Bytes per second of one core on messages of a segment's size.
fn openssl() -> Option<f64> {
    let speed = Command::new("openssl")
        .args([
            "speed",
            "-mr",
            "-seconds",
            "1",
            "-bytes",
            "1048576",
            "-evp",
            "aes-256-gcm",
        ])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(speed.stdout).ok()?;
    let line = text.lines().find(|line| line.starts_with("+F:"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

fn one_size(dir: &Path, rounds: usize, cold: bool) {
    let file = weights_of(dir);
    let weights = fs::metadata(dir.join("model").join(&file)).unwrap().len();
    let mut host = Command::new(std::env::current_exe().unwrap())
        .arg("serve")
        .arg(dir)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&dir.join("models.sock"));
    println!("\n{:.1} MB of weights, {file}", weights as f64 / 1e6);
    println!(
        "| way | best ms | median ms | best GB/s | CPU ms, reader + host | peak beyond tensors, MiB |"
    );
    println!("|---|---|---|---|---|---|");
    let host_cpu = || process_cpu(&host.id().to_string());
    let ways = WAYS
        .iter()
        .filter(|way| file.ends_with(".safetensors") || !way.starts_with("candle"));
    let mut seen: Vec<(&str, Vec<Run>)> = ways.map(|way| (*way, Vec::new())).collect();
    for _ in 0..rounds {
        for (way, runs) in &mut seen {
            if cold {
                evict(dir);
            }
            let before = host_cpu();
            let mut done = run(way, dir);
            done.host_cpu = host_cpu() - before;
            runs.push(done);
        }
    }
    for (way, mut runs) in seen {
        let median = |of: fn(&Run) -> f64, runs: &mut Vec<Run>| {
            runs.sort_by(|a, b| of(a).total_cmp(&of(b)));
            (of(&runs[0]), of(&runs[runs.len() / 2]))
        };
        let cpu = median(|run| run.cpu, &mut runs).1;
        let host_cpu = median(|run| run.host_cpu, &mut runs).1;
        let (best, middle) = median(|run| run.seconds, &mut runs);
        let peak = runs.iter().map(|run| run.peak).fold(f64::MIN, f64::max);
        let beyond = peak - weights as f64 / MIB as f64;
        let tensors = !matches!(way, "segments" | "dd");
        let shown = if tensors {
            format!("{beyond:.0}")
        } else {
            "".to_owned()
        };
        println!(
            "| {way} | {:.0} | {:.0} | {:.2} | {:.0} + {:.0} | {shown} |",
            best * 1e3,
            middle * 1e3,
            weights as f64 / best / 1e9,
            cpu * 1e3,
            host_cpu * 1e3,
        );
        if way == "sealed" && beyond > ALLOWED_MIB {
            println!("NOT KEPT: {beyond:.0} MiB beyond the tensors, {ALLOWED_MIB} allowed");
        }
    }
    drop(host.stdin.take());
    host.wait().unwrap();
}

/// The file of the model that holds its weights.
fn weights_of(dir: &Path) -> String {
    let name = |format: &str| format!("model.{format}");
    let here = ["safetensors", "gguf"]
        .map(name)
        .into_iter()
        .find(|file| dir.join("model").join(file).is_file());
    here.unwrap()
}

fn sealed(dir: &Path) -> PathBuf {
    dir.join(format!("packages/bench/{}.enc", weights_of(dir)))
}

/// Drops both forms of the weights from the page cache.
fn evict(dir: &Path) {
    for path in [dir.join("model").join(weights_of(dir)), sealed(dir)] {
        fs::File::open(&path).unwrap().sync_all().unwrap();
        let arguments = [
            format!("if={}", path.display()),
            "iflag=nocache".into(),
            "count=0".into(),
        ];
        assert!(
            Command::new("dd")
                .args(arguments)
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
        );
    }
}

/// One process that loads, and the host meanwhile.
struct Run {
    /// Until the last tensor was there.
    seconds: f64,
    /// MiB.
    peak: f64,
    cpu: f64,
    host_cpu: f64,
}

fn run(way: &str, dir: &Path) -> Run {
    if way == "dd" {
        let begun = Instant::now();
        let input = format!("if={}", sealed(dir).display());
        let mut dd = Command::new("dd");
        dd.args([&input, "of=/dev/null", "bs=1M"])
            .stderr(Stdio::null());
        assert!(dd.status().unwrap().success());
        return Run {
            seconds: begun.elapsed().as_secs_f64(),
            peak: 0.0,
            cpu: 0.0,
            host_cpu: 0.0,
        };
    }
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["load", way])
        .arg(dir)
        // As init sets it for the enclave, and for all ways alike.
        .env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
        .env(
            "RAYON_NUM_THREADS",
            std::thread::available_parallelism().unwrap().to_string(),
        )
        .output()
        .unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(
        done.status.success(),
        "{way}: {text}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let mut numbers = text
        .split_whitespace()
        .map(|number| number.parse::<f64>().unwrap());
    let mut number = || numbers.next().unwrap();
    Run {
        seconds: number(),
        peak: number(),
        cpu: number(),
        host_cpu: 0.0,
    }
}

fn wait_for(socket: &Path) {
    let begun = Instant::now();
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "the host did not start"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The host, as an operator runs it, until its standard input closes.
fn serve(dir: &Path) {
    let socket = |name: &str| format!("unix://{}", dir.join(name).display());
    let config = json!({
        "control": socket("control.sock"),
        "enclave_control": socket("nobody.sock"),
        "relay": {"listen": socket("relay.sock"), "enclave": socket("nobody.sock")},
        "models": {"listen": socket("models.sock"), "root": dir.join("packages").display().to_string()},
        "limits": {"drain_s": 1},
    });
    let path = dir.join("host.toml");
    fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
    let config = host::Config::load(&path).unwrap();
    let (closed, parent_gone) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        io::copy(&mut io::stdin(), &mut io::sink()).ok();
        closed.send(()).ok();
    });
    runtime().block_on(async {
        host::run(config, async {
            parent_gone.await.ok();
        })
        .await
        .unwrap();
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Loads in this process and prints seconds and peak.
fn load(way: &str, dir: &Path) {
    let plain = dir.join("model/model.safetensors");
    let runtime = runtime();
    let begun = Instant::now();
    let (mut cpu, mut peak) = (None, None);
    let seconds = match way {
        "sealed" => {
            let (package, key) = fetch(dir, &runtime);
            let files = PlainFiles::open(package, key, false).unwrap();
            let files = Arc::new(Timed::new(files, begun));
            let engine = Engine::load(Arc::<Timed<_>>::clone(&files), EngineOptions::default());
            engine.unwrap().stop();
            cpu = Some(files.cpu_ms.load(Ordering::Relaxed) as f64 / 1e3);
            peak = Some(files.peak_kib.load(Ordering::Relaxed) as f64 / 1024.0);
            files.last()
        }
        "segments" => {
            // No tensors: every segment fetched, verified and thrown away.
            let (package, key) = fetch(dir, &runtime);
            package.unlock(key).unwrap().verify().unwrap();
            begun.elapsed()
        }
        "candle-mmap" => {
            #[expect(
                unsafe_code,
                reason = "candle's own way to read weights; nobody changes the file meanwhile"
            )]
            let tensors = unsafe { MmapedSafetensors::new(&plain) }.unwrap();
            let names: Vec<String> = tensors
                .tensors()
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            let loaded: Vec<Tensor> = names
                .iter()
                .map(|name| tensors.load(name, &Device::Cpu).unwrap())
                .collect();
            assert!(loaded.iter().all(|tensor| tensor.dtype() == DType::F32));
            begun.elapsed()
        }
        "candle-read" => {
            let loaded = candle_core::safetensors::load(&plain, &Device::Cpu).unwrap();
            assert!(!loaded.is_empty());
            begun.elapsed()
        }
        other => panic!("no way {other}"),
    };
    let cpu = cpu.unwrap_or_else(|| process_cpu("self"));
    println!(
        "{} {} {cpu}",
        seconds.as_secs_f64(),
        peak.unwrap_or_else(most_memory)
    );
}

/// The package through the host, its manifest verified, and its key.
fn fetch(dir: &Path, runtime: &tokio::runtime::Runtime) -> (Package<HostFiles>, DataKey) {
    let source = Endpoint::Unix(dir.join("models.sock"));
    let files = HostFiles::new(
        runtime.handle().clone(),
        source,
        "bench".to_owned(),
        CONNECTIONS,
        DEADLINE,
    );
    keyed(dir, files)
}

fn keyed<S: Source>(dir: &Path, files: S) -> (Package<S>, DataKey) {
    let publisher = fs::read_to_string(dir.join("publisher.pem")).unwrap();
    let publisher = PublisherKey::from_pem(&publisher).unwrap();
    let key = DataKey::from_bytes(&fs::read(dir.join("data.key")).unwrap()).unwrap();
    let package = Package::open(files, &[publisher], "bench", 1).unwrap();
    (package, key)
}

/// Most memory this process ever held, in MiB.
fn most_memory() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// Remembers when the last byte was read: what comes after is the engine's first step, which candle's loaders do not take.
struct Timed<F> {
    files: F,
    begun: Instant,
    last_ns: AtomicU64,
    /// CPU time of this process by then, in milliseconds.
    cpu_ms: AtomicU64,
    /// Most memory it held by then: the first step makes tiles of quantized weights, which are not the opening's.
    peak_kib: AtomicU64,
}

impl<F> Timed<F> {
    fn new(files: F, begun: Instant) -> Self {
        Self {
            files,
            begun,
            last_ns: AtomicU64::new(0),
            cpu_ms: AtomicU64::new(0),
            peak_kib: AtomicU64::new(0),
        }
    }

    fn last(&self) -> Duration {
        Duration::from_nanos(self.last_ns.load(Ordering::Relaxed))
    }
}

impl<F: ModelFiles> ModelFiles for Timed<F> {
    fn names(&self) -> Vec<String> {
        self.files.names()
    }

    fn len(&self, name: &str) -> Option<u64> {
        self.files.len(name)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let outcome = self.files.read_at(name, offset, buf);
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap();
        self.last_ns.fetch_max(now, Ordering::Relaxed);
        let cpu = (process_cpu("self") * 1e3) as u64;
        self.cpu_ms.fetch_max(cpu, Ordering::Relaxed);
        self.peak_kib
            .fetch_max((most_memory() * 1024.0) as u64, Ordering::Relaxed);
        outcome
    }
}

/// A Llama of about `bytes` with the tokenizer of the small test model, sealed.
fn generate(dir: &Path, bytes: u64, format: Option<&str>) {
    fs::create_dir_all(dir.join("packages")).unwrap();
    let model = dir.join("model");
    // Of a parameter in f32, what it takes in the other format.
    let (format, size) = match format {
        None => (None, 1.0),
        Some("f32") => (Some(GgmlDType::F32), 1.0),
        Some("f16") => (Some(GgmlDType::F16), 0.5),
        Some("q8_0") => (Some(GgmlDType::Q8_0), 34.0 / 128.0),
        Some(other) => panic!("no format {other}"),
    };
    models::llama_of(&model, (bytes as f64 / size) as u64);
    if let Some(format) = format {
        tests::gguf::convert(&model, format);
    }
    let (key, signer) = (
        DataKey::generate().unwrap(),
        SigningKey::generate().unwrap(),
    );
    fs::write(dir.join("data.key"), key.expose()).unwrap();
    fs::write(dir.join("publisher.pem"), signer.public().unwrap().to_pem()).unwrap();
    let progress = Mutex::new(());
    let options = SealOptions {
        name: "bench",
        epoch: 1,
        key: &key,
        signer: &signer,
        created: SystemTime::UNIX_EPOCH,
        progress: &|_| drop(progress.lock()),
    };
    sealed_model::seal(&model, &dir.join("packages/bench"), &options).unwrap();
}
