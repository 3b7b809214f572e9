//! The log's readers, and what keeps a store alive: rotation, backup, restore.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::inspect;
use crate::config::Config;
use crate::error::Error;
use crate::store::{self, Audited, LogPublicKey, Record, Restored};

/// Hands over every entry of the release log, oldest first, checking the chain on the way.
///
/// # Errors
/// See [`Error`]; also when the chain is broken.
pub fn read_log(config: &Config, each: impl FnMut(&Record)) -> Result<(), Error> {
    Ok(inspect(config)?.read_log(each)?)
}

/// Holds the whole log against its chain, its checkpoints, the configured checkpoint file if there is one, and `files`.
///
/// # Errors
/// See [`Error`]; also when anything does not fit.
pub fn verify_log(config: &Config, files: &[PathBuf]) -> Result<Audited, Error> {
    let own = config.checkpoints().file;
    let mut files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    if own.exists() {
        files.push(&own);
    }
    let store = inspect(config)?;
    store.check_integrity(&config.database)?;
    Ok(store.audit(&files)?)
}

/// As [`verify_log`], of an export, with the log's public key and no secret.
///
/// # Errors
/// See [`Error`]; also when anything does not fit.
pub fn verify_export(
    export: impl BufRead,
    key: &LogPublicKey,
    files: &[PathBuf],
) -> Result<Audited, Error> {
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    Ok(store::audit_export(export, key, &files)?)
}

/// Every checkpoint and every entry, one JSON object per line.
///
/// # Errors
/// See [`Error`]; also those of `line`.
pub fn export_log(
    config: &Config,
    mut line: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<(), Error> {
    let failed = |source| store::StoreError::File {
        path: PathBuf::from("standard output"),
        source,
    };
    Ok(inspect(config)?.export(|text| line(text).map_err(failed))?)
}

/// What an auditor needs to verify checkpoints and exports.
///
/// # Errors
/// See [`Error`].
pub fn log_key(config: &Config) -> Result<LogPublicKey, Error> {
    Ok(inspect(config)?.log_key().clone())
}

/// Encrypts the store under another master key, and puts that in the key's file. The broker must not run. Says where
/// the key of before is kept.
///
/// # Errors
/// See [`Error`].
pub fn rotate_master_key(config: &Config, now: SystemTime) -> Result<PathBuf, Error> {
    let (database, key_file) = (&config.database, &config.master_key_file);
    if !database.exists() {
        let database = database.display();
        return Err(Error::Usage(format!("there is no database {database}")));
    }
    store::finish_rotation(database, key_file)?;
    let old = config.master_key()?;
    Ok(store::rotate(
        database,
        key_file,
        &old,
        config.checkpoints(),
        now,
    )?)
}

/// Copies the database, as it is at one moment, to `out`; the broker may run.
///
/// # Errors
/// See [`Error`]; also when `out` exists.
pub fn backup(config: &Config, out: &Path) -> Result<Audited, Error> {
    store::finish_rotation(&config.database, &config.master_key_file)?;
    Ok(store::backup(&config.database, &config.master_key()?, out)?)
}

/// Makes the database from the backup `from`; gives what it held, and how many entries are known to be lost.
///
/// # Errors
/// See [`Error`]; also when the database exists.
pub fn restore(
    config: &Config,
    from: &Path,
    accept_lost: bool,
    now: SystemTime,
) -> Result<(Audited, u64), Error> {
    let key = config.master_key()?;
    let Restored { audited, lost } = store::restore(
        &config.database,
        &key,
        from,
        config.checkpoints(),
        accept_lost,
        now,
    )?;
    Ok((audited, lost))
}
