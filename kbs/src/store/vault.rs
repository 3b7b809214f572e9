//! The master key and what is encrypted under it: AES-256-GCM with a random nonce, bound to the row it belongs to.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

/// First octet of a sealed value.
const VERSION: u8 = 1;
const STORE_LABEL: &[u8] = b"cloister kbs: store";
const LOG_LABEL: &[u8] = b"cloister kbs: release log";

/// 256 bits that open everything in the store.
pub(crate) struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// A fresh key.
    #[must_use]
    pub(crate) fn generate() -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        rand::fill(key.as_mut_slice()).ok()?;
        Some(Self(key))
    }

    /// Reads 64 hex digits from a file that nobody but its owner may read.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err("is not a file".to_owned());
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(format!(
                "mode is {:o}, others can read it; set it to 600",
                metadata.mode() & 0o777
            ));
        }
        // Whoever owns it can read it at any time, whatever its mode says now. Root can anyway.
        let (owner, we) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != we && owner != 0 {
            return Err(format!(
                "belongs to user {owner}, and this is user {we}; make it this user's"
            ));
        }
        let mut text = Zeroizing::new(String::with_capacity(128));
        file.take(127)
            .read_to_string(&mut text)
            .map_err(|error| error.to_string())?;
        let mut key = Zeroizing::new([0; 32]);
        match hex::decode_to_slice(text.trim(), key.as_mut_slice()) {
            Ok(()) => Ok(Self(key)),
            Err(_) => Err("expected 64 hex digits".to_owned()),
        }
    }

    /// As [`MasterKey::load`] reads it.
    #[must_use]
    pub(crate) fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_slice()))
    }

    /// The log's key in databases of schema 1, which had no other.
    pub(super) fn log_mac(&self) -> Option<Zeroizing<[u8; 32]>> {
        self.derive(LOG_LABEL)
    }

    fn derive(&self, label: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                32
            }
        }
        let mut out = Zeroizing::new([0; 32]);
        let key = Salt::new(HKDF_SHA256, &[]).extract(self.0.as_slice());
        key.expand(&[label], Length)
            .ok()?
            .fill(out.as_mut_slice())
            .ok()?;
        Some(out)
    }
}

/// What a value is: part of what it is bound to.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Check,
    Resource,
    Policy,
    AttestationPolicy,
    References,
    /// HMAC key of the release log.
    LogMac,
    /// PKCS#8 key that signs its checkpoints.
    LogSigning,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Resource => "resource",
            Self::Policy => "policy",
            Self::AttestationPolicy => "attestation-policy",
            Self::References => "reference-values",
            Self::LogMac => "log-mac",
            Self::LogSigning => "log-signing",
        }
    }
}

pub(super) struct Vault {
    key: LessSafeKey,
}

impl Vault {
    pub(super) fn new(key: &MasterKey) -> Option<Self> {
        let store = key.derive(STORE_LABEL)?;
        Some(Self {
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, store.as_slice()).ok()?),
        })
    }

    /// `version || nonce || ciphertext || tag`, bound to its row. Random nonces are good for 2^32 values under one key.
    pub(super) fn seal(&self, kind: &str, name: &str, value: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = Zeroizing::new(value.to_vec());
        let aad = Aad::from(row(kind, name));
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .ok()?;
        Some([&[VERSION], &nonce[..], &sealed, tag.as_ref()].concat())
    }

    pub(super) fn open(
        &self,
        kind: &str,
        name: &str,
        sealed: Vec<u8>,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let mut sealed = Zeroizing::new(sealed);
        let (&mut VERSION, rest) = sealed.split_first_mut()? else {
            return None;
        };
        let (nonce, value) = rest.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let value = self
            .key
            .open_in_place(nonce, Aad::from(row(kind, name)), value)
            .ok()?;
        Some(Zeroizing::new(value.to_vec()))
    }
}

/// The kind holds no zero octet, so no two rows give the same octets.
fn row(kind: &str, name: &str) -> Vec<u8> {
    [kind.as_bytes(), b"\0", name.as_bytes()].concat()
}
