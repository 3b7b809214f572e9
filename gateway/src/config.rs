use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attestation::{ReferenceValues, Sha256Digest, TrustAnchor};
use identity::SpiffeId;
use serde::Deserialize;
use transport::Endpoint;

use crate::{ModelRule, Policy};

/// The word for the AWS root; anything else is a path.
const AWS_NITRO: &str = "aws-nitro";

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
    pub policy: Policy,
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
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: String,
    control: Option<Endpoint>,
    enclave: Endpoint,
    workload_api: String,
    policy: PolicyTable,
    #[serde(default)]
    limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyTable {
    server_id: String,
    trust_anchor: String,
    images: ReferenceValues,
    config_digest: Sha256Digest,
    #[serde(default = "default_max_age")]
    max_age_s: u64,
    #[serde(default = "default_reattest")]
    reattest_s: u64,
    models: Vec<ModelTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelTable {
    name: String,
    min_epoch: u64,
    manifest_sha256: Option<Sha256Digest>,
}

fn default_max_age() -> u64 {
    300
}

fn default_reattest() -> u64 {
    600
}

impl Config {
    /// Reads and checks a TOML file. Paths in it are relative to the file.
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
        file.check(path.parent().unwrap_or(Path::new(".")))
            .map_err(|(field, problem)| ConfigError::Field {
                path: shown,
                field,
                problem,
            })
    }
}

type Problem = (&'static str, String);

impl File {
    fn check(self, dir: &Path) -> Result<Config, Problem> {
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
        Ok(Config {
            listen,
            control: self.control,
            enclave: self.enclave,
            workload_api: self.workload_api,
            policy: self.policy.check(dir)?,
            limits,
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

impl PolicyTable {
    fn check(self, dir: &Path) -> Result<Policy, Problem> {
        let server_id = SpiffeId::new(&self.server_id)
            .map_err(|error| ("policy.server_id", error.to_string()))?;
        let models = self
            .models
            .into_iter()
            .map(|model| ModelRule {
                name: model.name,
                min_epoch: model.min_epoch,
                manifest_sha256: model.manifest_sha256,
            })
            .collect();
        let policy = Policy {
            server_id,
            trust_anchor: trust_anchor(&self.trust_anchor, dir)?,
            images: self.images,
            config_digest: self.config_digest,
            models,
            max_age: Duration::from_secs(self.max_age_s),
            reattest: Duration::from_secs(self.reattest_s),
        };
        policy
            .validate()
            .map_err(|error| ("policy", error.to_string()))?;
        Ok(policy)
    }
}

fn trust_anchor(text: &str, dir: &Path) -> Result<TrustAnchor, Problem> {
    const FIELD: &str = "policy.trust_anchor";
    if text == AWS_NITRO {
        return Ok(TrustAnchor::aws_nitro());
    }
    let path: PathBuf = dir.join(text);
    let problem = |error: &dyn std::fmt::Display| {
        let fix = format!("write \"{AWS_NITRO}\" or the path of a root certificate in PEM");
        (FIELD, format!("{}: {error}; {fix}", path.display()))
    };
    let pem = std::fs::read(&path).map_err(|error| problem(&error))?;
    TrustAnchor::from_pem(&pem).map_err(|error| problem(&error))
}

#[cfg(test)]
mod tests;
