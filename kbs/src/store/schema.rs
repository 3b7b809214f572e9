//! The tables, and how a database of an earlier version gets them.

use rusqlite::{Connection, TransactionBehavior};

use super::keys::{self, LogKeys};
use super::vault::{Kind, MasterKey, Vault};
use super::{CHECK_TEXT, StoreError, read, write};

/// Changes with the tables; a newer version is refused, not guessed at.
pub(super) const VERSION: i64 = 2;
pub(super) const SCHEMA_1: &str = "
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
const SCHEMA_2: &str = "
    ALTER TABLE release_log ADD COLUMN policy_sha256 TEXT;
    ALTER TABLE release_log ADD COLUMN admin TEXT;
    CREATE TABLE log_checkpoint (
        size INTEGER PRIMARY KEY,
        note TEXT NOT NULL
    ) STRICT;
    CREATE TRIGGER log_checkpoint_keeps_rows BEFORE DELETE ON log_checkpoint
        BEGIN SELECT RAISE(ABORT, 'checkpoints only grow'); END;
    CREATE TRIGGER log_checkpoint_keeps_values BEFORE UPDATE ON log_checkpoint
        BEGIN SELECT RAISE(ABORT, 'checkpoints only grow'); END;
    CREATE TABLE used_approval (
        id TEXT PRIMARY KEY,
        until_ms INTEGER NOT NULL
    ) STRICT;
";

/// Makes or extends the tables, and sees that `vault` is the one they were filled with, all in one transaction.
pub(super) fn migrate(
    connection: &mut Connection,
    key: &MasterKey,
    vault: &Vault,
) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    match version {
        0 => transaction.execute_batch(&[SCHEMA_1, SCHEMA_2].concat())?,
        1 => transaction.execute_batch(SCHEMA_2)?,
        VERSION => {}
        actual => return Err(StoreError::Schema { actual }),
    }
    match read(&transaction, vault, Kind::Check, "") {
        Ok(Some(text)) if *text == CHECK_TEXT => {}
        Ok(Some(_)) | Err(StoreError::Tampered) => return Err(StoreError::MasterKey),
        // Its keys are gone with it, and new ones would hide that.
        Ok(None) if version == VERSION => return Err(StoreError::Tampered),
        Ok(None) => {
            let kind = Kind::Check.as_str();
            let sealed = vault.seal(kind, "", CHECK_TEXT).ok_or(StoreError::Seal)?;
            write(&transaction, kind, "", &sealed)?;
        }
        Err(error) => return Err(error),
    }
    match version {
        0 => LogKeys::make(&transaction, vault, keys::fresh_mac()?)?,
        // The chain so far was authenticated under a key of the master key's; rotation must not end that.
        1 => LogKeys::make(&transaction, vault, key.log_mac().ok_or(StoreError::Seal)?)?,
        _ => return Ok(()),
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}
