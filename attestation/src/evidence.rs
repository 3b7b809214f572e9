//! Unverified evidence, and the challenge it answers.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::digest::random;
use crate::document::UnverifiedDocument;
use crate::error::StructureError;

/// A raw attestation document as it came from an attester or from the wire. Nothing in it has been checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence(Vec<u8>);

impl Evidence {
    /// Larger documents are refused before anything reads them. Real ones are 4.4 to 4.8 KB; the Nitro Secure
    /// Module's response buffer holds 12 KiB.
    pub const MAX_LENGTH: usize = 16 * 1024;

    /// Wraps a document.
    ///
    /// # Errors
    /// [`StructureError::Length`] when it is empty or longer than [`Evidence::MAX_LENGTH`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, StructureError> {
        if bytes.is_empty() || bytes.len() > Self::MAX_LENGTH {
            return Err(StructureError::Length { field: "document" });
        }
        Ok(Self(bytes))
    }

    /// The document.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// When the document says it was made. Nobody has vouched for it: for looking at a stored document at its own time.
    ///
    /// # Errors
    /// [`StructureError`] when it is no attestation document.
    pub fn claimed_time(&self) -> Result<SystemTime, StructureError> {
        Ok(UnverifiedDocument::parse(&self.0)?.timestamp)
    }

    /// The document.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl std::fmt::Debug for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Evidence({} bytes, unverified)", self.0.len())
    }
}

/// A verifier's 256-bit challenge. Public, used once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Nonce([u8; 32]);

/// Text or bytes that are not a [`Nonce`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a nonce of 32 bytes (43 characters of base64url without padding)")]
pub struct ParseNonceError;

impl Nonce {
    /// A fresh challenge.
    pub fn random() -> Self {
        Self(random())
    }

    /// The bytes that the attester puts into the document.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// RFC 4648 section 5, no padding.
    pub fn to_base64url(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// RFC 4648 section 5, no padding.
    ///
    /// # Errors
    /// [`ParseNonceError`] for anything but 32 bytes so encoded.
    pub fn from_base64url(text: &str) -> Result<Self, ParseNonceError> {
        let mut bytes = [0; 33]; // one more than fits, so that a longer text is seen as longer
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(length) => bytes.get(..length).ok_or(ParseNonceError)?.try_into(),
            Err(_) => Err(ParseNonceError),
        }
    }
}

impl TryFrom<&[u8]> for Nonce {
    type Error = ParseNonceError;

    fn try_from(bytes: &[u8]) -> Result<Self, ParseNonceError> {
        match bytes.try_into() {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(ParseNonceError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_bounded() {
        let length = Err(StructureError::Length { field: "document" });
        assert_eq!(Evidence::from_bytes(vec![]), length);
        assert_eq!(
            Evidence::from_bytes(vec![0; Evidence::MAX_LENGTH + 1]),
            length
        );
        assert!(Evidence::from_bytes(vec![0; Evidence::MAX_LENGTH]).is_ok());
    }

    #[test]
    fn nonce_survives_base64url() {
        let nonce = Nonce::random();
        assert_eq!(Nonce::from_base64url(&nonce.to_base64url()), Ok(nonce));
        assert_ne!(nonce, Nonce::random());
    }

    #[test]
    fn nonce_of_another_length_or_alphabet_is_refused() {
        let long = URL_SAFE_NO_PAD.encode([0xff; 33]);
        let huge = URL_SAFE_NO_PAD.encode([0xff; 64]);
        for text in [
            "",
            "AA",
            &long,
            &huge,
            &format!("{}=", "A".repeat(43)),
            &"+".repeat(43),
        ] {
            assert_eq!(Nonce::from_base64url(text), Err(ParseNonceError), "{text}");
        }
        assert!(Nonce::try_from(&[0; 31][..]).is_err());
    }
}
