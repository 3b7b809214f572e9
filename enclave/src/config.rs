//! The one measured configuration file. Everything that decides about trust is in it, inline: it is part of the
//! enclave image, its SHA-256 is in every evidence document, and the host cannot change a byte of it.

use std::fmt::Display;
use std::io::Read;
use std::path::{Path, PathBuf};

use attestation::Sha256Digest;
use engine::Quantize;
use identity::{SpiffeId, TrustBundles, TrustDomain};
use kbs_client::Server;
use sealed_model::PublisherKey;
use serde::Deserialize;
use transport::Endpoint;

use crate::authz::Authorization;

mod brokers;
mod file;
mod followed;
mod kms;
mod limits;
#[cfg(test)]
mod tests;

use brokers::TrusteeSection;
use file::{File, clock_sources, models, workload};
pub use followed::FollowedBundle;
use kms::KmsSection;
pub use kms::{KeySource, KmsAddress};
pub use limits::Limits;

/// The parent instance's context identifier on Nitro (AWS Nitro Enclaves, vsock); what a configuration names.
pub const NITRO_PARENT: u32 = 3;

/// A file of certificates, keys and a policy stays far below this.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// What was wrong with the configuration file, where, and what to write instead.
#[derive(Debug, thiserror::Error)]
#[error("config {}: {field}: {problem}", file.display())]
pub struct ConfigError {
    file: PathBuf,
    field: String,
    problem: String,
}

/// The configuration, parsed and checked: no later step can find it malformed.
pub struct Config {
    /// SHA-256 of the file's bytes; the `config_digest` of every evidence document.
    pub digest: Sha256Digest,
    /// Who this enclave asks to be.
    pub spiffe_id: SpiffeId,
    pub listen: Listen,
    pub trust: Trust,
    /// The key brokers, reached through the host and known by their SPIFFE IDs; never empty.
    pub brokers: Vec<Server>,
    /// Where keys are asked for with a token of the broker's, if not at the broker.
    pub trustee: Option<Server>,
    /// Present where a model's key comes from there.
    pub kms: Option<KmsAddress>,
    pub models: Vec<ModelConfig>,
    /// Whether newer packages may replace the models after boot. PCR 16 goes on naming those of the boot.
    pub reload: bool,
    pub authorization: Authorization,
    pub limits: Limits,
    /// Clock sources of the kernel that are accepted in place of the hypervisor's: an emulated machine has no such one.
    pub clock_sources: Vec<String>,
}

/// Where the enclave listens, once everything else is in place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Mutual TLS, ended in here; the host relays bytes to it.
    pub serve: Endpoint,
    /// Health, readiness and metrics for the host, in the clear.
    pub control: Endpoint,
}

/// The CA certificates of each trust domain, and the domains whose workloads may call.
pub struct Trust {
    pub bundles: TrustBundles,
    pub callers: Vec<TrustDomain>,
    /// Bundles that their trust domains publish.
    pub followed: Vec<FollowedBundle>,
}

/// One sealed model to open.
pub struct ModelConfig {
    /// The name in the manifest and in the API.
    pub name: String,
    /// Where the host serves sealed packages.
    pub source: Endpoint,
    /// The package's folder there.
    pub package: String,
    /// Who may sign it; never empty.
    pub publishers: Vec<PublisherKey>,
    /// The oldest epoch that may still be opened.
    pub min_epoch: u64,
    /// Whether each segment must be the publisher's, not only some holder of the data key's.
    pub check_segments: bool,
    /// What a chat model's matrices become while they are read.
    pub quantize: Option<Quantize>,
    /// Who releases its key.
    pub key: KeySource,
}

impl Config {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// Names the file, the field and what to do about it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let at = |field: &str, problem: String| ConfigError {
            file: path.to_owned(),
            field: field.to_owned(),
            problem,
        };
        let file = std::fs::File::open(path)
            .map_err(|error| at("file", format!("cannot be read: {error}")))?;
        let mut bytes = Vec::new();
        file.take(MAX_CONFIG_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| at("file", format!("cannot be read: {error}")))?;
        Self::parse(&bytes).map_err(|Problem { field, problem }| at(&field, problem))
    }

    /// Dials `cid` where the configuration says [`NITRO_PARENT`]: under other hypervisors the parent has another number, and
    /// the same image runs there. Whoever answers sees ciphertext, as the parent does.
    pub fn dial_parent(&mut self, cid: u32) {
        let servers = self.brokers.iter_mut().chain(&mut self.trustee);
        let kms = self.kms.iter_mut();
        let followed = self.trust.followed.iter_mut();
        let endpoints = servers
            .map(|server| &mut server.endpoint)
            .chain(followed.map(|bundle| &mut bundle.dial))
            .chain(kms.flat_map(|kms| [&mut kms.endpoint, &mut kms.credentials]))
            .chain(self.models.iter_mut().map(|model| &mut model.source));
        for endpoint in endpoints {
            if let Endpoint::Vsock { cid: at, .. } = endpoint
                && *at == NITRO_PARENT
            {
                *at = cid;
            }
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(problem(
                "file",
                format!("is larger than {MAX_CONFIG_BYTES} bytes"),
            ));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| problem("file", format!("is not UTF-8: {error}")))?;
        let file: File = toml::from_str(text).map_err(|error| syntax(text, &error))?;

        let trust = file.trust.check()?;
        let spiffe_id = workload("spiffe_id", &file.spiffe_id, &trust.domain)?;
        let brokers = file.broker.check(&spiffe_id, &trust.domain)?;
        let trustee = file.trustee.map(TrusteeSection::check).transpose()?;
        if file.listen.serve == file.listen.control {
            return Err(problem(
                "listen.control",
                "is the same endpoint as listen.serve",
            ));
        }
        file.limits
            .check()
            .map_err(|(field, text)| problem(format!("limits.{field}"), text))?;
        let authorization = Authorization::new(&file.authorization.policy)
            .map_err(|error| problem("authorization.policy", error))?;
        let models = models(file.models)?;
        Ok(Self {
            digest: Sha256Digest::of(bytes),
            spiffe_id,
            listen: file.listen,
            trust: Trust {
                bundles: trust.bundles,
                callers: trust.callers,
                followed: trust.followed,
            },
            brokers,
            trustee,
            kms: KmsSection::check(file.kms, &models)?,
            models,
            reload: file.reload,
            authorization,
            limits: file.limits,
            clock_sources: clock_sources(file.clock_sources)?,
        })
    }
}

struct Problem {
    field: String,
    problem: String,
}

fn problem(field: impl Into<String>, problem: impl Display) -> Problem {
    Problem {
        field: field.into(),
        problem: problem.to_string(),
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> Problem {
    let line = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map_or(1, |before| before.matches('\n').count() + 1);
    problem(format!("line {line}"), error.message())
}
