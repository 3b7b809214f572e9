//! `[[admin]]` and `[log]`: who changes what is released, and what is kept of it.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{Config, ConfigError};
use crate::admin::AdminKeys;
use crate::store::Checkpoints;

/// One word in a line of the log.
const MAX_ADMIN_NAME: usize = 64;

/// `[[admin]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// For the release log.
    pub name: String,
    /// Ed25519 (PEM).
    pub public_key: String,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Holds the newest checkpoint; `<database>.checkpoint` when not named. Best on another medium than the database.
    pub checkpoint_file: Option<PathBuf>,
    /// Entries after which there is one.
    pub checkpoint_entries: u64,
    /// Seconds an entry waits for one at most.
    pub checkpoint_s: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            checkpoint_file: None,
            checkpoint_entries: 1000,
            checkpoint_s: 60,
        }
    }
}

impl Config {
    pub(crate) fn admin_keys(&self) -> Result<AdminKeys, ConfigError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        for (index, Admin { name, .. }) in self.admin.iter().enumerate() {
            if name.is_empty() || name.len() > MAX_ADMIN_NAME || !name.chars().all(plain) {
                let problem = "has to be 1 to 64 letters, digits and -_.@";
                return Err(self.error(&format!("admin[{index}].name"), problem));
            }
        }
        let unnamed = self
            .admin_public_keys
            .iter()
            .map(|pem| (None, pem.as_str()));
        let named = self.admin.iter();
        let named = named.map(|admin| (Some(admin.name.as_str()), admin.public_key.as_str()));
        AdminKeys::new(unnamed.chain(named), self.two_person).map_err(|index| {
            let first = self.admin_public_keys.len();
            let field = match index.checked_sub(first) {
                None => format!("admin_public_keys[{index}]"),
                Some(index) => format!("admin[{index}]"),
            };
            let problem =
                "is not an Ed25519 public key in PEM, or its key or name is listed before";
            self.error(&field, problem)
        })
    }

    pub(crate) fn checkpoints(&self) -> Checkpoints {
        let beside = Checkpoints::beside(&self.database);
        Checkpoints {
            file: self.log.checkpoint_file.clone().unwrap_or(beside.file),
            entries: self.log.checkpoint_entries,
            age: Duration::from_secs(self.log.checkpoint_s),
        }
    }
}
