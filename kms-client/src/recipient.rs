//! The key that KMS encrypts its answer to: made for one request, known to nobody else, gone with the answer.

use aws_lc_rs::cipher::{
    AES_256, AES_256_KEY_LEN, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use zeroize::Zeroizing;

use crate::envelope::{Envelope, NoEnvelope};

/// An RSA-2048 key for `RSAES_OAEP_SHA_256`, the only mechanism that KMS has for enclaves.
pub struct RecipientKey {
    private: OaepPrivateDecryptingKey,
    spki_der: Vec<u8>,
}

/// Why an envelope was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another shape; found before any key is used.
    #[error(transparent)]
    Shape(#[from] NoEnvelope),
    /// For another public key than ours; found before any key is used.
    #[error("made for another recipient")]
    Recipient,
    /// OAEP or padding was wrong: one error for both, so that nothing can be learnt from which.
    #[error("does not open under our key")]
    Decrypt,
}

impl RecipientKey {
    /// A fresh key. Takes a noticeable part of a second.
    ///
    /// # Errors
    /// The library could not make one.
    pub fn generate() -> Result<Self, Unspecified> {
        Self::new(PrivateDecryptingKey::generate(KeySize::Rsa2048)?)
    }

    /// From a PKCS#8 document, to open what other tools made.
    ///
    /// # Errors
    /// Not an RSA-2048 key in PKCS#8.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Unspecified> {
        match PrivateDecryptingKey::from_pkcs8(der) {
            Ok(key) if key.key_size_bytes() == crate::envelope::RSA_BYTES => Self::new(key),
            _ => Err(Unspecified),
        }
    }

    fn new(private: PrivateDecryptingKey) -> Result<Self, Unspecified> {
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(&private.public_key())?;
        Ok(Self {
            spki_der: spki.as_ref().to_vec(),
            private: OaepPrivateDecryptingKey::new(private)?,
        })
    }

    /// DER SubjectPublicKeyInfo: what the document attests.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// Opens an envelope that was made for this key.
    ///
    /// Where OAEP fails, a random key takes the place of the content key and the padding fails next: both ways do the same
    /// work and end in the same error. The library's check of the padding itself is not in constant time; a key serves one
    /// answer, so there is never a second question to learn from.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, ber: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let envelope = Envelope::parse(ber)?;
        if envelope.recipient != digest(&SHA256, &self.spki_der).as_ref() {
            return Err(OpenError::Recipient);
        }
        match self.content(envelope) {
            Ok(content) => Ok(content),
            Err(Unspecified) => Err(OpenError::Decrypt),
        }
    }

    fn content(&self, envelope: Envelope) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let mut key = Zeroizing::new([0; AES_256_KEY_LEN]);
        rand::fill(key.as_mut_slice())?;
        let mut out = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let opened = self.private.decrypt(
            &OAEP_SHA256_MGF1SHA256,
            &envelope.encrypted_key,
            &mut out,
            None,
        );
        let rightly = match opened {
            Ok(content_key) if content_key.len() == key.len() => {
                key.copy_from_slice(content_key);
                true
            }
            _ => false,
        };
        let mut content = Zeroizing::new(envelope.content);
        let key = UnboundCipherKey::new(&AES_256, key.as_slice())?;
        let context = DecryptionContext::Iv128(FixedLength::from(envelope.iv));
        let length = PaddedBlockDecryptingKey::cbc_pkcs7(key)?
            .decrypt(content.as_mut_slice(), context)?
            .len();
        // Garbage is padded rightly once in 256 times.
        if !rightly {
            return Err(Unspecified);
        }
        content.truncate(length);
        Ok(content)
    }
}
