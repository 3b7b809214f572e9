//! Sigstore bundles v0.3 with a key in the reader's hands: the one file per signature that cosign reads and writes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealed_model::{PublisherKey, Sha256Digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Blob, Envelope, Error, MAX_ENVELOPE, Signature, canonical};

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A signature of a file, or a signed statement; not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bundle {
    Blob(Signature),
    Statement(Envelope),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    media_type: String,
    verification_material: Material,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_signature: Option<MessageSignature>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dsse_envelope: Option<Envelope>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Material {
    public_key: PublicKey,
    /// A public log's promises. They add nothing to a key that the reader has chosen, and are not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tlog_entries: Option<Vec<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicKey {
    /// cosign: base64 of the SHA-256 of the SubjectPublicKeyInfo. Covered by no signature; nothing is decided by it.
    #[serde(default)]
    hint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MessageSignature {
    message_digest: MessageDigest,
    signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageDigest {
    algorithm: String,
    digest: String,
}

impl Bundle {
    /// The bundle of a file's signature.
    ///
    /// # Errors
    /// None with values of ours.
    pub fn of_blob(
        blob: &Blob,
        signature: &Signature,
        signer: &PublisherKey,
    ) -> Result<Vec<u8>, Error> {
        let message_signature = MessageSignature {
            message_digest: MessageDigest {
                algorithm: "SHA2_256".into(),
                digest: STANDARD.encode(blob.sha256().as_bytes()),
            },
            signature: signature.to_base64(),
        };
        write(signer, Some(message_signature), None)
    }

    /// The bundle of a signed statement.
    ///
    /// # Errors
    /// None with values of ours.
    pub fn of_statement(envelope: &Envelope, signer: &PublisherKey) -> Result<Vec<u8>, Error> {
        write(signer, None, Some(envelope.clone()))
    }

    /// Reads a bundle that was signed with a key; one with a certificate needs a public authority, and is refused.
    ///
    /// # Errors
    /// Where it is not that.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let file: File = canonical::read("bundle", bytes, MAX_ENVELOPE)?;
        if file.media_type != MEDIA_TYPE {
            return Err(Error::UnknownVersion {
                what: "bundle",
                found: canonical::shown(&file.media_type),
                known: MEDIA_TYPE,
            });
        }
        match (file.message_signature, file.dsse_envelope) {
            (Some(message), None) if message.message_digest.algorithm == "SHA2_256" => {
                Signature::parse(message.signature.as_bytes()).map(Self::Blob)
            }
            (None, Some(envelope)) => envelope.checked().map(Self::Statement),
            _ => Err(Error::malformed(
                "bundle",
                "has neither one signature over SHA-256 nor one envelope",
            )),
        }
    }
}

fn write(
    signer: &PublisherKey,
    message_signature: Option<MessageSignature>,
    dsse_envelope: Option<Envelope>,
) -> Result<Vec<u8>, Error> {
    let id: Sha256Digest = signer
        .id()
        .parse()
        .map_err(|_never| Error::Internal("a key's id is a SHA-256"))?;
    let file = File {
        media_type: MEDIA_TYPE.into(),
        verification_material: Material {
            public_key: PublicKey {
                hint: STANDARD.encode(id.as_bytes()),
            },
            tlog_entries: None,
            timestamp_verification_data: None,
        },
        message_signature,
        dsse_envelope,
    };
    canonical::bytes(&file)
}
