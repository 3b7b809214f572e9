//! SHA-2 values, written in lower-case hex.

use aws_lc_rs::digest::{self, Context, SHA256, SHA384};

const LENGTH: usize = 48;

/// The digest of some bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha384Digest([u8; LENGTH]);

/// The SHA-256 of a file in a ramdisk: what `sha256sum` prints for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256Digest([u8; 32]);

/// The value of a platform configuration register.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pcr([u8; LENGTH]);

impl Sha384Digest {
    pub(crate) fn finish(context: Context) -> Self {
        Self(bytes(&context.finish()))
    }

    /// Hashes `data`.
    pub fn of(data: &[u8]) -> Self {
        Self(bytes(&digest::digest(&SHA384, data)))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl Sha256Digest {
    pub(crate) fn finish(context: Context) -> Self {
        Self(bytes(&context.finish()))
    }

    /// Hashes `data`.
    pub fn of(data: &[u8]) -> Self {
        Self(bytes(&digest::digest(&SHA256, data)))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Pcr {
    /// What a register holds after `data` was extended into it as the first thing: SHA-384(48 zero bytes || data).
    pub fn first(data: &[u8]) -> Self {
        let mut context = Context::new(&SHA384);
        context.update(&[0; LENGTH]);
        context.update(data);
        Self(bytes(&context.finish()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

/// `N` is always the length of `digest`.
fn bytes<const N: usize>(digest: &digest::Digest) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(digest.as_ref());
    out
}

macro_rules! hex_text {
    ($name:ident) => {
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
    };
}
hex_text!(Sha384Digest);
hex_text!(Sha256Digest);
hex_text!(Pcr);
