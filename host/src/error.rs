use std::io;
use std::path::PathBuf;

use crate::ConfigError;

/// Why a host stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fix the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory of sealed models is missing or cannot be read.
    #[error("models.root {}: {source}; create it, or name the directory that holds the sealed packages", path.display())]
    Models {
        /// As configured.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// An endpoint of ours could not be opened: in use, no right, no such device.
    #[error("{field}: {source}")]
    Listen {
        /// The configuration field.
        field: String,
        /// Names the endpoint.
        source: io::Error,
    },
    /// A listener broke while it was used.
    #[error("{field} stopped: {source}")]
    Stopped {
        /// The configuration field.
        field: String,
        /// What broke.
        source: io::Error,
    },
    /// The operating system gives us no signals.
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
    /// A task of ours panicked: a bug.
    #[error("a task of the host ended by itself; please report this")]
    Task,
}

impl Error {
    /// Exit code of a program that stops for this reason (sysexits.h): 64 configuration, 69 unavailable, 70 bug.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 64,
            Self::Models { .. } | Self::Listen { .. } | Self::Stopped { .. } => 69,
            Self::Signals(_) | Self::Task => 70,
        }
    }
}
