//! One SQLite file: resources and policy, encrypted under the master key, and the release log.
//!
//! Whoever can read the file learns paths and the log, no resource. Whoever can write it can delete and can put back an
//! older row of the same path; a value moved to another path, or made without the master key, does not open.

mod entry;
mod log;
mod reference;
mod throttle;
mod vault;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use zeroize::Zeroizing;

pub use entry::{Broken, Entry, Outcome, Record};
pub(crate) use entry::{Facts, NewEntry};
use throttle::Throttle;
pub(crate) use vault::MasterKey;
use vault::{Kind, Vault};

/// A second process (`kbs resource put`, `kbs policy set`) writes for milliseconds.
const BUSY: Duration = Duration::from_secs(5);
/// Changes with the tables; another version is refused, not guessed at.
const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE secret (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        sealed BLOB NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT;
    CREATE TABLE release_log (
        seq INTEGER PRIMARY KEY,
        time_ms INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        error_type TEXT,
        path TEXT NOT NULL,
        pcr0 TEXT, pcr1 TEXT, pcr2 TEXT,
        config_digest TEXT,
        tee_key TEXT,
        serial TEXT,
        reason TEXT,
        prev TEXT NOT NULL,
        hash TEXT NOT NULL,
        mac TEXT NOT NULL
    ) STRICT;
    CREATE TRIGGER release_log_keeps_rows BEFORE DELETE ON release_log
        BEGIN SELECT RAISE(ABORT, 'the release log only grows'); END;
    CREATE TRIGGER release_log_keeps_values BEFORE UPDATE ON release_log
        BEGIN SELECT RAISE(ABORT, 'the release log only grows'); END;
";
/// What a right master key opens.
const CHECK_TEXT: &[u8] = b"cloister kbs";
const RESOURCE_POLICY: &str = "resource-policy";

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file cannot be made or opened.
    #[error("database {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Made by another version of this program.
    #[error("database has schema {actual}, this program knows {SCHEMA_VERSION}")]
    Schema {
        /// As found.
        actual: i64,
    },
    /// The database was made under another master key.
    #[error("the master key does not open this database; name the key it was made with")]
    MasterKey,
    /// A row does not open under its own name: it was moved or changed.
    #[error("a stored value was changed outside this program")]
    Tampered,
    /// All reference values together would take more than a megabyte.
    #[error("all reference values together are over a megabyte; delete some")]
    TooLarge,
    /// Encryption failed in the library.
    #[error("the value could not be encrypted")]
    Seal,
    /// The release log is not one unbroken chain.
    #[error(transparent)]
    Log(#[from] Broken),
}

/// The open store. Calls block: on the disk, and on each other.
pub(crate) struct Store {
    connection: Mutex<Connection>,
    vault: Vault,
    throttle: Throttle,
}

impl Store {
    /// Opens the file, or makes it, for its owner alone.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub(crate) fn open(path: &Path, key: &MasterKey) -> Result<Self, StoreError> {
        // SQLite would make the file readable to others; its journals take this file's mode.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| StoreError::Open {
                path: path.to_owned(),
                source,
            })?;
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A release that is in no log must not have happened: each commit reaches the disk.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        migrate(&mut connection)?;
        let store = Self {
            connection: Mutex::new(connection),
            vault: Vault::new(key).ok_or(StoreError::Seal)?,
            throttle: Throttle::default(),
        };
        store.check_master_key()?;
        Ok(store)
    }

    /// The resource at `path`, if there is one.
    pub(crate) fn resource(&self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.read(Kind::Resource, path)
    }

    pub(crate) fn put_resource(&self, path: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write(Kind::Resource, path, value)
    }

    /// Whether there was one.
    pub(crate) fn delete_resource(&self, path: &str) -> Result<bool, StoreError> {
        let deleted = self.connection().execute(
            "DELETE FROM secret WHERE kind = ?1 AND name = ?2",
            (Kind::Resource.as_str(), path),
        )?;
        Ok(deleted > 0)
    }

    /// The stored resource policy. Encrypted as the resources are: it decides about them.
    pub(crate) fn policy(&self) -> Result<Option<String>, StoreError> {
        let Some(text) = self.read(Kind::Policy, RESOURCE_POLICY)? else {
            return Ok(None);
        };
        match String::from_utf8(text.to_vec()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(StoreError::Tampered),
        }
    }

    pub(crate) fn put_policy(&self, text: &str) -> Result<(), StoreError> {
        self.write(Kind::Policy, RESOURCE_POLICY, text.as_bytes())
    }

    /// Whether SQLite still answers.
    pub(crate) fn ping(&self) -> Result<(), StoreError> {
        Ok(self.connection().query_row("SELECT 1", (), |_| Ok(()))?)
    }

    fn read(&self, kind: Kind, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let sealed: Option<Vec<u8>> = self
            .connection()
            .query_row(
                "SELECT sealed FROM secret WHERE kind = ?1 AND name = ?2",
                (kind.as_str(), name),
                |row| row.get(0),
            )
            .optional()?;
        sealed
            .map(|sealed| {
                self.vault
                    .open(kind, name, sealed)
                    .ok_or(StoreError::Tampered)
            })
            .transpose()
    }

    fn write(&self, kind: Kind, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let sealed = self.vault.seal(kind, name, value).ok_or(StoreError::Seal)?;
        self.connection().execute(
            "INSERT INTO secret (kind, name, sealed) VALUES (?1, ?2, ?3)
             ON CONFLICT (kind, name) DO UPDATE SET sealed = excluded.sealed",
            (kind.as_str(), name, sealed),
        )?;
        Ok(())
    }

    fn check_master_key(&self) -> Result<(), StoreError> {
        match self.read(Kind::Check, "") {
            Ok(Some(text)) if *text == CHECK_TEXT => Ok(()),
            Ok(Some(_)) | Err(StoreError::Tampered) => Err(StoreError::MasterKey),
            Ok(None) => self.write(Kind::Check, "", CHECK_TEXT),
            Err(error) => Err(error),
        }
    }

    /// A holder that panicked left no transaction open: they roll back when dropped.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let actual: i64 = transaction.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    match actual {
        0 => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            Ok(transaction.commit()?)
        }
        SCHEMA_VERSION => Ok(()),
        actual => Err(StoreError::Schema { actual }),
    }
}

#[cfg(test)]
mod tests;
