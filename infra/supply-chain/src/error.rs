use std::io;
use std::path::PathBuf;

use sealed_model::Sha256Digest;

/// Why something was not described, signed, or believed. [`Error::kind`] says who must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // The caller's own input: fix it and call again.
    #[error("{what}: {problem}")]
    Input { what: String, problem: String },
    #[error("{}: cannot {action}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the content to be signed or checked cannot be read")]
    Content(#[source] io::Error),
    #[error("key: {0}")]
    Key(#[source] sealed_model::Error),

    // Refused: final, reading again gives the same answer.
    #[error("{what}: {actual} bytes, more than the {max} allowed")]
    TooLarge {
        what: &'static str,
        max: u64,
        actual: u64,
    },
    #[error("{what}: {problem}")]
    Malformed { what: &'static str, problem: String },
    #[error("{what}: version {found:?} is not known, this reader knows {known}")]
    UnknownVersion {
        what: &'static str,
        found: String,
        known: &'static str,
    },
    #[error("{what}: {found:?} is not what was asked for, which is {expected:?}")]
    Unexpected {
        what: &'static str,
        expected: String,
        found: String,
    },
    #[error("{what}: signed by none of the keys given")]
    Signature { what: &'static str },
    #[error("{what}: SHA-256 {actual}, expected {expected}")]
    Digest {
        what: String,
        expected: Sha256Digest,
        actual: Sha256Digest,
    },
    #[error("measurements: entry {sequence}: {problem}")]
    Entry { sequence: u64, problem: String },
    #[error("measurements: {0}")]
    Rollback(String),

    /// A primitive failed that cannot fail with the arguments it was given.
    #[error("internal: {0}")]
    Internal(&'static str),
}

/// Who must act on an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file could not be read or written.
    Io,
    /// What was given failed a check: final.
    Refused,
    /// The caller's arguments.
    Invalid,
    /// A bug here.
    Internal,
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Input { .. } | Self::Key(_) => ErrorKind::Invalid,
            Self::Io { .. } | Self::Content(_) => ErrorKind::Io,
            Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::UnknownVersion { .. }
            | Self::Unexpected { .. }
            | Self::Signature { .. }
            | Self::Digest { .. }
            | Self::Entry { .. }
            | Self::Rollback(_) => ErrorKind::Refused,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn input(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Input {
            what: what.into(),
            problem: problem.into(),
        }
    }

    pub(crate) fn malformed(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Malformed {
            what,
            problem: problem.into(),
        }
    }
}
