use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use transport::Endpoint;

use crate::policy::{self, History, HistoryError, Policy, PolicyFileError};

/// A gateway, ready to run: everything was checked when the file was read.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where OpenAI clients connect; a loopback address.
    pub listen: SocketAddr,
    /// `/healthz`, `/readyz` and `/metrics`, if wanted.
    pub control: Option<Endpoint>,
    /// The host's relay, or the enclave itself.
    pub enclave: Endpoint,
    /// SPIFFE Workload API of this machine, as `unix:///path` or `tcp://ip:port`.
    pub workload_api: String,
    /// The policy file, read again at SIGHUP.
    pub policy_file: PathBuf,
    /// What is in it.
    pub policy: Policy,
    /// What was enforced before; it permits `policy`.
    pub history: History,
    pub limits: Limits,
}

/// Bounds of the proxy.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body_bytes: usize,
    /// Requests at a time; one more is answered 503. Fewer than the enclave takes on one connection (`max_streams`), or
    /// the question that renews the verdict waits behind them until the verdict has run out.
    pub in_flight: usize,
    /// Connections of local clients at a time.
    pub connections: usize,
    /// How long an answer's head may take, in seconds. An answer that is not streamed has its head when it is complete.
    pub response_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            // The enclave's default is 64.
            in_flight: 60,
            connections: 512,
            response_s: 600,
        }
    }
}

/// A configuration that cannot be used: one line that names the file, the field and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("{path}: cannot be read: {source}")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error("{path}: line {line}: {message}")]
    Syntax {
        path: String,
        line: usize,
        message: String,
    },
    #[error("{path}: {field}: {problem}")]
    Field {
        path: String,
        field: &'static str,
        problem: String,
    },
    #[error(transparent)]
    Policy(#[from] PolicyFileError),
    #[error(transparent)]
    History(#[from] HistoryError),
}

impl ConfigError {
    /// The program's exit code (BSD sysexits): 77 for a policy that goes back, 64 for everything that is to be written otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::History(error) if error.refuses_policy() => 77,
            _ => 64,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: String,
    control: Option<Endpoint>,
    enclave: Endpoint,
    workload_api: String,
    policy: PathBuf,
    policy_history: PathBuf,
    #[serde(default)]
    limits: Limits,
}

impl Config {
    /// Reads and checks a TOML file, and the policy and the history that it names. Paths in it are relative to the file.
    ///
    /// # Errors
    /// [`ConfigError`], before anything else has happened.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: shown.clone(),
            source,
        })?;
        let file: File = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            ConfigError::Syntax {
                path: shown.clone(),
                line: before.map_or(1, |before| before.matches('\n').count().saturating_add(1)),
                message: error.message().replace('\n', "; "),
            }
        })?;
        file.check()
            .map_err(|(field, problem)| ConfigError::Field {
                path: shown,
                field,
                problem,
            })?
            .complete(path.parent().unwrap_or(Path::new(".")))
    }
}

type Problem = (&'static str, String);

impl File {
    fn check(self) -> Result<Checked, Problem> {
        let listen = loopback(&self.listen)?;
        if !self.workload_api.starts_with("unix:/") && !self.workload_api.starts_with("tcp://") {
            let problem = "write unix:///path or tcp://IP:PORT of this machine's workload api";
            return Err(("workload_api", problem.to_owned()));
        }
        let limits = self.limits;
        if limits.body_bytes == 0
            || limits.in_flight == 0
            || limits.connections == 0
            || limits.response_s == 0
        {
            return Err(("limits", "every limit must be at least 1".to_owned()));
        }
        Ok(Checked { listen, file: self })
    }
}

/// A file whose own fields make sense.
struct Checked {
    listen: SocketAddr,
    file: File,
}

impl Checked {
    fn complete(self, dir: &Path) -> Result<Config, ConfigError> {
        let Self { listen, file } = self;
        let policy_file = dir.join(file.policy);
        let policy = policy::load(&policy_file)?;
        let history = History::open(&dir.join(file.policy_history))?;
        history.check(&policy)?;
        Ok(Config {
            listen,
            control: file.control,
            enclave: file.enclave,
            workload_api: file.workload_api,
            policy_file,
            policy,
            history,
            limits: file.limits,
        })
    }
}

/// The proxy asks nobody who they are, so only this machine may reach it.
fn loopback(text: &str) -> Result<SocketAddr, Problem> {
    let address: SocketAddr = text.parse().map_err(|_detail| {
        let problem = format!("\"{text}\" is not an address; write 127.0.0.1:8080 or [::1]:8080");
        ("listen", problem)
    })?;
    if !address.ip().is_loopback() {
        let problem = format!(
            "{address} can be reached from outside; the gateway serves this machine only, write 127.0.0.1:{}",
            address.port()
        );
        return Err(("listen", problem));
    }
    Ok(address)
}

#[cfg(test)]
mod tests;
