//! A copy of the whole store, and the way back. A copy holds what the database holds: ciphertext and the log, no master
//! key. Neither direction overwrites anything, and a copy is verified before it gets its name.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::NamedTempFile;

use super::audit::{Audited, open_note, read_note};
use super::entry::{Entry, Facts, NewEntry, Outcome};
use super::lock::{Lock, beside};
use super::rotate::{COMMAND_LINE, sync};
use super::vault::MasterKey;
use super::writer::{append_alone, directory};
use super::{Checkpoints, Store, StoreError, connect, file_error, milliseconds};

/// What came back.
#[derive(Debug)]
pub(crate) struct Restored {
    /// What the backup held.
    pub(crate) audited: Audited,
    /// Entries that a checkpoint signed and the backup lacks.
    pub(crate) lost: u64,
}

/// Copies the database as it is at one moment to `out`; a broker may go on working on it.
///
/// # Errors
/// `out` exists, or the copy is not sound.
pub(crate) fn backup(database: &Path, key: &MasterKey, out: &Path) -> Result<Audited, StoreError> {
    let failed = |source| file_error(out, source);
    let copy = NamedTempFile::new_in(directory(out)).map_err(failed)?;
    let store = Store::inspect(database, key)?;
    // One read transaction; pages that were freed are left behind.
    let name = copy.path().display().to_string();
    store.reader().execute("VACUUM INTO ?1", (name,))?;
    let audited = verify(copy.path(), key)?;
    copy.as_file().sync_all().map_err(failed)?;
    copy.persist_noclobber(out)
        .map_err(|error| failed(error.error))?;
    sync(directory(out))?;
    Ok(audited)
}

/// Makes `database`, which must not exist, from the backup `from`, and logs that.
///
/// # Errors
/// The backup is not sound, or was made under another master key; or it lacks entries that the newest checkpoint
/// signed, and `accept_lost` is not set.
pub(crate) fn restore(
    database: &Path,
    key: &MasterKey,
    from: &Path,
    checkpoints: Checkpoints,
    accept_lost: bool,
    now: SystemTime,
) -> Result<Restored, StoreError> {
    let _alone = Lock::exclusive(database)?;
    for suffix in ["", "-wal", "-shm"] {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        if path.exists() {
            let problem =
                "exists; move it away first, with its -wal and -shm, nothing is overwritten";
            return Err(StoreError::InUse { path, problem });
        }
    }
    let failed = |source| file_error(database, source);
    let mut copy = NamedTempFile::new_in(directory(database)).map_err(failed)?;
    let mut source = std::fs::File::open(from).map_err(|source| file_error(from, source))?;
    std::io::copy(&mut source, copy.as_file_mut()).map_err(failed)?;
    let audited = verify(copy.path(), key)?;

    let store = Store::over(copy.path(), key, None)?;
    let mut lost = 0;
    if let Some(note) = read_note(&checkpoints.file)? {
        let name = checkpoints.file.display().to_string();
        let known = open_note(&name, &note, store.keys.signer.public())?;
        lost = known.size.saturating_sub(audited.entries);
        if lost == 0 {
            store.audit(&[&checkpoints.file])?;
        }
    }
    if lost > 0 && !accept_lost {
        return Err(StoreError::OlderBackup {
            entries: audited.entries,
            lost,
        });
    }
    let reason = format!(
        "from a backup of {} entries; {lost} more were signed for and are lost",
        audited.entries
    );
    let entry = NewEntry {
        outcome: Outcome::Restored,
        error_type: None,
        path: "database",
        facts: &Facts {
            admin: Some(COMMAND_LINE.to_owned()),
            ..Facts::default()
        },
        reason: Some(&reason),
    };
    let entry = Entry::draft(milliseconds(now), &entry);
    let note = Checkpoints {
        file: beside(copy.path(), "checkpoint"),
        ..checkpoints.clone()
    };
    append_alone(
        connect(copy.path())?,
        &store.keys,
        note.clone(),
        entry,
        |_| Ok(()),
    )?;
    drop(store);
    copy.as_file().sync_all().map_err(failed)?;

    // The checkpoint of what is lost stays as evidence, but can be held against this log no more.
    if lost > 0 {
        let kept = beside(
            &checkpoints.file,
            &format!("before-restore-{}", audited.entries),
        );
        std::fs::rename(&checkpoints.file, &kept).map_err(|source| file_error(&kept, source))?;
    }
    copy.persist_noclobber(database)
        .map_err(|error| failed(error.error))?;
    std::fs::rename(&note.file, &checkpoints.file).map_err(failed)?;
    sync(directory(database))?;
    Ok(Restored { audited, lost })
}

/// Pages, chain, checkpoints, and that every value opens.
fn verify(path: &Path, key: &MasterKey) -> Result<Audited, StoreError> {
    let store = Store::over(path, key, None)?;
    store.check_integrity(path)?;
    let connection = store.reader();
    let mut statement = connection.prepare("SELECT kind, name, sealed FROM secret")?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
        let opened = store.vault.open(&kind, &name, row.get(2)?);
        opened.ok_or(StoreError::Tampered)?;
    }
    drop(rows);
    drop(statement);
    drop(connection);
    store.audit(&[])
}
