//! The release log: every decision, before its answer is sent, each entry chained to the one before it.
//!
//! `hash` is SHA-256 over the canonical JSON (RFC 8785) of all other columns but `mac`, so anybody can follow the chain;
//! `mac` is HMAC-SHA256 of `hash` under a key of the master key's, so nobody without it can write a chain anew. What
//! neither shows is a tail that was cut off: keep the last hash elsewhere.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use super::entry::{Broken, Entry, Facts, NewEntry, Outcome, Record};
use super::{Store, StoreError};

/// `prev` of the first entry.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const COLUMNS: &str = "seq, time_ms, outcome, error_type, path, pcr0, pcr1, pcr2, config_digest, tee_key, serial, \
     reason, prev, hash, mac";

impl Store {
    /// Appends and waits for the disk. Says whether the entry is listed, or only counted.
    pub(crate) fn log(&self, entry: &NewEntry<'_>, now: SystemTime) -> Result<bool, StoreError> {
        let Some(suppressed) = self.throttle.admit(entry) else {
            return Ok(false);
        };
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let time_ms = milliseconds(now);
        let (mut seq, mut prev) = head(&transaction)?;
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
            seq += 1;
            prev = self.append(&transaction, Entry::new(seq, time_ms, &counted, prev))?;
        }
        self.append(&transaction, Entry::new(seq + 1, time_ms, entry, prev))?;
        transaction.commit()?;
        Ok(true)
    }

    /// Hands every entry to `each`, oldest first, after checking it against the one before.
    ///
    /// # Errors
    /// [`StoreError::Log`] at the first entry that does not fit; those before it are sound.
    pub(crate) fn read_log(&self, mut each: impl FnMut(&Record)) -> Result<(), StoreError> {
        let connection = self.connection();
        let mut statement =
            connection.prepare(&format!("SELECT {COLUMNS} FROM release_log ORDER BY seq"))?;
        let mut rows = statement.query(())?;
        let (mut seq, mut prev) = (0, GENESIS.to_owned());
        while let Some(row) = rows.next()? {
            seq += 1;
            let entry = Entry::read(row)?;
            let (hash, mac): (String, String) = (row.get("hash")?, row.get("mac")?);
            let broken = |what| Err(Broken { seq, what }.into());
            if entry.seq != seq {
                return broken("an entry is missing");
            }
            if entry.prev != prev {
                return broken("it does not follow the entry before");
            }
            if hash != entry.hash() {
                return broken("it was changed");
            }
            let mac = hex::decode(mac).unwrap_or_default();
            if hmac::verify(self.vault.log_key(), hash.as_bytes(), &mac).is_err() {
                return broken("it was not written under this master key");
            }
            prev.clone_from(&hash);
            each(&Record { entry, hash });
        }
        Ok(())
    }

    /// Number of entries and the last hash: what to keep elsewhere.
    ///
    /// # Errors
    /// SQLite's.
    pub(crate) fn log_head(&self) -> Result<(i64, String), StoreError> {
        head(&self.connection())
    }

    fn append(&self, connection: &Connection, entry: Entry) -> Result<String, StoreError> {
        let hash = entry.hash();
        let mac = hex::encode(hmac::sign(self.vault.log_key(), hash.as_bytes()));
        let marks = "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15";
        connection.execute(
            &format!("INSERT INTO release_log ({COLUMNS}) VALUES ({marks})"),
            rusqlite::params![
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
                entry.prev,
                hash,
                mac,
            ],
        )?;
        Ok(hash)
    }
}

fn head(connection: &Connection) -> Result<(i64, String), StoreError> {
    let last = connection
        .query_row(
            "SELECT seq, hash FROM release_log ORDER BY seq DESC LIMIT 1",
            (),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(last.unwrap_or_else(|| (0, GENESIS.to_owned())))
}

fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
