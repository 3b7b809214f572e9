//! Streaming AEAD, wire-compatible with Tink's `AES256_GCM_HKDF_1MB` without an output prefix.
//!
//! ```text
//! file     = header ‖ segment 0 ‖ segment 1 ‖ …          header = 0x28 ‖ salt (32) ‖ nonce prefix (7)
//! file key = HKDF-SHA256(ikm = data key, salt, info = associated data), 32 bytes
//! segment  = AES-256-GCM(file key, nonce = prefix ‖ u32-be(index) ‖ (1 if last else 0), no AAD)
//! ```
//!
//! The file key binds every segment to the associated data (model, epoch, path) and to this encryption of it (salt); the
//! nonce binds it to its place and to the end. So a segment can be read alone, and cannot be moved, swapped or cut off.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hkdf, rand};
use zeroize::Zeroizing;

use crate::layout::{HEADER, TAG};
use crate::{DataKey, Error};

const SALT: usize = 32;
const PREFIX: usize = 7;

/// What precedes the first segment. Not authenticated by itself: with another salt or prefix no tag fits.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    salt: [u8; SALT],
    prefix: [u8; PREFIX],
}

impl Header {
    pub(crate) fn random() -> Result<Self, Error> {
        let mut own = Self {
            salt: [0; SALT],
            prefix: [0; PREFIX],
        };
        rand::fill(&mut own.salt)
            .and_then(|()| rand::fill(&mut own.prefix))
            .map_err(|Unspecified| Error::Internal("the system's randomness is not available"))?;
        Ok(own)
    }

    /// None where the first byte is not the header's length.
    pub(crate) fn from_bytes(bytes: &[u8; HEADER]) -> Option<Self> {
        let (&length, rest) = bytes.split_first()?;
        let (&salt, rest) = rest.split_first_chunk()?;
        let (&prefix, _) = rest.split_first_chunk()?;
        (usize::from(length) == HEADER).then_some(Self { salt, prefix })
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.push(0x28);
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.prefix);
        bytes
    }
}

/// Seals and opens the segments of one file, in any order and from any thread.
pub(crate) struct FileKey {
    aead: LessSafeKey,
    prefix: [u8; PREFIX],
}

/// The tag did not fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unverified;

impl FileKey {
    pub(crate) fn derive(
        key: &DataKey,
        header: &Header,
        associated_data: &[u8],
    ) -> Result<Self, Error> {
        let mut derived = Zeroizing::new([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, &header.salt)
            .extract(key.expose())
            .expand(&[associated_data], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(derived.as_mut_slice()))
            .map_err(|Unspecified| Error::Internal("HKDF of 32 bytes"))?;
        let unbound = UnboundKey::new(&AES_256_GCM, derived.as_slice())
            .map_err(|Unspecified| Error::Internal("AES-256 takes 32 bytes"))?;
        Ok(Self {
            aead: LessSafeKey::new(unbound),
            prefix: header.prefix,
        })
    }

    /// Encrypts in place and returns the tag.
    pub(crate) fn seal(
        &self,
        segment: u32,
        last: bool,
        in_out: &mut [u8],
    ) -> Result<[u8; TAG], Error> {
        let tag = self
            .aead
            .seal_in_place_separate_tag(self.nonce(segment, last), Aad::empty(), in_out)
            .map_err(|Unspecified| Error::Internal("AES-GCM of at most 1 MiB"))?;
        tag.as_ref()
            .try_into()
            .ok()
            .ok_or(Error::Internal("AES-GCM has 16-byte tags"))
    }

    /// Decrypts `sealed` (ciphertext ‖ tag) into `plaintext`, which is as long as the ciphertext. On failure `plaintext` is zeros.
    pub(crate) fn open(
        &self,
        segment: u32,
        last: bool,
        sealed: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), Unverified> {
        let (ciphertext, tag) = sealed
            .split_last_chunk::<TAG>()
            .filter(|(ciphertext, _)| ciphertext.len() == plaintext.len())
            .ok_or(Unverified)?;
        let nonce = self.nonce(segment, last);
        self.aead
            .open_separate_gather(nonce, Aad::empty(), ciphertext, tag, plaintext)
            .map_err(|Unspecified| {
                plaintext.fill(0);
                Unverified
            })
    }

    fn nonce(&self, segment: u32, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        let parts = self
            .prefix
            .into_iter()
            .chain(segment.to_be_bytes())
            .chain([u8::from(last)]);
        for (to, from) in nonce.iter_mut().zip(parts) {
            *to = from;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

#[cfg(test)]
mod tests;
