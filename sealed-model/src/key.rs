use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{constant_time, hkdf, rand};
use zeroize::Zeroizing;

use crate::{Error, Sha256Digest};

/// The secret that opens one version of one model: 32 bytes from a broker. Wiped when dropped.
///
/// It stays in one place on the heap: a value that moves leaves its bytes behind on each stack that it was on.
pub struct DataKey(Box<Zeroizing<[u8; 32]>>);

impl DataKey {
    pub const LEN: usize = 32;
    const CHECK_LABEL: &[u8] = b"cloister sealed model key check v1\0";

    pub fn generate() -> Result<Self, Error> {
        let mut bytes = Box::new(Zeroizing::new([0; Self::LEN]));
        rand::fill(bytes.as_mut_slice())
            .map_err(|Unspecified| Error::Internal("the system's randomness is not available"))?;
        Ok(Self(bytes))
    }

    /// # Errors
    /// Where `bytes` are not 32.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut own = Box::new(Zeroizing::new([0; Self::LEN]));
        if bytes.len() != own.len() {
            return Err(Error::Key {
                what: "data key",
                problem: "is not 32 bytes long",
            });
        }
        own.copy_from_slice(bytes);
        Ok(Self(own))
    }

    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// A public value that only this key gives under this id: the manifest carries it, so a wrong key is told from an altered
    /// file, and one ciphertext cannot be made to open under two keys (AES-GCM alone does not prevent that).
    pub(crate) fn check_value(&self, key_id: &str) -> Result<Sha256Digest, Error> {
        let mut value = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(self.0.as_slice())
            .expand(&[Self::CHECK_LABEL, key_id.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut value))
            .map_err(|Unspecified| Error::Internal("HKDF of 32 bytes"))?;
        Ok(value.into())
    }

    pub(crate) fn matches(&self, key_id: &str, check: &Sha256Digest) -> Result<bool, Error> {
        let own = self.check_value(key_id)?;
        Ok(constant_time::verify_slices_are_equal(own.as_bytes(), check.as_bytes()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_value_belongs_to_one_key_and_one_id() {
        let key = DataKey::from_bytes(&[7; 32]).unwrap();
        let check = key.check_value("models/a/epoch-1").unwrap();
        assert!(key.matches("models/a/epoch-1", &check).unwrap());
        assert!(!key.matches("models/a/epoch-2", &check).unwrap());
        let other = DataKey::generate().unwrap();
        assert!(!other.matches("models/a/epoch-1", &check).unwrap());
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        for len in [0, 16, 31, 33, 64] {
            assert!(DataKey::from_bytes(&vec![1; len]).is_err(), "{len}");
        }
    }
}
