//! The configuration file, and the keys and certificates it names.

mod issuer;
mod log;
mod token;

use std::fmt::Display;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use attestation::{ChainCache, TrustAnchor, Verifier};
use identity::Svid;
use serde::Deserialize;
use transport::Endpoint;
use zeroize::Zeroizing;

use crate::policy::{self, MAX_POLICY};
use crate::store::MasterKey;

pub use issuer::{Issuer, JoinToken, Mapping, Spire, SpireMint, X509Pop};
pub use log::{Admin, Log};
pub use token::Token;

/// A page of text, and one line per accepted image.
const MAX_CONFIG: u64 = 1 << 20;
/// A chain of certificates or one key in PEM.
const MAX_PEM: u64 = 256 * 1024;
const AWS_NITRO: &str = "aws-nitro";
/// The broker's configuration (TOML). Relative paths start at the file's own directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where keys and SVIDs are asked for, TLS 1.3 under [`Tls`].
    pub listen: Endpoint,
    /// Where `/healthz`, `/readyz` and `/metrics` are served, plain HTTP.
    pub control: Endpoint,
    /// The SQLite file; made when absent.
    pub database: PathBuf,
    /// 64 hex digits, mode 0600.
    pub master_key_file: PathBuf,
    /// Ed25519 public keys (PEM) whose holders may store resources and policy over the network. None: nobody.
    #[serde(default)]
    pub admin_public_keys: Vec<String>,
    /// As `admin_public_keys`, with the names that the release log has for them.
    #[serde(default)]
    pub admin: Vec<Admin>,
    /// Changes of resources and policy need approvals by two of these keys.
    #[serde(default)]
    pub two_person: bool,
    /// `aws-nitro`, or the path of a root certificate (PEM).
    pub trust_anchor: String,
    /// Rego file, installed when the database holds no policy yet. Without either everything is denied.
    pub policy: Option<PathBuf>,
    /// The broker's own X.509-SVID.
    pub tls: Tls,
    /// Without it no SVIDs are issued.
    pub issuer: Option<Issuer>,
    /// The release log's checkpoints.
    #[serde(default)]
    pub log: Log,
    /// Without it tokens are signed with a key that ends with the process.
    pub token: Option<Token>,
    /// Limits of the process.
    #[serde(default)]
    pub limits: Limits,
    /// Where this was read from.
    #[serde(skip)]
    file: PathBuf,
}

/// `[tls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificates, leaf first (PEM).
    pub chain: PathBuf,
    /// PKCS#8 key (PEM).
    pub key: PathBuf,
}

/// `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at a time; one more is closed at once.
    pub max_connections: usize,
    /// Sessions that wait for evidence, as many attested ones, and as many SVID challenges; one more takes the place of
    /// the oldest of its kind.
    pub max_sessions: usize,
    /// Decisions at a time: signatures, policy, disk. More wait, within their request's time.
    pub max_decisions: usize,
    /// Seconds that requests in flight have to finish after a signal to stop.
    pub drain_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 512,
            max_sessions: 65_536,
            max_decisions: 16,
            drain_s: 10,
        }
    }
}

/// What is wrong with the configuration, where, and what to write instead.
#[derive(Debug, thiserror::Error)]
#[error("{}: {field}: {problem}", file.display())]
pub struct ConfigError {
    /// The configuration file.
    pub file: PathBuf,
    /// The field, with its table, or the line.
    pub field: String,
    /// What does not work, and the fix.
    pub problem: String,
}

impl Config {
    /// Reads the file. The keys and certificates it names are read when they are needed.
    ///
    /// # Errors
    /// Names the file, the field and the fix.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let at = |field: &str, problem: String| ConfigError {
            file: path.to_owned(),
            field: field.to_owned(),
            problem,
        };
        let text = read(path, MAX_CONFIG).map_err(|problem| at("file", problem))?;
        let mut config: Self = toml::from_str(&text).map_err(|error| {
            let line = line_of(&text, error.span().map_or(0, |span| span.start));
            at(&format!("line {line}"), error.message().replace('\n', " "))
        })?;
        config.file = path.to_owned();
        let base = path.parent().unwrap_or(Path::new(""));
        let mut paths = vec![
            &mut config.database,
            &mut config.master_key_file,
            &mut config.tls.chain,
            &mut config.tls.key,
        ];
        paths.extend(config.policy.as_mut());
        paths.extend(config.log.checkpoint_file.as_mut());
        paths.extend(config.issuer.iter_mut().flat_map(Issuer::paths));
        paths.extend(config.token.iter_mut().flat_map(Token::paths));
        for path in paths {
            *path = base.join(&*path);
        }
        if config.trust_anchor != AWS_NITRO {
            config.trust_anchor = base.join(&config.trust_anchor).display().to_string();
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.listen == self.control && !format!("{}", self.listen).ends_with(":0") {
            return Err(self.error("control", "is the same endpoint as listen"));
        }
        let limits = &self.limits;
        for (field, value) in [
            ("limits.max_connections", limits.max_connections),
            ("limits.max_sessions", limits.max_sessions),
            ("limits.max_decisions", limits.max_decisions),
        ] {
            if value == 0 {
                return Err(self.error(field, "has to be at least 1"));
            }
        }
        for (field, value) in [
            ("log.checkpoint_entries", self.log.checkpoint_entries),
            ("log.checkpoint_s", self.log.checkpoint_s),
        ] {
            if value == 0 {
                return Err(self.error(field, "has to be at least 1"));
            }
        }
        if self.two_person && self.admin_public_keys.len() + self.admin.len() < 2 {
            let problem = "asks for two persons; name at least two keys under [[admin]]";
            return Err(self.error("two_person", problem));
        }
        if let Some(issuer) = &self.issuer {
            issuer
                .check()
                .map_err(|(field, problem)| self.error(field, problem))?;
        }
        Ok(())
    }

    /// The key of the store.
    pub(crate) fn master_key(&self) -> Result<MasterKey, ConfigError> {
        MasterKey::load(&self.master_key_file).map_err(|problem| {
            let path = self.master_key_file.display();
            self.error(
                "master_key_file",
                format!("{path}: {problem} (`kbs init` makes one)"),
            )
        })
    }

    pub(crate) fn verifier(&self) -> Result<Verifier, ConfigError> {
        let anchor = if self.trust_anchor == AWS_NITRO {
            TrustAnchor::aws_nitro()
        } else {
            let pem = self.pem("trust_anchor", Path::new(&self.trust_anchor))?;
            TrustAnchor::from_pem(pem.as_bytes())
                .map_err(|problem| self.error("trust_anchor", problem))?
        };
        Ok(Verifier::new(anchor).with_chain_cache(ChainCache::default()))
    }

    pub(crate) fn svid(&self) -> Result<Svid, ConfigError> {
        let chain = self.pem("tls.chain", &self.tls.chain)?;
        let key = self.pem("tls.key", &self.tls.key)?;
        Svid::from_pem(&chain, &key).map_err(|problem| self.error("tls", problem))
    }

    /// The policy to install when there is none.
    pub(crate) fn initial_policy(&self) -> Result<String, ConfigError> {
        let Some(path) = &self.policy else {
            return Ok(policy::DENY_ALL.to_owned());
        };
        let at =
            |problem: &dyn Display| self.error("policy", format!("{}: {problem}", path.display()));
        let text = read(path, MAX_POLICY as u64).map_err(|problem| at(&problem))?;
        policy::check(&text).map_err(|problem| at(&problem))?;
        Ok(text.to_string())
    }

    fn pem(&self, field: &str, path: &Path) -> Result<Zeroizing<String>, ConfigError> {
        read(path, MAX_PEM)
            .map_err(|problem| self.error(field, format!("{}: {problem}", path.display())))
    }

    fn error(&self, field: &str, problem: impl Display) -> ConfigError {
        ConfigError {
            file: self.file.clone(),
            field: field.to_owned(),
            problem: problem.to_string(),
        }
    }
}

/// A text file of at most `max` bytes. Some hold keys, so all are wiped after use.
pub(crate) fn read(path: &Path, max: u64) -> Result<Zeroizing<String>, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    // Room for all of it: a growing buffer would leave copies behind.
    let capacity = usize::try_from(size.min(max))
        .unwrap_or_default()
        .saturating_add(1);
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.take(max.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > max {
        return Err(format!("is larger than {max} bytes"));
    }
    Ok(text)
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
