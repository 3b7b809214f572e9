//! What a piece of evidence commits to beyond the image: one canonical JSON text (RFC 8785) whose SHA-512 is the
//! document's `user_data`.
//!
//! Every text carries `v`, a `label` that no other protocol uses, and a `purpose`, so a document made for one purpose
//! proves nothing for another. Integers that may exceed 2^53 are written as decimal strings (RFC 7493 section 2.2).

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::digest::{BootId, Sha256Digest, Sha384Digest, hash};

mod parse;

pub use parse::ParseBindingError;

/// Version of the canonical text. A change of any member's meaning takes a new number.
const VERSION: u8 = 2;

/// What the attester says about itself and about the exchange the evidence belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// SHA-256 of the configuration file the enclave runs with.
    pub config_digest: Sha256Digest,
    /// Which run of the image speaks.
    pub boot_id: BootId,
    /// The one exchange this evidence serves.
    pub subject: Subject,
}

/// The exchange, by purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A key broker is asked for a data key.
    KeyRelease {
        /// SHA-384 of the canonical runtime data (RCAR 0.4.0), which holds the broker's nonce and the recipient key.
        runtime_data_sha384: Sha384Digest,
    },
    /// An issuer is asked for an X.509-SVID.
    SvidIssuance {
        /// SHA-256 of the DER certificate signing request (RFC 2986).
        csr_sha256: Sha256Digest,
        /// SHA-256 of the DER SubjectPublicKeyInfo in that request.
        spki_sha256: Sha256Digest,
    },
    /// A caller checks the enclave behind one TLS connection.
    Session(SessionSubject),
}

/// Both ends compute this from their own TLS state; neither takes it from the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSubject {
    /// SHA-256 of the DER SubjectPublicKeyInfo of the server's leaf in this connection.
    pub tls_spki_sha256: Sha256Digest,
    /// RFC 9266 `tls-exporter` channel binding of this connection.
    pub exporter: [u8; 32],
    /// SHA-256 of the caller's DER leaf: the exporter does not cover the client's certificate.
    pub peer_leaf_sha256: Sha256Digest,
    /// The server's SPIFFE ID.
    pub spiffe_id: String,
    /// Serial number of the server's X.509-SVID, lower-case hex.
    pub svid_serial: String,
    /// The models this enclave serves, in the order of its configuration.
    pub models: Vec<ModelIdentity>,
}

/// Which sealed model, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Name under which it is served.
    pub name: String,
    /// Monotonic version.
    pub epoch: u64,
    /// SHA-256 of the signed manifest's bytes.
    pub manifest_sha256: Sha256Digest,
    /// SHA-256 of the DER SubjectPublicKeyInfo of the publisher whose signature on the manifest was verified.
    pub publisher_sha256: Sha256Digest,
}

/// What a document was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// See [`Subject::KeyRelease`].
    KeyRelease,
    /// See [`Subject::SvidIssuance`].
    SvidIssuance,
    /// See [`Subject::Session`].
    Session,
}

impl Purpose {
    /// The word in the canonical text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyRelease => "key-release",
            Self::SvidIssuance => "svid-issuance",
            Self::Session => "session",
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::KeyRelease => "cloister evidence binding: key-release",
            Self::SvidIssuance => "cloister evidence binding: svid-issuance",
            Self::Session => "cloister evidence binding: session",
        }
    }
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Binding {
    /// What the evidence is for.
    pub fn purpose(&self) -> Purpose {
        match self.subject {
            Subject::KeyRelease { .. } => Purpose::KeyRelease,
            Subject::SvidIssuance { .. } => Purpose::SvidIssuance,
            Subject::Session(_) => Purpose::Session,
        }
    }

    /// The canonical text (RFC 8785), UTF-8.
    #[expect(
        clippy::expect_used,
        reason = "strings, one small integer and string keys always serialize"
    )]
    pub fn canonical_json(&self) -> Vec<u8> {
        let purpose = self.purpose();
        let text = CanonicalBinding {
            v: VERSION,
            label: purpose.label(),
            purpose,
            config_digest: self.config_digest,
            boot_id: self.boot_id,
            subject: match &self.subject {
                Subject::KeyRelease {
                    runtime_data_sha384,
                } => CanonicalSubject::KeyRelease {
                    runtime_data_sha384: *runtime_data_sha384,
                },
                Subject::SvidIssuance {
                    csr_sha256,
                    spki_sha256,
                } => CanonicalSubject::SvidIssuance {
                    csr_sha256: *csr_sha256,
                    spki_sha256: *spki_sha256,
                },
                Subject::Session(session) => CanonicalSubject::session(session),
            },
        };
        serde_json_canonicalizer::to_vec(&text).expect("a binding serializes")
    }

    /// SHA-512 of [`Binding::canonical_json`]: the document's `user_data`.
    pub fn user_data(&self) -> [u8; 64] {
        hash(&digest::SHA512, &self.canonical_json())
    }
}

#[derive(Serialize)]
struct CanonicalBinding<'a> {
    v: u8,
    label: &'static str,
    purpose: Purpose,
    config_digest: Sha256Digest,
    boot_id: BootId,
    #[serde(flatten)]
    subject: CanonicalSubject<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum CanonicalSubject<'a> {
    KeyRelease {
        runtime_data_sha384: Sha384Digest,
    },
    SvidIssuance {
        csr_sha256: Sha256Digest,
        spki_sha256: Sha256Digest,
    },
    Session {
        // A TLS exporter is the same at both ends, so the text says whose statement it is.
        role: &'static str,
        tls_spki_sha256: Sha256Digest,
        exporter: String,
        peer_leaf_sha256: Sha256Digest,
        spiffe_id: &'a str,
        svid_serial: &'a str,
        models: Vec<CanonicalModel<'a>>,
    },
}

#[derive(Serialize)]
struct CanonicalModel<'a> {
    name: &'a str,
    epoch: String,
    manifest_sha256: Sha256Digest,
    publisher_sha256: Sha256Digest,
}

impl<'a> CanonicalSubject<'a> {
    fn session(session: &'a SessionSubject) -> Self {
        Self::Session {
            role: "server",
            tls_spki_sha256: session.tls_spki_sha256,
            exporter: hex::encode(session.exporter),
            peer_leaf_sha256: session.peer_leaf_sha256,
            spiffe_id: &session.spiffe_id,
            svid_serial: &session.svid_serial,
            models: session
                .models
                .iter()
                .map(|model| CanonicalModel {
                    name: &model.name,
                    epoch: model.epoch.to_string(),
                    manifest_sha256: model.manifest_sha256,
                    publisher_sha256: model.publisher_sha256,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
