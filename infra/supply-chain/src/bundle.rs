//! Sigstore bundles, as cosign reads and writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealed_model::sigstore::{self, BundleProblem, Content};
use sealed_model::{PublisherKey, Sha256Digest};

use crate::{Blob, Envelope, Error, MAX_ENVELOPE, Signature};

/// A signature of a file, or a signed statement; not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bundle {
    Blob(Signature),
    Statement(Envelope),
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
        let content = Content::Message {
            sha256: Some(*blob.sha256()),
            signature: signature.to_base64(),
        };
        write(signer, content)
    }

    /// The bundle of a signed statement.
    ///
    /// # Errors
    /// None with values of ours.
    pub fn of_statement(envelope: &Envelope, signer: &PublisherKey) -> Result<Vec<u8>, Error> {
        write(signer, Content::Envelope(envelope.clone().into_inner()))
    }

    /// Reads a bundle that was signed with a key; one with a certificate needs a public authority, and is refused.
    ///
    /// # Errors
    /// Where it is not that.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let content = sigstore::parse(bytes, MAX_ENVELOPE).map_err(|problem| match problem {
            BundleProblem::UnknownVersion { found, known } => Error::UnknownVersion {
                what: "bundle",
                found,
                known,
            },
            other => Error::malformed("bundle", other.to_string()),
        })?;
        match content {
            Content::Message { signature, .. } => {
                Signature::parse(signature.as_bytes()).map(Self::Blob)
            }
            Content::Envelope(envelope) => Envelope::of_statement(envelope).map(Self::Statement),
        }
    }
}

fn write(signer: &PublisherKey, content: Content) -> Result<Vec<u8>, Error> {
    let id: Sha256Digest = signer
        .id()
        .parse()
        .map_err(|_never| Error::Internal("a key's id is a SHA-256"))?;
    // What cosign writes there.
    sigstore::write(STANDARD.encode(id.as_bytes()), content)
        .map_err(|_own| Error::Internal("a bundle of ours has a JSON form"))
}
