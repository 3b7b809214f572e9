//! Entries and checkpoints, each in its place: what is added follows what is there.

use aws_lc_rs::hmac;
use rusqlite::{Connection, OptionalExtension as _};

use super::StoreError;
use super::entry::{Broken, Entry};
use super::keys::LogKeys;
use super::tree::Tree;

/// `prev` of the first entry.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
pub(super) const COLUMNS: &str = "seq, time_ms, outcome, error_type, path, pcr0, pcr1, pcr2, config_digest, tee_key, \
     serial, reason, policy_sha256, admin, prev, hash, mac";
const MARKS: &str = "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17";
/// What is known to be in the log.
#[derive(Clone)]
pub(super) struct Head {
    pub(super) hash: String,
    pub(super) tree: Tree,
    /// Entries the newest checkpoint covers. None: this process signed none yet, so the next commit carries one.
    pub(super) signed: Option<u64>,
}

/// Takes in what other processes appended since, and finds out if what we know of is gone or changed.
pub(super) fn catch_up(
    transaction: &Connection,
    head: &mut Head,
    mut each: impl FnMut(&Tree) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let size = i64::try_from(head.tree.size()).unwrap_or(i64::MAX);
    let mut statement = transaction
        .prepare_cached("SELECT seq, prev, hash FROM release_log WHERE seq > ?1 ORDER BY seq")?;
    let mut rows = statement.query((size,))?;
    let mut seq = size;
    while let Some(row) = rows.next()? {
        seq += 1;
        let (found, prev, hash): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if found != seq {
            return Err(broken(seq, "an entry is missing"));
        }
        if prev != head.hash {
            return Err(broken(seq, "it does not follow the entry before"));
        }
        push(&mut head.tree, seq, &hash)?;
        head.hash = hash;
        each(&head.tree)?;
    }
    if seq == size && self::head(transaction)? != (size, head.hash.clone()) {
        return Err(broken(
            size,
            "it was changed or removed while it was in use",
        ));
    }
    Ok(())
}

pub(super) fn append(
    connection: &Connection,
    mac: &hmac::Key,
    head: &mut Head,
    entries: &[Entry],
) -> Result<(), StoreError> {
    let insert = format!("INSERT INTO release_log ({COLUMNS}) VALUES ({MARKS})");
    let mut statement = connection.prepare_cached(&insert)?;
    for draft in entries {
        let mut entry = draft.clone();
        entry.seq = i64::try_from(head.tree.size() + 1).unwrap_or(i64::MAX);
        entry.prev = std::mem::take(&mut head.hash);
        let hash = entry.hash();
        statement.execute(rusqlite::params![
            entry.seq,
            entry.time_ms,
            entry.outcome,
            entry.error_type,
            entry.path,
            entry.pcr0,
            entry.pcr1,
            entry.pcr2,
            entry.config_digest,
            entry.tee_key,
            entry.serial,
            entry.reason,
            entry.policy_sha256,
            entry.admin,
            entry.prev,
            hash,
            hex::encode(hmac::sign(mac, hash.as_bytes())),
        ])?;
        push(&mut head.tree, entry.seq, &hash)?;
        head.hash = hash;
    }
    Ok(())
}

fn push(tree: &mut Tree, seq: i64, hash: &str) -> Result<(), StoreError> {
    let mut leaf = [0; 32];
    hex::decode_to_slice(hash, &mut leaf).map_err(|_form| broken(seq, "it was changed"))?;
    tree.push(&leaf);
    Ok(())
}

pub(super) fn sign(
    transaction: &Connection,
    keys: &LogKeys,
    head: &mut Head,
) -> Result<String, StoreError> {
    let note = keys.signer.sign(&head.tree);
    let size = i64::try_from(head.tree.size()).unwrap_or(i64::MAX);
    // Another process may have signed the same length.
    transaction
        .prepare_cached(
            "INSERT INTO log_checkpoint (size, note) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute((size, &note))?;
    head.signed = Some(head.tree.size());
    Ok(note)
}

/// Number of entries and the last hash.
pub(super) fn head(connection: &Connection) -> Result<(i64, String), StoreError> {
    let last = connection
        .prepare_cached("SELECT seq, hash FROM release_log ORDER BY seq DESC LIMIT 1")?
        .query_row((), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(last.unwrap_or_else(|| (0, GENESIS.to_owned())))
}

fn broken(seq: i64, what: &'static str) -> StoreError {
    Broken { seq, what }.into()
}
