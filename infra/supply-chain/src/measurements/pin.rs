use std::fmt;
use std::str::FromStr;

use sealed_model::Sha256Digest;

use crate::Error;

/// What a reader has seen of a list before, so that nobody can show it an older one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// It had so many entries: a shorter list is refused. A list that was rewritten by the signer is not noticed.
    Sequence(u64),
    /// It had an entry with this digest: a shorter list and a rewritten one are refused.
    Hash(Sha256Digest),
}

/// The last entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub sequence: u64,
    /// SHA-256 of the entry, which names the one before: it stands for the whole list.
    pub hash: Sha256Digest,
}

impl FromStr for Pin {
    type Err = Error;

    /// A sequence number, or 64 hex digits.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() == 64 {
            return text
                .parse()
                .map(Self::Hash)
                .map_err(|_shown_below| malformed());
        }
        match text.parse() {
            Ok(sequence) if sequence > 0 => Ok(Self::Sequence(sequence)),
            _ => Err(malformed()),
        }
    }
}

fn malformed() -> Error {
    Error::input(
        "pin",
        "is the number of an entry, from 1, or its SHA-256 in hex",
    )
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence(sequence) => write!(f, "entry {sequence}"),
            Self::Hash(hash) => write!(f, "an entry {hash}"),
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} {}", self.sequence, self.hash)
    }
}
