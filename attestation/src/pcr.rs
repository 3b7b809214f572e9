//! Platform configuration registers of the Nitro Secure Module.

use std::collections::BTreeMap;

use aws_lc_rs::digest;

use crate::digest::{hash, hex_newtype};

hex_newtype!(
    /// The value of one platform configuration register (SHA-384 bank).
    Pcr,
    48
);

/// Register index (0 to 31) to value.
pub type Pcrs = BTreeMap<u8, Pcr>;

impl Pcr {
    /// What a register holds before anything was extended into it, and what PCR0 to PCR2 hold in debug mode.
    pub const ZERO: Self = Self([0; 48]);

    /// True for [`Pcr::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// The register after `data` was extended into it: SHA-384(register || data).
    pub fn extend(&self, data: &[u8]) -> Self {
        Self(hash(&digest::SHA384, &[self.as_bytes(), data].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extend_hashes_the_register_and_then_the_data() {
        // `head -c 48 /dev/zero | cat - <(printf i-0123) | sha384sum`
        let expected = crate::Sha384Digest::of(&[&[0; 48][..], b"i-0123"].concat());
        assert_eq!(Pcr::ZERO.extend(b"i-0123").as_bytes(), expected.as_bytes());
        assert!(!Pcr::ZERO.extend(b"").is_zero());
    }
}
