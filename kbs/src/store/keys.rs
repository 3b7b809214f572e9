//! The two keys of the release log. They are stored as resources are, under the master key, and stay when that changes:
//! what was authenticated and signed before a rotation verifies after it.

use aws_lc_rs::{hmac, rand};
use rusqlite::Connection;
use zeroize::Zeroizing;

use super::note::LogSigner;
use super::vault::{Kind, Vault};
use super::{StoreError, read, write};

pub(super) struct LogKeys {
    pub(super) mac: hmac::Key,
    pub(super) signer: LogSigner,
}

impl LogKeys {
    pub(super) fn make(
        connection: &Connection,
        vault: &Vault,
        mac: Zeroizing<[u8; 32]>,
    ) -> Result<(), StoreError> {
        let signing = LogSigner::generate().ok_or(StoreError::Seal)?;
        for (kind, value) in [
            (Kind::LogMac, mac.as_slice()),
            (Kind::LogSigning, signing.as_slice()),
        ] {
            let kind = kind.as_str();
            let sealed = vault.seal(kind, "", value).ok_or(StoreError::Seal)?;
            write(connection, kind, "", &sealed)?;
        }
        Ok(())
    }

    pub(super) fn load(connection: &Connection, vault: &Vault) -> Result<Self, StoreError> {
        let read = |kind| read(connection, vault, kind, "")?.ok_or(StoreError::Tampered);
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &read(Kind::LogMac)?);
        let signer = LogSigner::from_pkcs8(&read(Kind::LogSigning)?).ok_or(StoreError::Tampered)?;
        Ok(Self { mac, signer })
    }
}

pub(super) fn fresh_mac() -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let mut mac = Zeroizing::new([0; 32]);
    rand::fill(mac.as_mut_slice()).map_err(|_unspecified| StoreError::Seal)?;
    Ok(mac)
}
