//! The programs of a run, as `cloister-dev role NAME` executes them: the very `run` functions of the shipped binaries.
//! Only the enclave differs, and only in its edge: its attester is the simulated NSM.

use std::error::Error as StdError;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::kms::{KmsServer, KmsSetup};
use crate::machine;
use crate::nsm::{SimNsm, SimPki, measure};
use crate::stack::{Clock, INSTANCE_ID, ROLE_ARN};

/// More than the JSON of a five-certificate chain with its keys.
const MAX_PKI: u64 = 64 << 10;

/// What the log of [`Role::Kms`] says once it listens.
pub const KMS_READY: &str = "kms is listening";

/// A program of the run.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Role {
    Kbs,
    /// AWS KMS, simulated.
    Kms,
    Host,
    Enclave,
    /// An emulated machine that boots the enclave's image.
    Machine,
    Gateway,
}

/// An error's one line and its exit code.
struct Failure(String, u8);

impl Failure {
    fn new(error: &dyn StdError, code: u8) -> Self {
        Self(error.to_string(), code)
    }

    fn bug(error: impl std::fmt::Display) -> Self {
        Self(error.to_string(), 70)
    }
}

/// Runs the program until it fails, is terminated, or its standard input closes.
pub async fn run(role: Role, config: &Path, now: Clock) -> ExitCode {
    // The enclave's own rules decide what is logged, for all: levels fixed, no panic messages.
    if let Err(error) = enclave::log::init(enclave::log::Format::Text) {
        writeln!(io::stderr(), "error: logging: {error}").ok();
        return ExitCode::from(70);
    }
    let done = match role {
        Role::Kbs => kbs(config, now).await,
        Role::Kms => kms(config, now).await,
        Role::Host => host(config).await,
        Role::Enclave => enclave(config, now).await,
        Role::Machine => machine(config, now).await,
        Role::Gateway => gateway(config, now).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(line, code)) => {
            // The parent reads this line from the log; nobody else is left to tell.
            writeln!(io::stderr(), "error: {line}").ok();
            ExitCode::from(code)
        }
    }
}

async fn kbs(config: &Path, now: Clock) -> Result<(), Failure> {
    let config = kbs::Config::load(config).map_err(|e| Failure::new(&e, 64))?;
    kbs::run(config, now, over())
        .await
        .map_err(|e| Failure::new(&e, e.exit_code()))
}

async fn kms(path: &Path, now: Clock) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path).map_err(Failure::bug)?;
    let setup: KmsSetup = toml::from_str(&text).map_err(Failure::bug)?;
    let server = KmsServer::bind(&setup, now)
        .await
        .map_err(|e| Failure::new(&e, 69))?;
    // What our parent waits for; the log takes less than this from us.
    writeln!(io::stderr(), "{KMS_READY}: {}", server.listen()).ok();
    server.run(over()).await.map_err(|e| Failure::new(&e, 69))
}

async fn host(config: &Path) -> Result<(), Failure> {
    let config = host::Config::load(config).map_err(|e| Failure::new(&e, 64))?;
    host::run(config, over())
        .await
        .map_err(|e| Failure::new(&e, e.exit_code()))
}

async fn gateway(config: &Path, now: Clock) -> Result<(), Failure> {
    let config = gateway::Config::load(config).map_err(|e| Failure::new(&e, 64))?;
    gateway::run(config, now, over())
        .await
        .map_err(|e| Failure::new(&e, e.exit_code()))
}

/// The shipped enclave with another edge: evidence from the simulated NSM, which its parent handed over.
async fn enclave(path: &Path, now: Clock) -> Result<(), Failure> {
    let pki = first_line()?;
    let pki = SimPki::from_json(&pki).map_err(Failure::bug)?;
    let config = enclave::Config::load(path).map_err(|e| Failure::new(&e, 64))?;
    // The simulated hypervisor measures what it starts: this program and the configuration.
    let exe = std::env::current_exe().map_err(Failure::bug)?;
    let measured = std::fs::read(path).map_err(Failure::bug)?;
    let pcrs = measure(&exe, &measured, ROLE_ARN, INSTANCE_ID).map_err(Failure::bug)?;
    let attester = Arc::new(SimNsm::new(pki, pcrs, now.clone()));
    enclave::run(config, enclave::Platform { attester, now }, over())
        .await
        .map_err(|e| Failure::new(&e, e.exit_code()))
}

/// The image in an emulated machine, whose secure module signs with what our parent handed over.
async fn machine(path: &Path, now: Clock) -> Result<(), Failure> {
    let pki = first_line()?;
    let pki = SimPki::from_json(&pki).map_err(Failure::bug)?;
    let text = std::fs::read_to_string(path).map_err(Failure::bug)?;
    let config = toml::from_str(&text).map_err(Failure::bug)?;
    machine::run(&config, pki, now, over())
        .await
        .map_err(|e| Failure::new(&e, 69))
}

/// One line of standard input, at most [`MAX_PKI`] bytes.
fn first_line() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    io::stdin()
        .lock()
        .take(MAX_PKI)
        .read_line(&mut line)
        .map_err(Failure::bug)?;
    Ok(line)
}

/// Resolves when standard input closes or SIGTERM comes: our parent stopped us, or is gone.
fn over() -> impl Future<Output = ()> + Send + 'static {
    let (closed, parent_gone) = oneshot::channel();
    // A thread, not a task: a blocking read of standard input would keep the runtime from ending.
    std::thread::spawn(move || {
        let mut sink = [0; 256];
        while matches!(io::stdin().read(&mut sink), Ok(1..)) {}
        closed.send(()).ok();
    });
    async move {
        let terminated = async {
            use tokio::signal::unix::{SignalKind, signal};
            match signal(SignalKind::terminate()) {
                Ok(mut signal) => {
                    signal.recv().await;
                }
                Err(_no_signals) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = terminated => {}
            _ = parent_gone => {}
        }
    }
}
