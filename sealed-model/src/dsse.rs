//! DSSE envelopes (secure-systems-lab/dsse v1.0) with their payload inside, and the message that every DSSE signature is over.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::{Error, PublisherKey, Sha256Digest, SigningKey};

/// The payload type of in-toto statements in JSON.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// Something signed; who signed, and what, is not known before [`Self::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    /// Exactly one: a reader that takes any of several, and one that asks for all, would differ.
    signatures: [Signature; 1],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    /// A hint, covered by no signature; nothing is decided by it. Ours have none: cosign passes over a signature with a keyid
    /// that is not its own kind of fingerprint.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
    sig: String,
}

/// Why an envelope proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    #[error("payload or signature is not base64")]
    Base64,
    #[error("signed by none of the keys given")]
    Signature,
}

impl Envelope {
    /// # Errors
    /// Where no signature could be made.
    pub fn sign(payload_type: &str, payload: &[u8], signer: &SigningKey) -> Result<Self, Error> {
        let digest = message_digest(payload_type, payload);
        Ok(Self {
            payload: STANDARD.encode(payload),
            payload_type: payload_type.into(),
            signatures: [Signature {
                keyid: String::new(),
                sig: STANDARD.encode(signer.sign_digest(&digest)?),
            }],
        })
    }

    /// As the envelope says; [`Self::verify`] covers it, too.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// What one of `keys` signed, and which.
    ///
    /// # Errors
    /// [`Unproven`]; final.
    pub fn verify<'k>(
        &self,
        keys: &'k [PublisherKey],
    ) -> Result<(Vec<u8>, &'k PublisherKey), Unproven> {
        let [signature] = &self.signatures;
        let decode = |text: &str| STANDARD.decode(text).ok().ok_or(Unproven::Base64);
        let payload = decode(&self.payload)?;
        let signature = decode(&signature.sig)?;
        let digest = message_digest(&self.payload_type, &payload);
        let key = keys
            .iter()
            .find(|key| key.verify_digest(&digest, &signature))
            .ok_or(Unproven::Signature)?;
        Ok((payload, key))
    }
}

/// SHA-256 of DSSE's pre-authentication encoding: type and payload with their lengths, so that neither can pass for a part
/// of the other.
pub fn message_digest(payload_type: &str, payload: &[u8]) -> Sha256Digest {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    let mut message = crate::digest::Sha256::new();
    message.update(head.as_bytes());
    message.update(payload);
    message.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_holds_for_its_type_its_payload_and_its_key() {
        let (ours, other) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let keys = [other.public().unwrap(), ours.public().unwrap()];
        let envelope = Envelope::sign(IN_TOTO, b"payload", &ours).unwrap();
        let (payload, key) = envelope.verify(&keys).unwrap();
        assert_eq!((payload.as_slice(), key), (&b"payload"[..], &keys[1]));
        assert_eq!(envelope.verify(&keys[..1]), Err(Unproven::Signature));
        assert_eq!(envelope.verify(&[]), Err(Unproven::Signature));
        let changed = |change: fn(&mut Envelope)| {
            let mut changed = envelope.clone();
            change(&mut changed);
            changed.verify(&keys).map(drop)
        };
        assert_eq!(
            changed(|e| e.payload_type.push('x')),
            Err(Unproven::Signature)
        );
        assert_eq!(
            changed(|e| e.payload = STANDARD.encode("payloae")),
            Err(Unproven::Signature)
        );
        assert_eq!(changed(|e| e.payload.push('!')), Err(Unproven::Base64));
        assert_eq!(
            changed(|e| e.signatures[0].sig.clear()),
            Err(Unproven::Signature)
        );
    }
}
