use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use transport::Endpoint;

mod check;

/// The host's whole configuration. Nothing in it is secret, and nothing in it is trusted by the enclave.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where `/healthz`, `/readyz` and `/metrics` are served, plain HTTP.
    pub control: Endpoint,
    /// The enclave's own control listener; its readiness and metrics are passed through.
    pub enclave_control: Endpoint,
    /// The way in: callers to the enclave.
    pub relay: RelayConfig,
    /// The ways out of the enclave: each listener leads to one fixed target.
    #[serde(default)]
    pub egress: Vec<EgressConfig>,
    /// Sealed-model files for the enclave.
    pub models: Option<ModelsConfig>,
    /// AWS credentials for the enclave, where a model's key comes from KMS.
    pub credentials: Option<CredentialsConfig>,
    /// What the enclave says while it boots.
    #[serde(default)]
    pub boot: BootConfig,
    /// Limits of the process.
    #[serde(default)]
    pub limits: Limits,
}

/// `[relay]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// Where callers connect.
    pub listen: Endpoint,
    /// Where the enclave listens.
    pub enclave: Endpoint,
    /// Defaults: 512 connections, 300 s idle, 14 400 s in all.
    #[serde(default = "relay_limits")]
    pub limits: TrafficLimits,
}

/// `[[egress]]`: one purpose, one listener, one target.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressConfig {
    /// The purpose, a label in metrics and logs. Each class has its own connections, so none can starve another.
    pub class: String,
    /// Where the enclave connects.
    pub listen: Endpoint,
    /// `host:port`, or another endpoint than TCP; nothing that arrives on `listen` can lead elsewhere.
    pub target: String,
    /// Defaults: 16 connections, 60 s idle, 600 s in all.
    #[serde(default = "egress_limits")]
    pub limits: TrafficLimits,
}

/// `[models]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelsConfig {
    /// Where the enclave asks for files.
    pub listen: Endpoint,
    /// Directory of sealed packages; relative to the configuration file.
    pub root: PathBuf,
    /// Connections at a time.
    #[serde(default = "model_connections")]
    pub max_connections: usize,
}

/// `[credentials]`: whose name the enclave's requests to AWS KMS carry. One of `imds` and `file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialsConfig {
    /// Where the enclave asks.
    pub listen: Endpoint,
    /// The role of this instance, from its metadata service (version 2): `tcp://169.254.169.254:80`.
    pub imds: Option<Endpoint>,
    /// A file as `aws configure export-credentials --format process` writes it, mode 0600; relative to the configuration file.
    pub file: Option<PathBuf>,
}

/// `[boot]`: outside debug mode nobody can read an enclave's console, so its first process says here how far it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootConfig {
    /// Where its heartbeat arrives (vsock port 9000). `nitro-cli` answers it on AWS; elsewhere this process does.
    pub heartbeat: Option<Endpoint>,
    /// Where its log lines arrive (vsock port 9001); they are passed on into this process's log.
    pub console: Option<Endpoint>,
}

/// Limits of one class of relayed connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficLimits {
    /// Connections at a time; one more is closed at once.
    pub max_connections: usize,
    /// Seconds without a byte in either direction.
    pub idle_s: u64,
    /// Seconds a connection may last.
    pub lifetime_s: u64,
}

impl TrafficLimits {
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_s)
    }

    pub(crate) fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime_s)
    }
}

/// `[limits]`: of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Seconds that open connections have to end after a signal to stop.
    pub drain_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { drain_s: 25 }
    }
}

fn relay_limits() -> TrafficLimits {
    TrafficLimits {
        max_connections: 512,
        idle_s: 300,
        // The enclave ends a connection with its identity, well before this.
        lifetime_s: 4 * 3600,
    }
}

fn egress_limits() -> TrafficLimits {
    TrafficLimits {
        max_connections: 16,
        idle_s: 60,
        lifetime_s: 600,
    }
}

fn model_connections() -> usize {
    32
}

/// A configuration is a page of text.
const MAX_FILE: u64 = 1 << 20;

/// What is wrong with a configuration, where, and what to write instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// Not TOML, an unknown or missing field, or a value of the wrong kind.
    #[error("{}:{line}: {message}", file.display())]
    Parse {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Names the field.
        message: String,
    },
    /// A value that cannot work.
    #[error("{}: {field}: {problem}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The field, with its table.
        field: String,
        /// What to write instead.
        problem: String,
    },
}

impl EgressConfig {
    /// The target as an endpoint; a plain `host:port` is TCP.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, String> {
        // One way to write each: TCP has no scheme here.
        let full = match self.target.contains("://") && !self.target.starts_with("tcp://") {
            true => self.target.clone(),
            false => format!("tcp://{}", self.target),
        };
        full.parse()
            .map_err(|_reason| format!("{:?} is no target; {TARGET}", self.target))
    }
}

/// What a target looks like.
const TARGET: &str = "write host:port, or a vsock://, hvsock:// or unix:// endpoint";

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// Names the file, the field and the fix.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            file: path.to_owned(),
            source,
        };
        let size = std::fs::metadata(path).map_err(read)?.len();
        if size > MAX_FILE {
            return Err(read(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{size} bytes, at most {MAX_FILE} are read"),
            )));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text, path)
    }

    /// As [`Config::load`], from text; `path` is where relative paths start and what errors name.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|e| ConfigError::Parse {
            file: path.to_owned(),
            line: line_of(text, e.span().map_or(0, |span| span.start)),
            message: e.message().replace('\n', " "),
        })?;
        check::check(&config).map_err(|(field, problem)| ConfigError::Value {
            file: path.to_owned(),
            field,
            problem,
        })?;
        if let (Some(models), Some(dir)) = (&mut config.models, path.parent()) {
            models.root = dir.join(&models.root);
        }
        let file = config.credentials.as_mut().and_then(|c| c.file.as_mut());
        if let (Some(file), Some(dir)) = (file, path.parent()) {
            *file = dir.join(&*file);
        }
        Ok(config)
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

#[cfg(test)]
mod tests;
