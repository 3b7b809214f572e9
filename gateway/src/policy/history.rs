//! Which policies this gateway has enforced, so that it never goes back to an earlier one.
//!
//! A policy is retired for a reason: an image with a flaw, a model that must not be used any more. Whoever can put an old file in
//! place, or a deployment that rolls back too much, would bring that back. The serial number stops both; who can also delete
//! the history is the machine's owner.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use attestation::Sha256Digest;
use serde::{Deserialize, Serialize};

use super::Policy;

const FORMAT: &str = "cloister-gateway-policy-history/1";
/// Entries that are kept, the newest; the order needs only the last.
const MOST: usize = 256;
/// Several times [`MOST`] entries.
const MAX_BYTES: u64 = 256 << 10;

/// One policy that was enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    pub serial: u64,
    /// [`Policy::digest`].
    pub policy_sha256: Sha256Digest,
    /// When it was first enforced here, seconds since 1970.
    pub since: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    format: String,
    accepted: Vec<Accepted>,
}

/// The file that remembers.
#[derive(Clone, Debug)]
pub struct History {
    path: PathBuf,
    accepted: Vec<Accepted>,
}

/// A history that refuses a policy, or cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    #[error("{path}: cannot be read: {source}")]
    Read { path: String, source: io::Error },
    #[error(
        "{path}: not a policy history; restore it from a backup, or delete it if every earlier policy is known to be harmless"
    )]
    Broken { path: String },
    #[error(
        "{path}: cannot be written: {source}; the gateway must be able to write the history and its directory"
    )]
    Write { path: String, source: io::Error },
    #[error(
        "policy goes back: serial {offered} after {enforced} was enforced ({path}); give the policy a serial above {enforced}"
    )]
    GoesBack {
        path: String,
        enforced: u64,
        offered: u64,
    },
    #[error(
        "policy changed under the serial {serial}: it was {enforced} and is {offered} ({path}); raise the serial with every change"
    )]
    SameSerial {
        path: String,
        serial: u64,
        enforced: Sha256Digest,
        offered: Sha256Digest,
    },
}

impl HistoryError {
    /// Whether the history is sound and the policy is what it refuses.
    #[must_use]
    pub fn refuses_policy(&self) -> bool {
        matches!(self, Self::GoesBack { .. } | Self::SameSerial { .. })
    }
}

impl History {
    /// Reads the file; one that does not exist yet is empty.
    ///
    /// # Errors
    /// [`HistoryError::Read`] and [`HistoryError::Broken`]: a history that cannot be understood refuses everything.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        let shown = || path.display().to_string();
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self {
                    path: path.to_owned(),
                    accepted: Vec::new(),
                });
            }
            Err(source) => {
                return Err(HistoryError::Read {
                    path: shown(),
                    source,
                });
            }
        };
        let mut bytes = Vec::new();
        let read = file.take(MAX_BYTES).read_to_end(&mut bytes);
        read.map_err(|source| HistoryError::Read {
            path: shown(),
            source,
        })?;
        let wire: Wire = serde_json::from_slice(&bytes)
            .map_err(|_detail| HistoryError::Broken { path: shown() })?;
        let ascending = wire
            .accepted
            .iter()
            .zip(wire.accepted.iter().skip(1))
            .all(|(before, after)| before.serial < after.serial);
        if wire.format != FORMAT || !ascending {
            return Err(HistoryError::Broken { path: shown() });
        }
        Ok(Self {
            path: path.to_owned(),
            accepted: wire.accepted,
        })
    }

    /// What was enforced here, oldest first.
    #[must_use]
    pub fn accepted(&self) -> &[Accepted] {
        &self.accepted
    }

    /// Whether `policy` may follow. `true`: it is new here.
    ///
    /// # Errors
    /// [`HistoryError::GoesBack`] and [`HistoryError::SameSerial`].
    pub fn check(&self, policy: &Policy) -> Result<bool, HistoryError> {
        let Some(last) = self.accepted.last() else {
            return Ok(true);
        };
        let path = || self.path.display().to_string();
        let offered = policy.digest();
        if policy.serial < last.serial {
            return Err(HistoryError::GoesBack {
                path: path(),
                enforced: last.serial,
                offered: policy.serial,
            });
        }
        if policy.serial > last.serial {
            return Ok(true);
        }
        if offered != last.policy_sha256 {
            return Err(HistoryError::SameSerial {
                path: path(),
                serial: policy.serial,
                enforced: last.policy_sha256,
                offered,
            });
        }
        Ok(false)
    }

    /// Checks `policy` and remembers it, on the disk, before it is enforced.
    ///
    /// # Errors
    /// As [`Self::check`], and [`HistoryError::Write`]: then it is not enforced.
    pub fn accept(&mut self, policy: &Policy, now: SystemTime) -> Result<(), HistoryError> {
        if !self.check(policy)? {
            return Ok(());
        }
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let mut accepted = self.accepted.clone();
        accepted.push(Accepted {
            serial: policy.serial,
            policy_sha256: policy.digest(),
            since: since.map_or(0, |since| since.as_secs()),
        });
        let surplus = accepted.len().saturating_sub(MOST);
        accepted.drain(..surplus);
        self.write(&accepted)
            .map_err(|source| HistoryError::Write {
                path: self.path.display().to_string(),
                source,
            })?;
        self.accepted = accepted;
        Ok(())
    }

    /// Whole or not at all, whenever the power fails.
    fn write(&self, accepted: &[Accepted]) -> io::Result<()> {
        let wire = Wire {
            format: FORMAT.to_owned(),
            accepted: accepted.to_vec(),
        };
        let mut text = serde_json::to_string_pretty(&wire)?;
        text.push('\n');
        let dir = match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let beside = dir.join(name);
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests;
