use std::collections::HashSet;
use std::time::Duration;

use attestation::{Pcr, Pcrs, ReferenceValues, Sha256Digest, TrustAnchor};
use identity::SpiffeId;
use serde_json::json;

use crate::Error;

mod file;
mod history;
mod servers;

pub use file::{FORMAT, PolicyFileError, SCHEMA, load};
pub use history::{Accepted, History, HistoryError};
pub use servers::ServerIds;

/// Longest life of a verdict: past it, an enclave that was retired or rolled back would still be spoken to.
const MAX_REATTEST: Duration = Duration::from_secs(3600);
/// Oldest document worth accepting; it was made for a nonce of seconds ago, so this only bounds clock error.
const MAX_DOCUMENT_AGE: Duration = Duration::from_secs(3600);
/// Alternatives of one kind. A rollout has two or three.
const MAX_ALTERNATIVES: usize = 64;

/// What an enclave has to be. There is nothing that "any" could mean, except where a field says so.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Grows with every change; see [`History`].
    pub serial: u64,
    /// The SPIFFE IDs that its certificate may have, each exactly.
    pub server_ids: ServerIds,
    /// The root that its evidence chains to.
    pub trust_anchor: TrustAnchor,
    /// The accepted images.
    pub images: ReferenceValues,
    /// Whose machines it may run on.
    pub fleet: Fleet,
    /// SHA-256 of the configurations that it may have been measured with.
    pub config_digests: Vec<Sha256Digest>,
    /// The models it serves: all of them and no others, for a prompt can go to any.
    pub models: Vec<ModelRule>,
    /// Oldest acceptable document.
    pub max_age: Duration,
    /// How long a verdict lasts before the connection is attested again.
    pub reattest: Duration,
}

/// Pins of the parent instance. An empty list pins nothing: then any AWS account may run the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// PCR3: IAM roles.
    pub roles: Vec<Pcr>,
    /// PCR4: instances.
    pub instances: Vec<Pcr>,
}

impl Fleet {
    /// The parent's registers, as far as they are pinned.
    ///
    /// # Errors
    /// [`Error::Fleet`] for the first register with none of the pinned values.
    pub(crate) fn appraise(&self, measured: &Pcrs) -> Result<(), Error> {
        for (index, accepted) in [(3, &self.roles), (4, &self.instances)] {
            let actual = measured.get(&index).copied();
            if !accepted.is_empty() && !actual.is_some_and(|actual| accepted.contains(&actual)) {
                return Err(Error::Fleet {
                    index,
                    expected: accepted.clone(),
                    actual,
                });
            }
        }
        Ok(())
    }
}

/// One model that may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRule {
    pub name: String,
    /// The epoch floor: an older release of the model is refused.
    pub min_epoch: u64,
    /// Pins one sealed package exactly.
    pub manifest_sha256: Option<Sha256Digest>,
    /// Pins who signed the package: SHA-256 of the DER SubjectPublicKeyInfo of the publisher's key. Empty pins nobody: then the
    /// enclave's measured configuration alone says whose packages it opens.
    pub publishers: Vec<Sha256Digest>,
}

/// A policy that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    #[error("serial must be at least 1, and more with every change")]
    Serial,
    #[error("it is empty; name the enclave, as in spiffe://domain/enclave/name")]
    NoServer,
    #[error("{0} has no path; name the enclave, as in spiffe://domain/enclave/name")]
    ServerId(SpiffeId),
    #[error("{0} and {1} are of two trust domains; one gateway trusts one domain's bundle")]
    TwoDomains(SpiffeId, SpiffeId),
    #[error("config_digests is empty; the image build prints the digest of the configuration")]
    NoConfiguration,
    #[error("models is empty; name every model that the enclave serves")]
    NoModels,
    #[error("models names {0} twice")]
    ModelTwice(String),
    #[error("{0} has more than {MAX_ALTERNATIVES} entries")]
    TooMany(&'static str),
    #[error("max_age_s must be 1 to {}", MAX_DOCUMENT_AGE.as_secs())]
    MaxAge,
    #[error("reattest_s must be 1 to {}", MAX_REATTEST.as_secs())]
    Reattest,
}

impl Policy {
    /// # Errors
    /// The first field that makes no sense.
    pub fn validate(&self) -> Result<(), PolicyError> {
        if self.serial == 0 {
            return Err(PolicyError::Serial);
        }
        if self.config_digests.is_empty() {
            return Err(PolicyError::NoConfiguration);
        }
        if self.models.is_empty() {
            return Err(PolicyError::NoModels);
        }
        let mut names = HashSet::new();
        for model in &self.models {
            if !names.insert(&model.name) {
                return Err(PolicyError::ModelTwice(model.name.clone()));
            }
            if model.publishers.len() > MAX_ALTERNATIVES {
                return Err(PolicyError::TooMany("models.publishers"));
            }
        }
        for (field, entries) in [
            ("config_digests", self.config_digests.len()),
            ("models", self.models.len()),
            ("fleet.roles", self.fleet.roles.len()),
            ("fleet.instances", self.fleet.instances.len()),
        ] {
            if entries > MAX_ALTERNATIVES {
                return Err(PolicyError::TooMany(field));
            }
        }
        let second = Duration::from_secs(1);
        if !(second..=MAX_DOCUMENT_AGE).contains(&self.max_age) {
            return Err(PolicyError::MaxAge);
        }
        if !(second..=MAX_REATTEST).contains(&self.reattest) {
            return Err(PolicyError::Reattest);
        }
        Ok(())
    }

    /// SHA-256 over all fields, to compare two gateways' policies at a glance.
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        let models: Vec<_> = self
            .models
            .iter()
            .map(|model| {
                json!([
                    model.name,
                    model.min_epoch,
                    model.manifest_sha256,
                    model.publishers
                ])
            })
            .collect();
        let servers = self.server_ids.as_slice().iter();
        let servers: Vec<_> = servers.map(ToString::to_string).collect();
        let text = json!([
            FORMAT,
            self.serial,
            servers,
            self.trust_anchor.fingerprint(),
            self.images,
            self.fleet.roles,
            self.fleet.instances,
            self.config_digests,
            models,
            self.max_age.as_secs(),
            self.reattest.as_secs(),
        ]);
        Sha256Digest::of(text.to_string().as_bytes())
    }
}
