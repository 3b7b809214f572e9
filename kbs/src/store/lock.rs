//! Who uses the database: everybody at once, or, to give it another master key or put it back, one alone.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{StoreError, file_error};

/// Held until dropped, or until the process ends in whatever way. A file of its own: SQLite's locks on the database end
/// when anybody in the process closes it.
pub(super) struct Lock(#[expect(dead_code, reason = "dropped to unlock")] File);

impl Lock {
    pub(super) fn shared(database: &Path) -> Result<Self, StoreError> {
        let file = open(database)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Self(file)),
            Err(error) => Err(failed(
                database,
                error,
                "its master key is being changed or it is being restored; try again after that",
            )),
        }
    }

    pub(super) fn exclusive(database: &Path) -> Result<Self, StoreError> {
        let file = open(database)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(error) => Err(failed(database, error, "in use; stop the broker first")),
        }
    }
}

fn open(database: &Path) -> Result<File, StoreError> {
    let path = beside(database, "lock");
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options
        .open(&path)
        .map_err(|source| file_error(&path, source))
}

fn failed(database: &Path, error: TryLockError, problem: &'static str) -> StoreError {
    match error {
        TryLockError::WouldBlock => StoreError::InUse {
            path: database.to_owned(),
            problem,
        },
        TryLockError::Error(source) => file_error(database, source),
    }
}

/// `kbs.sqlite` → `kbs.sqlite.<suffix>`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}
