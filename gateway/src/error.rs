use std::error::Error as StdError;
use std::fmt;
use std::io;

use attestation::{Pcr, Sha256Digest};
use identity::SpiffeId;

use crate::PolicyError;

/// Which check refused, by the numbers of `docs/verifying.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// 1: TLS 1.3, full handshake, HTTP/2.
    Tls,
    /// 1: the server's X.509-SVID.
    ServerIdentity,
    /// 2: the answer to the challenge.
    Challenge,
    /// 3: the document's form.
    Structure,
    /// 3: its certificates.
    Chain,
    /// 3: its signature.
    Signature,
    /// 3: it is from a debug enclave.
    Debug,
    /// 3: it answers another challenge.
    Nonce,
    /// 4: it attests another TLS key.
    PublicKey,
    /// 4: it was made for another connection or purpose.
    Binding,
    /// 5: the image.
    Measurements,
    /// 5: its age.
    Freshness,
    /// 5: the parent instance or its role.
    Fleet,
    /// 5: the configuration.
    ConfigDigest,
    /// 5: the models.
    Models,
    /// 6: the verdict has run out.
    Expiry,
}

impl Step {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::ServerIdentity => "server-identity",
            Self::Challenge => "challenge",
            Self::Structure => "structure",
            Self::Chain => "chain",
            Self::Signature => "signature",
            Self::Debug => "debug",
            Self::Nonce => "nonce",
            Self::PublicKey => "public-key",
            Self::Binding => "binding",
            Self::Measurements => "measurements",
            Self::Freshness => "freshness",
            Self::Fleet => "fleet",
            Self::ConfigDigest => "config-digest",
            Self::Models => "models",
            Self::Expiry => "expiry",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why there is no attested session. Values in the messages are public ones.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Ours to fix.
    #[error("policy: {0}")]
    Policy(#[from] PolicyError),
    #[error("no usable x509-svid of our own to present")]
    NoIdentity,
    #[error("tls configuration: {0}")]
    TlsConfig(#[source] identity::Error),

    // Try again later.
    #[error("enclave endpoint: {0}")]
    Connect(#[source] io::Error),
    #[error("{what} took longer than {seconds} s")]
    Timeout { what: &'static str, seconds: u64 },
    #[error("connection: {}", chain(.0))]
    Connection(#[source] hyper::Error),
    #[error("the session is closed")]
    Closed,

    // The enclave refuses us.
    #[error("the enclave refused our certificate: {alert}")]
    CallerRefused { alert: String },
    #[error("the enclave answered the challenge with http status {status}")]
    ChallengeRefused { status: u16 },

    // Step 1.
    #[error("tls handshake: {0}")]
    Tls(#[source] io::Error),
    #[error("tls session: {0}")]
    Session(#[source] identity::Error),
    #[error("server identity: {}", server_identity(.0))]
    ServerIdentity(#[source] io::Error),
    #[error("server identity, checked again: {0}")]
    ServerIdentityAgain(#[source] identity::Error),
    // Step 2.
    #[error("answer to the challenge: {0}")]
    Challenge(&'static str),
    // Steps 3 and 4, and the image and age of step 5.
    #[error("evidence: {}", chain(.0))]
    Evidence(#[from] attestation::Error),
    // Step 5.
    #[error("PCR{index} names a parent that is not in the fleet: {}, expected {}", absent_or(.actual), any_of(.expected))]
    Fleet {
        index: u8,
        expected: Vec<Pcr>,
        actual: Option<Pcr>,
    },
    #[error("configuration digest is {actual}, expected {}", any_of(.expected))]
    ConfigDigest {
        expected: Vec<Sha256Digest>,
        actual: Sha256Digest,
    },
    #[error("model {name} is in the policy but not served")]
    ModelMissing { name: String },
    #[error("model {name} is served but not in the policy")]
    ModelUnlisted { name: String },
    #[error("model {name} is named twice by the enclave")]
    ModelTwice { name: String },
    #[error("model {name} is at epoch {actual}, at least {minimum} is required")]
    ModelEpoch {
        name: String,
        minimum: u64,
        actual: u64,
    },
    #[error("manifest of model {name} is {actual}, expected {expected}")]
    ModelManifest {
        name: String,
        expected: Sha256Digest,
        actual: Sha256Digest,
    },
    #[error(
        "model {name} is signed by publisher {actual}, expected {}",
        any_of(expected)
    )]
    ModelPublisher {
        name: String,
        expected: Vec<Sha256Digest>,
        actual: Sha256Digest,
    },
    // A new policy, on a connection that an earlier one accepted.
    #[error("the new policy does not list {0}")]
    ServerUnlisted(SpiffeId),
    #[error("the new policy has another trust anchor")]
    TrustAnchorChanged,
    // Step 6.
    #[error("the verdict on this connection has run out")]
    Expired,
}

impl Error {
    /// The check that refused the enclave, if one did. Everything else is about reaching it or about ourselves.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        use attestation::Error as Evidence;
        Some(match self {
            Self::Session(_) => Step::Tls,
            Self::ServerIdentity(_) | Self::ServerIdentityAgain(_) | Self::ServerUnlisted(_) => {
                Step::ServerIdentity
            }
            Self::TrustAnchorChanged => Step::Chain,
            Self::Challenge(_) => Step::Challenge,
            Self::Evidence(evidence) => match evidence {
                Evidence::Structure(_) => Step::Structure,
                Evidence::Chain(_) => Step::Chain,
                Evidence::Signature => Step::Signature,
                Evidence::Debug { .. } => Step::Debug,
                Evidence::Nonce { .. } | Evidence::WeakChallenge { .. } => Step::Nonce,
                Evidence::PublicKey { .. } => Step::PublicKey,
                Evidence::Binding { .. } => Step::Binding,
                Evidence::Measurement { .. } | Evidence::ImageWindow { .. } => Step::Measurements,
                Evidence::Freshness(_) => Step::Freshness,
                // A step that this crate does not know yet is still a refusal.
                _ => Step::Structure,
            },
            Self::Fleet { .. } => Step::Fleet,
            Self::ConfigDigest { .. } => Step::ConfigDigest,
            Self::ModelMissing { .. }
            | Self::ModelUnlisted { .. }
            | Self::ModelTwice { .. }
            | Self::ModelEpoch { .. }
            | Self::ModelManifest { .. }
            | Self::ModelPublisher { .. } => Step::Models,
            Self::Expired => Step::Expiry,
            _ => return None,
        })
    }

    /// Expected and actual value, where the check compared two.
    #[must_use]
    pub fn compared(&self) -> Option<(String, String)> {
        match self {
            Self::Evidence(attestation::Error::Measurement {
                expected, actual, ..
            }) => Some((expected.to_string(), absent_or(actual))),
            Self::Fleet {
                expected, actual, ..
            } => Some((any_of(expected), absent_or(actual))),
            Self::ConfigDigest { expected, actual } => Some((any_of(expected), actual.to_string())),
            Self::ModelManifest {
                expected, actual, ..
            } => Some((expected.to_string(), actual.to_string())),
            Self::ModelPublisher {
                expected, actual, ..
            } => Some((any_of(expected), actual.to_string())),
            Self::ModelEpoch {
                minimum, actual, ..
            } => Some((format!("at least {minimum}"), actual.to_string())),
            _ => None,
        }
    }

    /// Sorts a failed handshake: our verdict on the server's certificate, or anything else.
    pub(crate) fn handshake(error: io::Error) -> Self {
        if identity::verdict(&error).is_some() {
            return Self::ServerIdentity(error);
        }
        Self::Tls(error)
    }
}

fn absent_or(actual: &Option<Pcr>) -> String {
    actual.map_or_else(|| "absent".to_owned(), |pcr| pcr.to_string())
}

/// Alternatives, as a person reads them.
fn any_of<T: fmt::Display>(expected: &[T]) -> String {
    let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
    expected.join(" or ")
}

/// An error with its sources, on one line.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}

fn server_identity(error: &io::Error) -> String {
    identity::verdict(error).map_or_else(|| error.to_string(), ToString::to_string)
}
