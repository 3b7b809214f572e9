//! `manifest.sig`: a DSSE envelope (in-toto/attestation envelope v1) without its payload, which is the file `manifest.json`.
//! Put that file, base64, into a `payload` field and any DSSE tool can verify it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::dsse::message_digest;
use crate::package::SIGNATURE;
use crate::{Error, PublisherKey, SigningKey};

pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.cloister.sealed-model.manifest.v1+json";

/// A P-256 envelope takes 280 bytes.
pub(crate) const MAX_ENVELOPE_BYTES: u64 = 4096;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: [Signature; 1],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: String,
    sig: String,
}

impl Envelope {
    pub(crate) fn sign(payload: &[u8], signer: &SigningKey) -> Result<Self, Error> {
        let digest = message_digest(PAYLOAD_TYPE, payload);
        Ok(Self {
            payload_type: PAYLOAD_TYPE.into(),
            signatures: [Signature {
                keyid: signer.public()?.id(),
                sig: STANDARD.encode(signer.sign_digest(&digest)?),
            }],
        })
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = serde_json::to_vec(self)
            .ok()
            .ok_or(Error::Internal("an envelope has a JSON form"))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Accepts only the bytes that [`Self::to_bytes`] would write, so that no byte of the file is free to change.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let refused = Error::Envelope { file: SIGNATURE };
        if bytes.len() as u64 > MAX_ENVELOPE_BYTES {
            return Err(refused);
        }
        let Ok(envelope) = serde_json::from_slice::<Self>(bytes) else {
            return Err(refused);
        };
        if envelope.payload_type != PAYLOAD_TYPE || envelope.to_bytes()? != bytes {
            return Err(refused);
        }
        Ok(envelope)
    }

    /// The key id of who signed, as the envelope says; anyone may have written it, so it is made fit to be shown.
    pub(crate) fn claimed_signer(&self) -> String {
        let [signature] = &self.signatures;
        let shown = signature.keyid.chars().filter(char::is_ascii_graphic);
        shown.take(64).collect()
    }

    /// Which of `trusted` signed `payload`.
    pub(crate) fn verify<'k>(
        &self,
        payload: &[u8],
        trusted: &'k [PublisherKey],
    ) -> Result<&'k PublisherKey, Error> {
        let [Signature { keyid, sig }] = &self.signatures;
        let publisher = trusted
            .iter()
            .find(|key| key.id() == *keyid)
            .ok_or_else(|| Error::UnknownPublisher {
                file: SIGNATURE,
                publisher: self.claimed_signer(),
            })?;
        let holds = STANDARD
            .decode(sig)
            .is_ok_and(|sig| publisher.verify_digest(&message_digest(PAYLOAD_TYPE, payload), &sig));
        if !holds {
            return Err(Error::Signature {
                publisher: publisher.id(),
            });
        }
        Ok(publisher)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_signature_of_a_trusted_publisher_holds_and_names_it() {
        let (ours, other) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let bytes = Envelope::sign(b"payload", &ours)
            .unwrap()
            .to_bytes()
            .unwrap();
        let envelope = Envelope::parse(&bytes).unwrap();
        let trusted = [other.public().unwrap(), ours.public().unwrap()];
        assert_eq!(envelope.verify(b"payload", &trusted).unwrap(), &trusted[1]);
        assert!(matches!(
            envelope.verify(b"payloae", &trusted),
            Err(Error::Signature { .. })
        ));
        assert!(matches!(
            envelope.verify(b"payload", &trusted[..1]),
            Err(Error::UnknownPublisher { .. })
        ));
        assert!(matches!(
            envelope.verify(b"payload", &[]),
            Err(Error::UnknownPublisher { .. })
        ));
    }

    #[test]
    fn the_same_envelope_written_otherwise_is_refused() {
        let signer = SigningKey::generate().unwrap();
        let bytes = Envelope::sign(b"payload", &signer)
            .unwrap()
            .to_bytes()
            .unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(Envelope::parse(text.as_bytes()).is_ok());
        for other in [
            text.trim_end().to_owned(),
            text.replace(':', ": "),
            text.replace("keyid", "\\u006beyid"),
            text.replace("v1+json", "v2+json"),
            text.replacen('{', r#"{"payload":"","#, 1),
            format!("{text} "),
        ] {
            assert!(Envelope::parse(other.as_bytes()).is_err(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_input_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            drop(Envelope::parse(&bytes));
        }
    }
}
