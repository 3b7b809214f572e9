//! A document before it is signed: every part can be changed, and whatever results is signed for real.

use attestation::{Evidence, Pcrs};
use ciborium::Value;
use coset::{CborSerializable, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable, iana};

use super::error::PkiError;
use super::pki::SimLeaf;

/// Parts of an attestation document. Start from [`super::SimNsm::document`], change fields, [`DocumentBuilder::sign`].
#[derive(Debug, Clone)]
pub struct DocumentBuilder {
    /// Member `module_id`.
    pub module_id: String,
    /// Member `digest`.
    pub digest: String,
    /// Member `timestamp`, milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// Member `pcrs`.
    pub pcrs: Pcrs,
    /// Member `certificate`, DER.
    pub certificate: Vec<u8>,
    /// Member `cabundle`, DER, from the root down.
    pub cabundle: Vec<Vec<u8>>,
    /// Member `public_key`; none is written as null.
    pub public_key: Option<Vec<u8>>,
    /// Member `user_data`; none is written as null.
    pub user_data: Option<Vec<u8>>,
    /// Member `nonce`; none is written as null.
    pub nonce: Option<Vec<u8>>,
    /// More members, after the others; a name may repeat one of theirs.
    pub extra: Vec<(String, Value)>,
    /// Whether the payload map has an indefinite length, as since 2025, or a definite one.
    pub indefinite: bool,
    /// Whether the tag of COSE_Sign1 is written; real documents have none.
    pub tagged: bool,
    /// The signature algorithm in the protected header.
    pub algorithm: iana::Algorithm,
    /// Bits to flip in the last byte of the signature once it is made.
    pub spoil_signature: u8,
}

impl DocumentBuilder {
    /// Encodes the document and signs it with the leaf's key, whether or not it carries that leaf's certificate.
    ///
    /// # Errors
    /// See [`PkiError`]; [`PkiError::Encoding`] also when it is longer than evidence may be.
    pub fn sign(&self, leaf: &SimLeaf) -> Result<Evidence, PkiError> {
        let mut signed = CoseSign1Builder::new()
            .protected(HeaderBuilder::new().algorithm(self.algorithm).build())
            .payload(self.payload()?)
            .try_create_signature(&[], |message| leaf.sign(message))?
            .build();
        if let Some(last) = signed.signature.last_mut() {
            *last ^= self.spoil_signature;
        }
        let bytes = if self.tagged {
            signed.to_tagged_vec()
        } else {
            signed.to_vec()
        };
        match bytes.map(Evidence::from_bytes) {
            Ok(Ok(evidence)) => Ok(evidence),
            _ => Err(PkiError::Encoding),
        }
    }

    /// The payload map.
    fn payload(&self) -> Result<Vec<u8>, PkiError> {
        let optional = |value: &Option<Vec<u8>>| value.clone().map_or(Value::Null, Value::Bytes);
        let pcrs = self
            .pcrs
            .iter()
            .map(|(index, value)| (Value::from(*index), Value::Bytes(value.as_bytes().to_vec())))
            .collect();
        // The order of real documents.
        let members = [
            ("module_id", Value::Text(self.module_id.clone())),
            ("digest", Value::Text(self.digest.clone())),
            ("timestamp", Value::from(self.timestamp_ms)),
            ("pcrs", Value::Map(pcrs)),
            ("certificate", Value::Bytes(self.certificate.clone())),
            (
                "cabundle",
                Value::Array(self.cabundle.iter().cloned().map(Value::Bytes).collect()),
            ),
            ("public_key", optional(&self.public_key)),
            ("user_data", optional(&self.user_data)),
            ("nonce", optional(&self.nonce)),
        ];
        let members: Vec<_> = members
            .into_iter()
            .map(|(name, value)| (Value::from(name), value))
            .chain(
                self.extra
                    .iter()
                    .map(|(name, value)| (Value::Text(name.clone()), value.clone())),
            )
            .collect();

        let mut payload = Vec::new();
        if self.indefinite {
            // ciborium only writes definite maps.
            payload.push(0xbf);
            for (name, value) in &members {
                encode(name, &mut payload)?;
                encode(value, &mut payload)?;
            }
            payload.push(0xff);
        } else {
            encode(&Value::Map(members), &mut payload)?;
        }
        Ok(payload)
    }
}

fn encode(value: &Value, out: &mut Vec<u8>) -> Result<(), PkiError> {
    match ciborium::into_writer(value, out) {
        Ok(()) => Ok(()),
        Err(_) => Err(PkiError::Encoding),
    }
}
