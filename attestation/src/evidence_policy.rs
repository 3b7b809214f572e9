//! What an auditor asks of evidence, as a file.

use serde::{Deserialize, Serialize};

use crate::binding::{Binding, ModelIdentity, Subject};
use crate::digest::Sha256Digest;
use crate::reference_values::ReferenceValues;

/// Which evidence is acceptable, in TOML or JSON. Part of what a gateway's policy says: what can be judged later, without the
/// connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidencePolicy {
    /// The accepted images.
    pub images: ReferenceValues,
    /// SHA-256 of the configuration file. Needs the binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<Sha256Digest>,
    /// The models that are served: all of them and no others. Empty when nothing is asked about them. Needs the binding of a
    /// session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<AcceptedModel>,
    /// Oldest acceptable document, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u64>,
}

/// One model that may be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptedModel {
    /// Its name.
    pub name: String,
    /// The epoch floor.
    pub min_epoch: u64,
    /// Pins one sealed package exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<Sha256Digest>,
    /// Pins who signed the package, as [`ModelIdentity::publisher_sha256`]; empty pins nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publishers: Vec<Sha256Digest>,
}

/// Evidence that is not what the policy asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Without the binding's text nobody can tell.
    #[error("the policy asks for {what}, and there is no binding to find it in")]
    NoBinding {
        /// What the policy asks for.
        what: &'static str,
    },
    /// Only a session's binding names models.
    #[error("the policy names models, and this evidence is not for a session")]
    NotASession,
    /// Another configuration.
    #[error("configuration digest is {actual}, expected {expected}")]
    ConfigDigest {
        /// The policy's.
        expected: Sha256Digest,
        /// The binding's.
        actual: Sha256Digest,
    },
    /// A model that the policy names.
    #[error("model {name:?} is in the policy but not served")]
    ModelMissing {
        /// Its name.
        name: String,
    },
    /// A prompt could go to it.
    #[error("model {name:?} is served but not in the policy")]
    ModelUnlisted {
        /// Its name.
        name: String,
    },
    /// Which of them would answer?
    #[error("model {name:?} is named twice")]
    ModelTwice {
        /// Its name.
        name: String,
    },
    /// Rolled back.
    #[error("model {name:?} is at epoch {actual}, at least {minimum} is required")]
    ModelEpoch {
        /// Its name.
        name: String,
        /// The policy's floor.
        minimum: u64,
        /// The binding's.
        actual: u64,
    },
    /// Another package.
    #[error("manifest of model {name:?} is {actual}, expected {expected}")]
    ModelManifest {
        /// Its name.
        name: String,
        /// The policy's.
        expected: Sha256Digest,
        /// The binding's.
        actual: Sha256Digest,
    },
    /// Another publisher's.
    #[error("publisher of model {name:?} is {actual}, which the policy does not list")]
    ModelPublisher {
        /// Its name.
        name: String,
        /// The binding's.
        actual: Sha256Digest,
    },
}

impl EvidencePolicy {
    /// Whether the enclave runs with the accepted configuration. None when nothing is asked.
    pub fn check_config(&self, binding: Option<&Binding>) -> Option<Result<(), PolicyError>> {
        let expected = self.config_digest?;
        Some(match binding.map(|binding| binding.config_digest) {
            Some(actual) if actual == expected => Ok(()),
            Some(actual) => Err(PolicyError::ConfigDigest { expected, actual }),
            None => Err(PolicyError::NoBinding {
                what: "config_digest",
            }),
        })
    }

    /// Whether the accepted models are served, and no others. None when nothing is asked.
    pub fn check_models(&self, binding: Option<&Binding>) -> Option<Result<(), PolicyError>> {
        if self.models.is_empty() {
            return None;
        }
        Some(match binding.map(|binding| &binding.subject) {
            Some(Subject::Session(session)) => self.check_served(&session.models),
            Some(_) => Err(PolicyError::NotASession),
            None => Err(PolicyError::NoBinding { what: "models" }),
        })
    }

    fn check_served(&self, served: &[ModelIdentity]) -> Result<(), PolicyError> {
        for rule in &self.models {
            let name = || rule.name.clone();
            let mut found = served.iter().filter(|model| model.name == rule.name);
            let model = found
                .next()
                .ok_or_else(|| PolicyError::ModelMissing { name: name() })?;
            if found.next().is_some() {
                return Err(PolicyError::ModelTwice { name: name() });
            }
            if model.epoch < rule.min_epoch {
                return Err(PolicyError::ModelEpoch {
                    name: name(),
                    minimum: rule.min_epoch,
                    actual: model.epoch,
                });
            }
            if let Some(expected) = rule.manifest_sha256
                && expected != model.manifest_sha256
            {
                return Err(PolicyError::ModelManifest {
                    name: name(),
                    expected,
                    actual: model.manifest_sha256,
                });
            }
            let publisher = model.publisher_sha256;
            if !rule.publishers.is_empty() && !rule.publishers.contains(&publisher) {
                return Err(PolicyError::ModelPublisher {
                    name: name(),
                    actual: publisher,
                });
            }
        }
        let unlisted = |model: &&ModelIdentity| !self.models.iter().any(|r| r.name == model.name);
        match served.iter().find(unlisted) {
            Some(model) => Err(PolicyError::ModelUnlisted {
                name: model.name.clone(),
            }),
            None => Ok(()),
        }
    }
}
