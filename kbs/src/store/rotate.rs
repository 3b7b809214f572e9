//! Another master key: everything is encrypted anew, then the key file is replaced. Whenever the machine stops in
//! between, one of the two files beside each other opens the database, and the next command puts it in its place.
//!
//! 1. The new key reaches the disk as `<file>.new`; the old one gets a second name, for backups made under it.
//! 2. One transaction encrypts every value under the new key, and logs it.
//! 3. `<file>.new` takes the place of `<file>`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::Connection;
use time::OffsetDateTime;
use time::macros::format_description;

use super::entry::{Entry, Facts, NewEntry, Outcome};
use super::lock::{Lock, beside};
use super::vault::{Kind, MasterKey, Vault};
use super::writer::{append_alone, directory};
use super::{Checkpoints, Store, StoreError, connect, file_error, milliseconds, read, write};

/// Gives `database` another master key. Needs it for itself: a running broker would go on with the old one.
///
/// Says where the key of before is kept.
///
/// # Errors
/// See [`StoreError`]. Whatever it is, the key file opens the database, or [`finish_rotation`] makes that so.
pub(crate) fn rotate(
    database: &Path,
    key_file: &Path,
    old: &MasterKey,
    checkpoints: Checkpoints,
    now: SystemTime,
) -> Result<PathBuf, StoreError> {
    let failed = |source| file_error(key_file, source);
    if std::fs::symlink_metadata(key_file)
        .map_err(failed)?
        .is_symlink()
    {
        let problem = "the master key's file is a link; name the file itself";
        return Err(StoreError::NotWritten(problem.to_owned()));
    }
    let lock = Lock::exclusive(database)?;
    let store = Store::over(database, old, Some(lock))?;
    store.check_integrity(database)?;

    let new = MasterKey::generate().ok_or(StoreError::Seal)?;
    let vault = Vault::new(&new).ok_or(StoreError::Seal)?;
    let until = OffsetDateTime::from(now)
        .format(format_description!(
            "until-[year][month][day]T[hour][minute][second].[subsecond digits:3]Z"
        ))
        .unwrap_or_else(|_range| "old".to_owned());
    let (new_file, old_file) = (beside(key_file, "new"), beside(key_file, &until));
    write_key(&new_file, &new)?;
    std::fs::hard_link(key_file, &old_file).map_err(|source| file_error(&old_file, source))?;
    sync(directory(key_file))?;

    let entry = NewEntry {
        outcome: Outcome::KeyRotated,
        error_type: None,
        path: "master-key",
        facts: &Facts {
            admin: Some(COMMAND_LINE.to_owned()),
            ..Facts::default()
        },
        reason: Some("every value was encrypted anew under another master key"),
    };
    let entry = Entry::draft(milliseconds(now), &entry);
    let connection = connect(database)?;
    append_alone(connection, &store.keys, checkpoints, entry, |transaction| {
        seal_anew(transaction, &store.vault, &vault)
    })?;

    std::fs::rename(&new_file, key_file).map_err(failed)?;
    sync(directory(key_file))?;
    // What was written under the old key need not lie about in SQLite's own log.
    let connection = store.reader();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
    Ok(old_file)
}

/// Who did what was done on the broker's own machine.
pub(crate) const COMMAND_LINE: &str = "command line";

/// Puts the right key file in its place if a rotation was stopped in the middle.
///
/// # Errors
/// Neither file opens the database, or one of them cannot be read or moved.
pub(crate) fn finish_rotation(database: &Path, key_file: &Path) -> Result<(), StoreError> {
    let new_file = beside(key_file, "new");
    if !new_file.exists() || !database.exists() {
        return Ok(());
    }
    let _alone = Lock::exclusive(database).map_err(|error| match error {
        StoreError::InUse { path, .. } => StoreError::InUse {
            path,
            problem: "its master key is being changed; try again after that",
        },
        error => error,
    })?;
    if !new_file.exists() {
        return Ok(()); // the other process was quicker
    }
    let opens = |file: &Path| match MasterKey::load(file) {
        Ok(key) => opens(database, &key),
        Err(_unreadable) => Ok(false),
    };
    let failed = |source| file_error(&new_file, source);
    if opens(key_file)? {
        tracing::warn!(
            "a change of the master key was stopped before it happened; nothing changed"
        );
        std::fs::remove_file(&new_file).map_err(failed)?;
    } else if opens(&new_file)? {
        tracing::warn!("a change of the master key was stopped in the middle; it is finished now");
        std::fs::rename(&new_file, key_file).map_err(failed)?;
    } else {
        return Err(StoreError::MasterKey);
    }
    sync(directory(key_file))
}

fn opens(database: &Path, key: &MasterKey) -> Result<bool, StoreError> {
    let vault = Vault::new(key).ok_or(StoreError::Seal)?;
    match read(&connect(database)?, &vault, Kind::Check, "") {
        Ok(found) => Ok(found.is_some()),
        Err(StoreError::Tampered) => Ok(false),
        Err(error) => Err(error),
    }
}

fn seal_anew(connection: &Connection, old: &Vault, new: &Vault) -> Result<(), StoreError> {
    let mut names = connection.prepare("SELECT kind, name FROM secret")?;
    let names = names.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    // One value at a time: together they may be larger than the memory.
    for name in names.collect::<Result<Vec<(String, String)>, _>>()? {
        let (kind, name) = name;
        let sealed: Vec<u8> = connection
            .prepare_cached("SELECT sealed FROM secret WHERE kind = ?1 AND name = ?2")?
            .query_row((&kind, &name), |row| row.get(0))?;
        let value = old.open(&kind, &name, sealed).ok_or(StoreError::Tampered)?;
        let sealed = new.seal(&kind, &name, &value).ok_or(StoreError::Seal)?;
        write(connection, &kind, &name, &sealed)?;
    }
    Ok(())
}

fn write_key(path: &Path, key: &MasterKey) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let write = || {
        let mut file = options.open(path)?;
        file.write_all(key.to_hex().as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| file_error(path, source))
}

/// So that a name in it survives the machine's stop.
pub(super) fn sync(directory: &Path) -> Result<(), StoreError> {
    let sync = || File::open(directory)?.sync_all();
    sync().map_err(|source| file_error(directory, source))
}
