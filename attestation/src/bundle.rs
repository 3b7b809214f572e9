//! Evidence with what it takes to judge it later and elsewhere, in one file.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::binding::{Binding, ParseBindingError, Subject};
use crate::digest::Sha256Digest;
use crate::evidence::Evidence;
use crate::evidence_policy::{EvidencePolicy, PolicyError};
use crate::pcr::Pcr;
use crate::step::Step;
use crate::text::{parse_rfc3339, rfc3339};
use crate::verifier::{Audit, Verdict, Verifier};

/// The only format that is written and read. A change of any member's meaning takes another number.
pub const BUNDLE_FORMAT: &str = "cloister-evidence/1";

/// The largest manifest of a sealed model, in base64, and as much again.
pub const MAX_BUNDLE: usize = 2 * 1024 * 1024;

/// A session names no more models than this.
const MAX_MANIFESTS: usize = 64;

/// A document, what its user data is the hash of, the policy that it was judged by, and the manifests of the models it names.
///
/// Whoever makes a bundle chooses all of it, its policy and time included: what makes it worth something are the trust anchor
/// and the policy of whoever reads it. JSON, at most [`MAX_BUNDLE`] bytes, members as in `docs/verifying.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceBundle {
    /// The document.
    pub document: Evidence,
    /// The challenge that it answers.
    pub nonce: Option<Vec<u8>>,
    /// The key that it attests, DER SubjectPublicKeyInfo.
    pub public_key: Option<Vec<u8>>,
    /// What its user data is the hash of.
    pub binding: Option<Binding>,
    /// What it was judged by.
    pub policy: Option<EvidencePolicy>,
    /// The manifest files of models that the binding names.
    pub manifests: Vec<Vec<u8>>,
    /// When it was judged, by the clock of whoever did.
    pub recorded: Option<SystemTime>,
}

/// Bytes that are not an evidence bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Larger than a bundle can be.
    #[error("larger than {MAX_BUNDLE} bytes, or more than {MAX_MANIFESTS} manifests")]
    Size,
    /// Another format, or a later version of this one.
    #[error("format is {0:?}, this program reads {BUNDLE_FORMAT:?}")]
    Format(String),
    /// Not JSON with the members of a bundle and no others, each once.
    #[error("not an evidence bundle: {0}")]
    Json(String),
    /// A member that is not written as it should be.
    #[error("{member}: {problem}")]
    Member {
        /// Which.
        member: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// The binding's text is none.
    #[error("binding: {0}")]
    Binding(#[from] ParseBindingError),
}

/// A manifest that the evidence does not name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Without a session's binding nothing names a manifest.
    #[error("there is no session's binding that could name a manifest")]
    NoSession,
    /// By its position in the bundle.
    #[error("manifest {position} has SHA-256 {actual}, which the evidence does not name")]
    Unknown {
        /// Position in the bundle, from 0.
        position: usize,
        /// Its digest.
        actual: Sha256Digest,
    },
    /// The evidence names its digest under another name or epoch.
    #[error("manifest {position} is of another name or epoch than the evidence says")]
    Other {
        /// Position in the bundle, from 0.
        position: usize,
    },
}

/// What the reader of a bundle asks, beside what it brings.
#[derive(Debug, Clone, Copy, Default)]
pub struct BundleAudit<'a> {
    /// Judged by, in place of the bundle's own.
    pub policy: Option<&'a EvidencePolicy>,
    /// As [`Audit::registers`].
    pub registers: Option<&'a BTreeMap<u8, Pcr>>,
    /// In place of the policy's.
    pub max_age: Option<Duration>,
    /// As [`Audit::allow_debug`].
    pub allow_debug: bool,
}

/// What became of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BundleReport {
    /// The verifier's steps.
    pub steps: Vec<(Step, Verdict)>,
    /// The configuration's digest; none when nothing was asked.
    pub config: Option<Result<(), PolicyError>>,
    /// The models; none when nothing was asked.
    pub models: Option<Result<(), PolicyError>>,
    /// The manifests; none when there are none.
    pub manifests: Option<Result<(), ManifestError>>,
}

impl BundleReport {
    /// True when nothing that was asked was refused.
    pub fn is_accepted(&self) -> bool {
        let refused = |(_, verdict): &(Step, Verdict)| {
            matches!(verdict, Verdict::Refused(_) | Verdict::NotReached)
        };
        !self.steps.iter().any(refused)
            && !matches!(self.config, Some(Err(_)))
            && !matches!(self.models, Some(Err(_)))
            && !matches!(self.manifests, Some(Err(_)))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    format: String,
    document: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    binding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<EvidencePolicy>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    manifests: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recorded: Option<String>,
}

/// Read first, so that a later version is named as such and not by the first member that this one does not know.
#[derive(Deserialize)]
struct Header {
    format: String,
}

impl EvidenceBundle {
    /// A bundle of nothing but a document.
    pub fn new(document: Evidence) -> Self {
        Self {
            document,
            nonce: None,
            public_key: None,
            binding: None,
            policy: None,
            manifests: Vec::new(),
            recorded: None,
        }
    }

    /// Reads a bundle. Nothing in it is verified.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn from_json(json: &[u8]) -> Result<Self, BundleError> {
        if json.len() > MAX_BUNDLE {
            return Err(BundleError::Size);
        }
        let syntax = |error: serde_json::Error| BundleError::Json(error.to_string());
        let header: Header = serde_json::from_slice(json).map_err(syntax)?;
        if header.format != BUNDLE_FORMAT {
            return Err(BundleError::Format(header.format));
        }
        let wire: Wire = serde_json::from_slice(json).map_err(syntax)?;
        if wire.manifests.len() > MAX_MANIFESTS {
            return Err(BundleError::Size);
        }
        let document = Evidence::from_bytes(base64(&wire.document, "document")?);
        let optional =
            |text: Option<String>, member| text.map(|text| base64(&text, member)).transpose();
        Ok(Self {
            document: document.map_err(|_length| BundleError::Member {
                member: "document",
                problem: "empty, or longer than a document can be",
            })?,
            nonce: optional(wire.nonce, "nonce")?,
            public_key: optional(wire.public_key, "public_key")?,
            binding: wire
                .binding
                .map(|text| Binding::from_canonical_json(text.as_bytes()))
                .transpose()?,
            policy: wire.policy,
            manifests: wire
                .manifests
                .iter()
                .map(|text| base64(text, "manifests"))
                .collect::<Result<_, _>>()?,
            recorded: wire
                .recorded
                .map(|text| {
                    parse_rfc3339(&text).ok_or(BundleError::Member {
                        member: "recorded",
                        problem: "not a time as in 2026-11-20T12:00:00Z",
                    })
                })
                .transpose()?,
        })
    }

    /// Writes the bundle as [`EvidenceBundle::from_json`] reads it.
    ///
    /// # Errors
    /// [`BundleError::Size`] when it could not be read again.
    pub fn to_json(&self) -> Result<String, BundleError> {
        if self.manifests.len() > MAX_MANIFESTS {
            return Err(BundleError::Size);
        }
        let wire = Wire {
            format: BUNDLE_FORMAT.to_owned(),
            document: STANDARD.encode(self.document.as_bytes()),
            nonce: self.nonce.as_ref().map(|bytes| STANDARD.encode(bytes)),
            public_key: self.public_key.as_ref().map(|bytes| STANDARD.encode(bytes)),
            binding: self
                .binding
                .as_ref()
                .map(|binding| String::from_utf8_lossy(&binding.canonical_json()).into_owned()),
            policy: self.policy.clone(),
            manifests: self.manifests.iter().map(|m| STANDARD.encode(m)).collect(),
            recorded: self.recorded.map(rfc3339),
        };
        let mut json = serde_json::to_string_pretty(&wire)
            .map_err(|error| BundleError::Json(error.to_string()))?;
        json.push('\n');
        match json.len() {
            0..=MAX_BUNDLE => Ok(json),
            _ => Err(BundleError::Size),
        }
    }

    /// Judges the bundle as of `at`, by the policy in `asked`, or by its own where there is none.
    pub fn audit(
        &self,
        verifier: &Verifier,
        asked: &BundleAudit<'_>,
        at: SystemTime,
    ) -> BundleReport {
        let policy = asked.policy.or(self.policy.as_ref());
        let max_age = policy.and_then(|p| p.max_age_s).map(Duration::from_secs);
        let known = Audit {
            nonce: self.nonce.as_deref(),
            public_key: self.public_key.as_deref(),
            binding: self.binding.as_ref(),
            images: policy.map(|policy| &policy.images),
            registers: asked.registers,
            max_age: asked.max_age.or(max_age),
            allow_debug: asked.allow_debug,
        };
        let binding = self.binding.as_ref();
        BundleReport {
            steps: verifier.audit(&self.document, &known, at),
            config: policy.and_then(|policy| policy.check_config(binding)),
            models: policy.and_then(|policy| policy.check_models(binding)),
            manifests: (!self.manifests.is_empty()).then(|| self.check_manifests()),
        }
    }

    /// Each manifest is one that the binding names, under that name and epoch. Its signature is its publisher's matter.
    fn check_manifests(&self) -> Result<(), ManifestError> {
        #[derive(Deserialize)]
        struct Named {
            name: String,
            epoch: u64,
        }

        let Some(Subject::Session(session)) = self.binding.as_ref().map(|b| &b.subject) else {
            return Err(ManifestError::NoSession);
        };
        for (position, manifest) in self.manifests.iter().enumerate() {
            let actual = Sha256Digest::of(manifest);
            let mut named = session.models.iter();
            let Some(model) = named.find(|model| model.manifest_sha256 == actual) else {
                return Err(ManifestError::Unknown { position, actual });
            };
            match serde_json::from_slice::<Named>(manifest) {
                Ok(own) if own.name == model.name && own.epoch == model.epoch => {}
                _ => return Err(ManifestError::Other { position }),
            }
        }
        Ok(())
    }
}

fn base64(text: &str, member: &'static str) -> Result<Vec<u8>, BundleError> {
    STANDARD.decode(text).map_err(|_text| BundleError::Member {
        member,
        problem: "not base64 with padding",
    })
}
