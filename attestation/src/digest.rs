//! Fixed-length public values that are written as lower-case hex.

use aws_lc_rs::digest;

/// A value that should have been hex of a fixed length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hex digits")]
pub struct ParseHexError {
    /// How many digits the type takes.
    pub expected: usize,
}

/// A `Copy` newtype over `[u8; $length]`: hex in `Display`, `Debug`, `FromStr` and serde.
macro_rules! hex_newtype {
    ($(#[$doc:meta])* $name:ident, $length:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $length]);

        impl $name {
            /// Length in bytes.
            pub const LENGTH: usize = $length;

            /// The value as it is.
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl From<[u8; $length]> for $name {
            fn from(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::digest::ParseHexError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; $length];
                match hex::decode_to_slice(text, &mut bytes) {
                    Ok(()) => Ok(Self(bytes)),
                    Err(_) => Err($crate::digest::ParseHexError { expected: 2 * $length }),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use hex_newtype;

hex_newtype!(
    /// A SHA-256 digest (FIPS 180-4) of public bytes: a configuration, a manifest, a certificate, a key.
    Sha256Digest,
    32
);

hex_newtype!(
    /// A SHA-384 digest (FIPS 180-4).
    Sha384Digest,
    48
);

hex_newtype!(
    /// Drawn once when an enclave starts, so that two runs of one image are told apart.
    BootId,
    16
);

impl Sha256Digest {
    /// Hashes `data`.
    pub fn of(data: &[u8]) -> Self {
        Self(hash(&digest::SHA256, data))
    }
}

impl Sha384Digest {
    /// Hashes `data`.
    pub fn of(data: &[u8]) -> Self {
        Self(hash(&digest::SHA384, data))
    }
}

impl BootId {
    /// A fresh identifier.
    pub fn random() -> Self {
        Self(random())
    }
}

/// `N` must be the output length of `algorithm`; every caller names both as constants.
pub(crate) fn hash<const N: usize>(algorithm: &'static digest::Algorithm, data: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(digest::digest(algorithm, data).as_ref());
    out
}

#[expect(
    clippy::expect_used,
    reason = "AWS-LC stops the process itself when the system has no entropy"
)]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    aws_lc_rs::rand::fill(&mut out).expect("the system's random number generator works");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_abc_is_the_published_value() {
        let digest = Sha256Digest::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
    }

    #[test]
    fn hex_of_another_length_is_refused() {
        for text in ["", "ba", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
            assert_eq!(
                text.parse::<Sha256Digest>(),
                Err(ParseHexError { expected: 64 })
            );
        }
    }

    #[test]
    fn serde_is_a_hex_string() {
        let id = BootId::from_bytes([0xab; 16]);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{}\"", "ab".repeat(16)));
        assert_eq!(serde_json::from_str::<BootId>(&json).unwrap(), id);
    }
}
