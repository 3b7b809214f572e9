//! Sigstore bundles v0.3 with a key in the reader's hands: one file per signature, as cosign and model-signing read and write it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dsse::Envelope;
use crate::json::{self, Problem};
use crate::{Error, Sha256Digest};

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What a bundle carries; not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A signature, in base64 of DER, over a file of this digest.
    Message {
        sha256: Option<Sha256Digest>,
        signature: String,
    },
    Envelope(Envelope),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Bundle {
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
    /// cosign: base64 of the SHA-256 of the SubjectPublicKeyInfo; model-signing: hex of that of the PEM text. Covered by no
    /// signature; nothing is decided by it.
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

/// Why bytes are no bundle of this kind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleProblem {
    #[error("{0}")]
    Json(#[from] Problem),
    #[error("version {found:?} is not known, this reader knows {known}")]
    UnknownVersion { found: String, known: &'static str },
    #[error("has neither one signature over SHA-256 nor one envelope")]
    Content,
}

/// The bundle, in canonical JSON.
///
/// # Errors
/// None with values of ours.
pub fn write(hint: String, content: Content) -> Result<Vec<u8>, Error> {
    let (message_signature, dsse_envelope) = match content {
        Content::Message { sha256, signature } => {
            let digest = sha256.map(|sha256| STANDARD.encode(sha256.as_bytes()));
            let message_digest = MessageDigest {
                algorithm: "SHA2_256".into(),
                digest: digest.unwrap_or_default(),
            };
            let message = MessageSignature {
                message_digest,
                signature,
            };
            (Some(message), None)
        }
        Content::Envelope(envelope) => (None, Some(envelope)),
    };
    json::to_vec(&Bundle {
        media_type: MEDIA_TYPE.into(),
        verification_material: Material {
            public_key: PublicKey { hint },
            tlog_entries: None,
            timestamp_verification_data: None,
        },
        message_signature,
        dsse_envelope,
    })
}

/// Reads a bundle of at most `max` bytes that was signed with a key; one with a certificate needs a public authority, and is
/// refused. The digest of a message is the signer's word, so it is not given out.
///
/// # Errors
/// Where it is not that.
pub fn parse(bytes: &[u8], max: usize) -> Result<Content, BundleProblem> {
    let bundle: Bundle = json::from_slice(bytes, max)?;
    if bundle.media_type != MEDIA_TYPE {
        return Err(BundleProblem::UnknownVersion {
            found: json::shown(&bundle.media_type),
            known: MEDIA_TYPE,
        });
    }
    match (bundle.message_signature, bundle.dsse_envelope) {
        (Some(message), None) if message.message_digest.algorithm == "SHA2_256" => {
            Ok(Content::Message {
                sha256: None,
                signature: message.signature,
            })
        }
        (None, Some(envelope)) => Ok(Content::Envelope(envelope)),
        _ => Err(BundleProblem::Content),
    }
}
