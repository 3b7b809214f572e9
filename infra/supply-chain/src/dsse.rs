//! DSSE envelopes (secure-systems-lab/dsse v1.0) around in-toto statements.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealed_model::{PublisherKey, Sha256Digest, SigningKey};
use serde::{Deserialize, Serialize};

use crate::{Error, Statement, canonical};

const IN_TOTO: &str = "application/vnd.in-toto+json";
/// A bill of materials of a thousand files is half a megabyte.
pub const MAX_ENVELOPE: usize = 16 << 20;

/// A signed statement; who signed, and what it says, is not known before [`Self::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    /// Exactly one: a reader that takes any of several, and one that asks for all, would differ.
    signatures: [EnvelopeSignature; 1],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    /// A hint, covered by no signature; nothing is decided by it. Ours have none: cosign passes over a signature with a keyid
    /// that is not its own kind of fingerprint.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
    sig: String,
}

impl Envelope {
    /// Signs a statement, as [`crate::provenance`] and [`crate::sbom_statement`] make it.
    ///
    /// # Errors
    /// Where `statement` is not one, or no signature could be made.
    pub fn sign(statement: &[u8], signer: &SigningKey) -> Result<Self, Error> {
        Statement::parse(statement, MAX_ENVELOPE)?;
        let digest = message_digest(IN_TOTO, statement);
        Ok(Self {
            payload: STANDARD.encode(statement),
            payload_type: IN_TOTO.into(),
            signatures: [EnvelopeSignature {
                keyid: String::new(),
                sig: STANDARD.encode(signer.sign_digest(&digest).map_err(Error::Key)?),
            }],
        })
    }

    /// # Errors
    /// Where it is not an envelope around an in-toto statement with one signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let envelope: Self = canonical::read("envelope", bytes, MAX_ENVELOPE)?;
        envelope.checked()
    }

    pub(crate) fn checked(self) -> Result<Self, Error> {
        match self.payload_type == IN_TOTO {
            true => Ok(self),
            false => Err(Error::Unexpected {
                what: "payload type",
                expected: IN_TOTO.into(),
                found: canonical::shown(&self.payload_type),
            }),
        }
    }

    /// The envelope in JSON.
    ///
    /// # Errors
    /// None with a value of ours.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        canonical::bytes(self)
    }

    /// What one of `keys` signed, and which.
    ///
    /// # Errors
    /// [`Error::Signature`] where none did; else where what it signed is no in-toto statement.
    pub fn verify<'k>(
        &self,
        keys: &'k [PublisherKey],
    ) -> Result<(Statement, &'k PublisherKey), Error> {
        let [signature] = &self.signatures;
        let decode = |text: &str| {
            STANDARD
                .decode(text)
                .ok()
                .ok_or_else(|| Error::malformed("envelope", "payload or signature is not base64"))
        };
        let payload = decode(&self.payload)?;
        let signature = decode(&signature.sig)?;
        let digest = message_digest(&self.payload_type, &payload);
        let key = keys
            .iter()
            .find(|key| key.verify_digest(&digest, &signature))
            .ok_or(Error::Signature {
                what: "attestation",
            })?;
        Ok((Statement::parse(&payload, MAX_ENVELOPE)?, key))
    }
}

/// SHA-256 of DSSE's pre-authentication encoding: type and payload with their lengths, so that neither can pass for a part
/// of the other.
pub(crate) fn message_digest(payload_type: &str, payload: &[u8]) -> Sha256Digest {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    Sha256Digest::of(&[head.as_bytes(), payload].concat())
}
