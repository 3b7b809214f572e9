//! Key files: their form, and that nobody else can read the secret ones.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::anyhow;
use sealed_model::{DataKey, PublisherKey, SigningKey};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// A key in any form takes a few hundred bytes.
const MAX_KEY_FILE: u64 = 4096;

/// A data key: 64 hex digits.
pub(crate) fn data_key(path: &Path) -> Result<DataKey, Failure> {
    let text = secret(path)?;
    let mut bytes = Zeroizing::new([0; DataKey::LEN]);
    hex::decode_to_slice(text.trim(), bytes.as_mut_slice())
        .ok()
        .and_then(|()| DataKey::from_bytes(bytes.as_slice()).ok())
        .ok_or_else(|| {
            wrong(
                path,
                "is not a data key: 64 hex digits, as cloister keygen writes it",
            )
        })
}

/// A P-256 private key in PKCS#8 PEM.
pub(crate) fn signing_key(path: &Path) -> Result<SigningKey, Failure> {
    let text = secret(path)?;
    SigningKey::from_pem(&text).map_err(|error| wrong(path, &error.to_string()))
}

/// A P-256 public key in PEM.
pub(crate) fn publisher_key(path: &Path) -> Result<PublisherKey, Failure> {
    let file = File::open(path).map_err(|error| Failure::io("read", path, error))?;
    let text = text(file).map_err(|error| Failure::io("read", path, error))?;
    PublisherKey::from_pem(&text).map_err(|error| wrong(path, &error.to_string()))
}

pub(crate) fn hex_of(key: &DataKey) -> Zeroizing<String> {
    Zeroizing::new(hex::encode(key.expose()))
}

/// Writes a new file; one that exists stays as it is.
pub(crate) fn create(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => wrong(
            path,
            "exists already, and a key is never overwritten: choose another --out",
        ),
        _ => Failure::io("write", path, error),
    })
}

pub(crate) fn create_dir(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|error| Failure::io("create", path, error))
}

pub(crate) fn secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let failed = |error| Failure::io("read", path, error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    // A pipe or /dev/stdin has no owner's mode to speak of.
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        return Err(wrong(
            path,
            &format!(
                "holds a secret that others can read: chmod 600 {}",
                path.display()
            ),
        ));
    }
    text(file).map_err(failed)
}

fn text(file: File) -> io::Result<Zeroizing<String>> {
    // Sized beforehand: growing would leave copies of a key in freed memory.
    let mut text = Zeroizing::new(String::with_capacity(8192));
    file.take(MAX_KEY_FILE).read_to_string(&mut text)?;
    Ok(text)
}

fn wrong(path: &Path, problem: &str) -> Failure {
    Failure::usage(anyhow!("{}: {problem}", path.display()))
}
