//! Why the store did not do what it was asked to.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::entry::Broken;
use super::note::NoteError;
use super::schema;

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file cannot be made, opened or replaced.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("database: {0}")]
    Sqlite(rusqlite::Error),
    /// The file is not a sound SQLite database.
    #[error("database {} is damaged ({problem}): stop here, keep the file, and put a backup in its place with `kbs restore`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first thing that is wrong.
        problem: String,
    },
    /// Made by another version of this program.
    #[error("database has schema {actual}, this program knows {}", schema::VERSION)]
    Schema {
        /// As found.
        actual: i64,
    },
    /// The database was made under another master key.
    #[error("the master key does not open this database; name the key it was made with")]
    MasterKey,
    /// Another process needs the database for itself, or others use it.
    #[error("database {}: {problem}", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
        /// Who has it.
        problem: &'static str,
    },
    /// A row does not open under its own name: it was moved or changed.
    #[error("a stored value was changed outside this program")]
    Tampered,
    /// All reference values together would take more than a megabyte.
    #[error("all reference values together are over a megabyte; delete some")]
    TooLarge,
    /// Encryption failed in the library.
    #[error("the value could not be encrypted")]
    Seal,
    /// There is nothing to delete.
    #[error("nothing is stored there")]
    Absent,
    /// What came after the backup would be gone.
    #[error(
        "the backup ends at entry {entries}, and a checkpoint signed {lost} more: with `--accept-lost` they are given up"
    )]
    OlderBackup {
        /// Entries of the backup.
        entries: u64,
        /// Entries it lacks.
        lost: u64,
    },
    /// An approval is good for one change, once.
    #[error("an approval was used before")]
    ApprovalUsed,
    /// The transaction did not reach the disk; nothing of it happened.
    #[error("the database took no entry: {0}")]
    NotWritten(String),
    /// The release log is not one unbroken chain.
    #[error(transparent)]
    Log(#[from] Broken),
    /// A checkpoint that cannot be held against the log.
    #[error("checkpoint {source_name}: {problem}")]
    Checkpoint {
        /// The file, or `database`.
        source_name: String,
        /// What is wrong with it.
        problem: NoteError,
    },
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// What SQLite says of a file that is no database, or was one, with what to do.
pub(super) fn damaged(path: &Path, error: StoreError) -> StoreError {
    let problem = match &error {
        StoreError::Sqlite(cause) => match cause.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => cause.to_string(),
            _ => return error,
        },
        _ => return error,
    };
    StoreError::Damaged {
        path: path.to_owned(),
        problem,
    }
}

pub(super) fn file_error(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::File {
        path: path.to_owned(),
        source,
    }
}
