//! Why evidence was refused. One variant per step of [`crate::Verifier`], in the order of the steps.
//!
//! These texts are for the relying party's own log. What a remote peer is told is the relying party's choice, and
//! should not be the reason.

use std::time::{Duration, SystemTime};

use crate::binding::Purpose;
use crate::digest::Sha256Digest;
use crate::pcr::Pcr;
use crate::step::Step;
use crate::text::{Bytes, rfc3339};

/// Evidence was refused at the step the variant names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Step 1: the bytes are not a Nitro attestation document.
    #[error("evidence is malformed")]
    Structure(#[from] StructureError),
    /// Step 2: the signing certificate does not chain to the trust anchor at this time.
    #[error("the certificates do not lead to the trust anchor")]
    Chain(#[from] ChainError),
    /// Step 3: the signature is not the leaf's over these bytes.
    #[error("the document's signature is wrong")]
    Signature,
    /// Step 4: an enclave in debug mode, whose operator can read its console and memory.
    #[error("debug mode: PCR{index} is zero or absent")]
    Debug {
        /// First such register of PCR0 to PCR2.
        index: u8,
    },
    /// Step 5: the document answers another challenge, or none.
    #[error("the nonce is {}, the challenge was {expected}", or(.actual, "absent"))]
    Nonce {
        /// The challenge.
        expected: Bytes,
        /// What the document carries; none if it has no nonce.
        actual: Option<Bytes>,
    },
    /// Step 5: the relying party's own challenge is so short that it could be guessed: a bug of the caller.
    #[error(
        "a challenge of {length} bytes can be guessed; at least {} are needed",
        crate::verifier::MIN_NONCE
    )]
    WeakChallenge {
        /// Its length in bytes.
        length: usize,
    },
    /// Step 6: the document attests another key, or none.
    #[error("the attested public key has SHA-256 {}, expected {expected}", or(.actual, "none: absent"))]
    PublicKey {
        /// SHA-256 of the DER SubjectPublicKeyInfo that the relying party knows.
        expected: Sha256Digest,
        /// SHA-256 of what the document carries; none if it carries no key.
        actual: Option<Sha256Digest>,
    },
    /// Step 6: the document was made for another purpose, configuration, run or exchange.
    #[error("user data is {}, the binding for {purpose} has {expected}", or(.actual, "absent"))]
    Binding {
        /// The purpose the relying party expected.
        purpose: Purpose,
        /// SHA-512 of the binding that the relying party computed.
        expected: Bytes,
        /// What the document carries; none if it has no user data.
        actual: Option<Bytes>,
    },
    /// Step 7: no accepted image has these measurements.
    #[error("PCR{index} is {}, expected {expected}", or(.actual, "absent"))]
    Measurement {
        /// First register that differs from the closest accepted image.
        index: u8,
        /// The reference value.
        expected: Pcr,
        /// What the document carries; none if the register is absent.
        actual: Option<Pcr>,
    },
    /// Step 7: the measurements are those of an accepted image, which is not accepted at this time.
    #[error("image {image} is accepted {}, and it is {}", window(.not_before, .not_after), rfc3339(*.at))]
    ImageWindow {
        /// Position in the list of accepted images, from 0.
        image: usize,
        /// First time at which it is accepted, if there is one.
        not_before: Option<SystemTime>,
        /// First time at which it no longer is, if there is one.
        not_after: Option<SystemTime>,
        /// The verifier's time.
        at: SystemTime,
    },
    /// Step 8: the document is too old, or from the future.
    #[error("the document is not fresh")]
    Freshness(#[from] FreshnessError),
}

impl Error {
    /// The step that refused.
    pub fn step(&self) -> Step {
        match self {
            Self::Structure(_) => Step::Structure,
            Self::Chain(_) => Step::Chain,
            Self::Signature => Step::Signature,
            Self::Debug { .. } => Step::Debug,
            Self::Nonce { .. } | Self::WeakChallenge { .. } => Step::Nonce,
            Self::PublicKey { .. } => Step::PublicKey,
            Self::Binding { .. } => Step::Binding,
            Self::Measurement { .. } | Self::ImageWindow { .. } => Step::Measurements,
            Self::Freshness(_) => Step::Freshness,
        }
    }
}

/// Which rule of the format was broken (AWS `nsm-api`, attestation process; RFC 9052; RFC 8949).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StructureError {
    /// The bytes end early, are not well-formed CBOR, or hold another type than the format has at this place.
    #[error("{field}: not the CBOR item the format has here")]
    Item {
        /// What was being read.
        field: &'static str,
    },
    /// A length, count or number outside the format's bounds.
    #[error("{field}: length, count or value out of bounds")]
    Length {
        /// What was being read.
        field: &'static str,
    },
    /// The protected header is not exactly `{1: -35}` (ES384), or there are unprotected headers.
    #[error("headers are not those of an ES384 signature")]
    Headers,
    /// The registers are not SHA-384.
    #[error("digest is not SHA384")]
    Digest,
    /// A member occurs twice.
    #[error("{field}: occurs twice")]
    Duplicate {
        /// Which member.
        field: &'static str,
    },
    /// A mandatory member is absent.
    #[error("{field}: missing")]
    Missing {
        /// Which member.
        field: &'static str,
    },
    /// A member that the format does not have.
    #[error("an unknown member")]
    Unknown,
    /// Bytes after the end.
    #[error("{field}: followed by other bytes")]
    Trailing {
        /// What should have ended there.
        field: &'static str,
    },
    /// A document of a NitroTPM: the same certificates, another kind of machine.
    #[error("a NitroTPM document, not one of an enclave")]
    NitroTpm,
}

/// Which rule of the certificate chain was broken. Positions count from the root, which is 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The bundle starts with another root.
    #[error("the root is {actual}, the trust anchor is {expected}")]
    Anchor {
        /// SHA-256 of the trust anchor's DER.
        expected: Sha256Digest,
        /// SHA-256 of the first certificate in the bundle.
        actual: Sha256Digest,
    },
    /// A certificate has not the form that this chain's certificates have.
    #[error("certificate {position}: {problem}")]
    Certificate {
        /// Position in the chain.
        position: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A certificate is not valid at this time. Leaves last three hours.
    #[error(
        "certificate {position} is valid from {} to {}, and it is {}",
        rfc3339(*.not_before), rfc3339(*.not_after), rfc3339(*.at)
    )]
    Validity {
        /// Position in the chain.
        position: usize,
        /// First second of its validity.
        not_before: SystemTime,
        /// Last second of its validity.
        not_after: SystemTime,
        /// The verifier's time.
        at: SystemTime,
    },
    /// A signature, name or critical extension is wrong.
    #[error("no valid path")]
    Path(#[from] webpki::Error),
    /// The certificates form a path, but not all of them, in the order given.
    #[error("the bundle is not the path from the root to the leaf, in order")]
    Order,
    /// A certificate is on a revocation list that the relying party gave.
    #[error("certificate {position} is revoked")]
    Revoked {
        /// Position in the chain.
        position: usize,
    },
    /// A revocation list for a certificate of this chain cannot be believed.
    #[error("the revocation list for certificate {position}: {problem}")]
    RevocationList {
        /// Position in the chain.
        position: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A revocation list for a certificate of this chain has run out, or not begun.
    #[error(
        "the revocation list for certificate {position} is for {} to {}, and it is {}",
        rfc3339(*.this_update), rfc3339(*.next_update), rfc3339(*.at)
    )]
    RevocationListTime {
        /// Position in the chain.
        position: usize,
        /// When it was made.
        this_update: SystemTime,
        /// When there was to be a newer one.
        next_update: SystemTime,
        /// The verifier's time.
        at: SystemTime,
    },
}

/// How the document's own time relates to the verifier's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FreshnessError {
    /// Made too long ago.
    #[error("made {age:?} ago, at most {max_age:?} is accepted")]
    TooOld {
        /// Verifier's time minus the document's.
        age: Duration,
        /// The relying party's limit.
        max_age: Duration,
    },
    /// Made later than the verifier's clock plus [`crate::CLOCK_LEEWAY`].
    #[error("made {ahead:?} after this verifier's time")]
    Future {
        /// Document's time minus the verifier's.
        ahead: Duration,
    },
}

fn or<T: std::fmt::Display>(value: &Option<T>, absent: &str) -> String {
    value
        .as_ref()
        .map_or_else(|| absent.to_owned(), ToString::to_string)
}

fn window(from: &Option<SystemTime>, until: &Option<SystemTime>) -> String {
    match (from, until) {
        (None, None) => "always".to_owned(),
        (Some(from), None) => format!("from {}", rfc3339(*from)),
        (None, Some(until)) => format!("until {}", rfc3339(*until)),
        (Some(from), Some(until)) => format!("from {} until {}", rfc3339(*from), rfc3339(*until)),
    }
}
