//! Reading a binding back, for an auditor who was given the text.

use serde::Deserialize;

use super::{Binding, ModelIdentity, Purpose, SessionSubject, Subject};
use crate::digest::{BootId, Sha256Digest, Sha384Digest};

/// 64 models with long names stay far below.
const MAX_TEXT: usize = 64 * 1024;

/// A text that is no binding of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseBindingError {
    /// Longer than any binding.
    #[error("longer than {MAX_TEXT} bytes")]
    Length,
    /// Not JSON with the members of a binding and no others, each once.
    #[error("not a binding: {0}")]
    Json(String),
    /// A member that its purpose needs is absent.
    #[error("a binding for {purpose} has {member}")]
    Missing {
        /// What it says it is for.
        purpose: Purpose,
        /// What it lacks.
        member: &'static str,
    },
    /// Another version, label, role or purpose's member, or not in canonical form (RFC 8785): its hash would be no document's.
    #[error("not the canonical text of a binding of version 1")]
    NotCanonical,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    // Looked at by comparing the whole text.
    #[serde(rename = "v")]
    _version: u8,
    #[serde(rename = "label")]
    _label: String,
    #[serde(rename = "role", default)]
    _role: Option<String>,
    purpose: Purpose,
    config_digest: Sha256Digest,
    boot_id: BootId,
    runtime_data_sha384: Option<Sha384Digest>,
    csr_sha256: Option<Sha256Digest>,
    spki_sha256: Option<Sha256Digest>,
    tls_spki_sha256: Option<Sha256Digest>,
    exporter: Option<Sha256Digest>,
    peer_leaf_sha256: Option<Sha256Digest>,
    spiffe_id: Option<String>,
    svid_serial: Option<String>,
    models: Option<Vec<WireModel>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireModel {
    name: String,
    epoch: String,
    manifest_sha256: Sha256Digest,
    publisher_sha256: Sha256Digest,
}

impl Binding {
    /// Reads what [`Binding::canonical_json`] wrote, and nothing else: the text of the result is `text`, byte for byte. Whether
    /// any document commits to it is another question.
    ///
    /// # Errors
    /// See [`ParseBindingError`].
    pub fn from_canonical_json(text: &[u8]) -> Result<Self, ParseBindingError> {
        if text.len() > MAX_TEXT {
            return Err(ParseBindingError::Length);
        }
        let wire: Wire = serde_json::from_slice(text)
            .map_err(|error| ParseBindingError::Json(error.to_string()))?;
        let binding = wire.binding()?;
        match binding.canonical_json() == text {
            true => Ok(binding),
            false => Err(ParseBindingError::NotCanonical),
        }
    }
}

impl Wire {
    fn binding(self) -> Result<Binding, ParseBindingError> {
        let purpose = self.purpose;
        let missing = |member| ParseBindingError::Missing { purpose, member };
        let subject = match purpose {
            Purpose::KeyRelease => Subject::KeyRelease {
                runtime_data_sha384: self
                    .runtime_data_sha384
                    .ok_or_else(|| missing("runtime_data_sha384"))?,
            },
            Purpose::SvidIssuance => Subject::SvidIssuance {
                csr_sha256: self.csr_sha256.ok_or_else(|| missing("csr_sha256"))?,
                spki_sha256: self.spki_sha256.ok_or_else(|| missing("spki_sha256"))?,
            },
            Purpose::Session => Subject::Session(SessionSubject {
                tls_spki_sha256: self
                    .tls_spki_sha256
                    .ok_or_else(|| missing("tls_spki_sha256"))?,
                exporter: *self.exporter.ok_or_else(|| missing("exporter"))?.as_bytes(),
                peer_leaf_sha256: self
                    .peer_leaf_sha256
                    .ok_or_else(|| missing("peer_leaf_sha256"))?,
                spiffe_id: self.spiffe_id.ok_or_else(|| missing("spiffe_id"))?,
                svid_serial: self.svid_serial.ok_or_else(|| missing("svid_serial"))?,
                models: self
                    .models
                    .ok_or_else(|| missing("models"))?
                    .into_iter()
                    .map(WireModel::identity)
                    .collect::<Result<_, _>>()?,
            }),
        };
        Ok(Binding {
            config_digest: self.config_digest,
            boot_id: self.boot_id,
            subject,
        })
    }
}

impl WireModel {
    fn identity(self) -> Result<ModelIdentity, ParseBindingError> {
        Ok(ModelIdentity {
            // A leading zero or a sign does not survive the comparison of the texts.
            epoch: self
                .epoch
                .parse()
                .map_err(|_number| ParseBindingError::NotCanonical)?,
            name: self.name,
            manifest_sha256: self.manifest_sha256,
            publisher_sha256: self.publisher_sha256,
        })
    }
}
