//! One SQLite file: resources and policy, encrypted under the master key, and the release log.
//!
//! Whoever can read the file learns paths and the log, no resource. Whoever can write it can delete and can put back an
//! older row of the same path; a value moved to another path, or made without the master key, does not open.
//!
//! One thread writes (`writer`): a change and its entry in one transaction, many of them in one wait for the disk.

mod audit;
mod backup;
mod chain;
mod change;
mod entry;
mod error;
mod keys;
mod lock;
mod note;
mod reference;
mod rotate;
mod schema;
mod throttle;
mod tree;
mod vault;
mod writer;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _};
use zeroize::Zeroizing;

pub use audit::Audited;
pub(crate) use audit::audit_export;
pub(crate) use backup::{Restored, backup, restore};
pub(crate) use change::{Approval, Change, resource_digest};
pub use entry::{Broken, Entry, Outcome, Record};
pub(crate) use entry::{Facts, NewEntry};
pub use error::StoreError;
use error::{damaged, file_error};
use keys::LogKeys;
use lock::Lock;
pub use note::{LogPublicKey, NoteError};
pub(crate) use reference::references_digest;
pub(crate) use rotate::{COMMAND_LINE, finish_rotation, rotate};
use throttle::Throttle;
pub(crate) use vault::MasterKey;
use vault::{Kind, Vault};
use writer::{Job, Writer};

/// A second process (`kbs resource put`, `kbs policy set`) writes for milliseconds.
const BUSY: Duration = Duration::from_secs(5);
/// What a right master key opens.
const CHECK_TEXT: &[u8] = b"cloister kbs";
const RESOURCE_POLICY: &str = "resource-policy";

/// Where and how often checkpoints are written beside the database.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    /// Holds the newest; replaced as a whole.
    pub(crate) file: PathBuf,
    /// Entries after which there is one.
    pub(crate) entries: u64,
    /// How long an entry may wait for one.
    pub(crate) age: Duration,
}

impl Checkpoints {
    /// `<database>.checkpoint`, after 1000 entries or a minute.
    pub(crate) fn beside(database: &Path) -> Self {
        Self {
            file: lock::beside(database, "checkpoint"),
            entries: 1000,
            age: Duration::from_secs(60),
        }
    }
}

/// The open store. Calls block: on the disk, and on each other.
pub(crate) struct Store {
    /// Reads only; SQLite's own log lets it read while the writer waits for the disk.
    reader: Mutex<Connection>,
    vault: Arc<Vault>,
    keys: Arc<LogKeys>,
    throttle: Throttle,
    writer: Option<Writer>,
    _shared: Option<Lock>,
}

impl Store {
    /// Opens the file, or makes it, for its owner alone, and holds the log against its newest checkpoints.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub(crate) fn open(
        path: &Path,
        key: &MasterKey,
        checkpoints: Checkpoints,
    ) -> Result<Self, StoreError> {
        let shared = Lock::shared(path)?;
        create(path)?;
        let mut store = Self::over(path, key, Some(shared))?;
        let connection = connect(path)?;
        let keys = Arc::clone(&store.keys);
        store.writer = Some(Writer::start(connection, keys, checkpoints)?);
        Ok(store)
    }

    /// As [`Store::open`], for reading: nothing is signed and nothing can be written.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub(crate) fn inspect(path: &Path, key: &MasterKey) -> Result<Self, StoreError> {
        std::fs::metadata(path).map_err(|source| file_error(path, source))?;
        let shared = Lock::shared(path)?;
        Self::over(path, key, Some(shared))
    }

    /// Under a lock that the caller has, or over a file nobody knows yet.
    fn over(path: &Path, key: &MasterKey, lock: Option<Lock>) -> Result<Self, StoreError> {
        let vault = Arc::new(Vault::new(key).ok_or(StoreError::Seal)?);
        let mut connection = connect(path).map_err(|error| damaged(path, error))?;
        schema::migrate(&mut connection, key, &vault).map_err(|error| match error {
            StoreError::Sqlite(error) => damaged(path, StoreError::Sqlite(error)),
            error => error,
        })?;
        let keys = Arc::new(LogKeys::load(&connection, &vault)?);
        Ok(Self {
            reader: Mutex::new(connection),
            vault,
            keys,
            throttle: Throttle::default(),
            writer: None,
            _shared: lock,
        })
    }

    /// Whether every page of the file is what SQLite wrote.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the first problem.
    pub(crate) fn check_integrity(&self, path: &Path) -> Result<(), StoreError> {
        let check = "PRAGMA integrity_check(1)";
        let found: Result<String, _> = self.reader().query_row(check, (), |row| row.get(0));
        let problem = match found
            .map_err(StoreError::Sqlite)
            .map_err(|e| damaged(path, e))?
        {
            ok if ok == "ok" => return Ok(()),
            problem => problem,
        };
        Err(StoreError::Damaged {
            path: path.to_owned(),
            problem: problem.replace('\n', " "),
        })
    }

    /// The resource at `path`, if there is one.
    pub(crate) fn resource(&self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        read(&self.reader(), &self.vault, Kind::Resource, path)
    }

    /// The stored resource policy. Encrypted as the resources are: it decides about them.
    pub(crate) fn policy(&self) -> Result<Option<String>, StoreError> {
        let text = read(&self.reader(), &self.vault, Kind::Policy, RESOURCE_POLICY)?;
        let Some(text) = text else {
            return Ok(None);
        };
        match String::from_utf8(text.to_vec()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(StoreError::Tampered),
        }
    }

    /// Appends `entry`, makes `change`, and waits for the disk: both happen, or neither. Says whether the entry is
    /// listed, or only counted.
    pub(crate) fn commit(
        &self,
        entry: &NewEntry<'_>,
        change: Option<Change>,
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        let Some(suppressed) = self.throttle.admit(entry) else {
            return Ok(false);
        };
        let time_ms = milliseconds(now);
        let mut entries = Vec::with_capacity(2);
        if suppressed > 0 {
            let reason =
                format!("{suppressed} decisions that let nothing out were counted, not listed");
            let counted = NewEntry {
                outcome: Outcome::Suppressed,
                error_type: None,
                path: "",
                facts: &Facts::default(),
                reason: Some(&reason),
            };
            entries.push(Entry::draft(time_ms, &counted));
        }
        entries.push(Entry::draft(time_ms, entry));
        let change = match change {
            Some(change) => Some(change.seal(&self.vault, now)?),
            None => None,
        };
        let writer = self.writer.as_ref();
        let writer = writer.ok_or_else(|| StoreError::NotWritten("opened to read".to_owned()))?;
        writer.commit(Job { entries, change })?;
        Ok(true)
    }

    /// Signs what is in the log by now.
    pub(crate) fn checkpoint(&self) -> Result<(), StoreError> {
        self.writer.as_ref().map_or(Ok(()), Writer::checkpoint)
    }

    /// Number of entries and the last hash.
    pub(crate) fn log_head(&self) -> Result<(i64, String), StoreError> {
        chain::head(&self.reader())
    }

    /// What an auditor needs to verify checkpoints.
    pub(crate) fn log_key(&self) -> &LogPublicKey {
        self.keys.signer.public()
    }

    /// Whether SQLite still answers.
    pub(crate) fn ping(&self) -> Result<(), StoreError> {
        Ok(self.reader().query_row("SELECT 1", (), |_| Ok(()))?)
    }

    /// A holder that panicked left no transaction open: they roll back when dropped.
    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the file for its owner alone. SQLite would let others read it, and gives its journals this file's mode.
fn create(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_file) => Ok(()),
        // An existing one is not opened here: closing it would end SQLite's locks on it (fcntl).
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(file_error(path, source)),
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A release that is in no log must not have happened: each commit reaches the disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

fn read(
    connection: &Connection,
    vault: &Vault,
    kind: Kind,
    name: &str,
) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT sealed FROM secret WHERE kind = ?1 AND name = ?2")?;
    let sealed: Option<Vec<u8>> = statement
        .query_row((kind.as_str(), name), |row| row.get(0))
        .optional()?;
    let open = |sealed| vault.open(kind.as_str(), name, sealed);
    sealed
        .map(|sealed| open(sealed).ok_or(StoreError::Tampered))
        .transpose()
}

fn write(connection: &Connection, kind: &str, name: &str, sealed: &[u8]) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO secret (kind, name, sealed) VALUES (?1, ?2, ?3)
             ON CONFLICT (kind, name) DO UPDATE SET sealed = excluded.sealed",
        )?
        .execute((kind, name, sealed))?;
    Ok(())
}

fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
