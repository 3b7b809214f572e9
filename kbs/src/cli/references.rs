//! `kbs reference-value`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Subcommand;
use zeroize::Zeroizing;

use super::{Approvals, ConfigArg, print};
use crate::appraisal::References;
use crate::config;
use crate::error::Error;
use crate::offline;

/// As much as all of them may take.
const MAX_FILE: u64 = 1024 * 1024;

#[derive(Subcommand)]
pub(super) enum ReferenceValue {
    /// Set the values in FILE, a JSON object `{"<id>": <value>, …}`; others stay.
    Set {
        #[command(flatten)]
        config: ConfigArg,
        /// The values.
        file: PathBuf,
        #[command(flatten)]
        approvals: Approvals,
    },
    /// Delete the value ID.
    Delete {
        #[command(flatten)]
        config: ConfigArg,
        /// As set.
        id: String,
        #[command(flatten)]
        approvals: Approvals,
    },
    /// Print all values.
    List(ConfigArg),
}

impl ReferenceValue {
    pub(super) fn run(self, now: SystemTime) -> Result<(), Error> {
        match self {
            Self::Set {
                config,
                file,
                approvals,
            } => {
                let (json, approvals) = (json(&file)?, approvals.read()?);
                offline::set_references(&config.load()?, &json, &approvals, now)
            }
            Self::Delete {
                config,
                id,
                approvals,
            } => offline::delete_reference(&config.load()?, &id, &approvals.read()?, now),
            Self::List(config) => {
                let values = offline::references(&config.load()?)?;
                print(&format!("{values:#}\n"))
            }
        }
    }
}

/// Reference values in a file.
pub(super) fn values(file: &Path) -> Result<References, Error> {
    offline::parse_references(&json(file)?)
}

fn json(file: &Path) -> Result<Zeroizing<String>, Error> {
    config::read(file, MAX_FILE)
        .map_err(|problem| Error::Usage(format!("{}: {problem}", file.display())))
}
