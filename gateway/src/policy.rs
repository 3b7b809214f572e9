use std::collections::HashSet;
use std::time::Duration;

use attestation::{ReferenceValues, Sha256Digest, TrustAnchor};
use identity::SpiffeId;
use serde_json::json;

/// Longest life of a verdict: past it, an enclave that was retired or rolled back would still be spoken to.
const MAX_REATTEST: Duration = Duration::from_secs(3600);
/// Oldest document worth accepting; it was made for a nonce of seconds ago, so this only bounds clock error.
const MAX_DOCUMENT_AGE: Duration = Duration::from_secs(3600);

/// What an enclave has to be. Every field is required: there is nothing that "any" could mean.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The SPIFFE ID of its certificate, exactly.
    pub server_id: SpiffeId,
    /// The root that its evidence chains to.
    pub trust_anchor: TrustAnchor,
    /// The accepted images.
    pub images: ReferenceValues,
    /// SHA-256 of the configuration it was measured with.
    pub config_digest: Sha256Digest,
    /// The models it serves: all of them and no others, for a prompt can go to any.
    pub models: Vec<ModelRule>,
    /// Oldest acceptable document.
    pub max_age: Duration,
    /// How long a verdict lasts before the connection is attested again.
    pub reattest: Duration,
}

/// One model that may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRule {
    pub name: String,
    /// The epoch floor: an older release of the model is refused.
    pub min_epoch: u64,
    /// Pins one sealed package exactly.
    pub manifest_sha256: Option<Sha256Digest>,
}

/// A policy that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    #[error("server_id {0} has no path; name the enclave, as in spiffe://domain/enclave/name")]
    ServerId(SpiffeId),
    #[error("models is empty; name every model that the enclave serves")]
    NoModels,
    #[error("models names {0} twice")]
    ModelTwice(String),
    #[error("max_age_s must be 1 to {}", MAX_DOCUMENT_AGE.as_secs())]
    MaxAge,
    #[error("reattest_s must be 1 to {}", MAX_REATTEST.as_secs())]
    Reattest,
}

impl Policy {
    /// # Errors
    /// The first field that makes no sense.
    pub fn validate(&self) -> Result<(), PolicyError> {
        if self.server_id.path().is_empty() {
            return Err(PolicyError::ServerId(self.server_id.clone()));
        }
        if self.models.is_empty() {
            return Err(PolicyError::NoModels);
        }
        let mut names = HashSet::new();
        for model in &self.models {
            if !names.insert(&model.name) {
                return Err(PolicyError::ModelTwice(model.name.clone()));
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
            .map(|model| json!([model.name, model.min_epoch, model.manifest_sha256]))
            .collect();
        let text = json!([
            "cloister gateway policy 1",
            self.server_id.to_string(),
            self.trust_anchor.fingerprint(),
            self.images,
            self.config_digest,
            models,
            self.max_age.as_secs(),
            self.reattest.as_secs(),
        ]);
        Sha256Digest::of(text.to_string().as_bytes())
    }
}
