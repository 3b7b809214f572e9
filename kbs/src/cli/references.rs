//! `kbs reference-value`.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Subcommand;

use super::{ConfigArg, print};
use crate::config::{self, Config};
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
    },
    /// Delete the value ID.
    Delete {
        #[command(flatten)]
        config: ConfigArg,
        /// As set.
        id: String,
    },
    /// Print all values.
    List(ConfigArg),
}

impl ReferenceValue {
    pub(super) fn run(self, now: SystemTime) -> Result<(), Error> {
        match self {
            Self::Set { config, file } => {
                let json = config::read(&file, MAX_FILE)
                    .map_err(|problem| Error::Usage(format!("{}: {problem}", file.display())))?;
                offline::set_references(&Config::load(&config.config)?, &json, now)
            }
            Self::Delete { config, id } => {
                offline::delete_reference(&Config::load(&config.config)?, &id, now)
            }
            Self::List(ConfigArg { config }) => {
                let values = offline::references(&Config::load(&config)?)?;
                print(&format!("{values:#}\n"))
            }
        }
    }
}
