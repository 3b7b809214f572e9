use crate::config::ConfigError;
use crate::issuer::spire::SpireError;
use crate::store::StoreError;

/// Why the broker, or one of its commands, stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fix the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What was asked on the command line cannot be done.
    #[error("{0}")]
    Usage(String),
    /// A dry run ended with a no; it was printed.
    #[error("{0}")]
    Denied(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An endpoint of ours could not be opened.
    #[error("{field}: {source}")]
    Listen {
        /// The configuration field.
        field: &'static str,
        /// Names the endpoint.
        source: std::io::Error,
    },
    /// A listener broke while it was used.
    #[error("{field} stopped: {source}")]
    Stopped {
        /// The configuration field.
        field: &'static str,
        /// What broke.
        source: std::io::Error,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The TLS library refused our settings.
    #[error("tls: {0}")]
    Tls(#[from] identity::Error),
    /// SPIRE gives no identities, or must not.
    #[error("spire: {0}")]
    Spire(#[from] SpireError),
    /// The cryptographic library failed us.
    #[error("the cryptographic library could not {0}")]
    Crypto(&'static str),
}

impl Error {
    /// Exit code of a program that stops for this reason (sysexits.h): 64 configuration or usage, 69 unavailable,
    /// 70 bug, 77 denied.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage(_) => 64,
            Self::Store(
                StoreError::MasterKey
                | StoreError::Schema { .. }
                | StoreError::TooLarge
                | StoreError::InUse { .. }
                | StoreError::OlderBackup { .. },
            ) => 64,
            Self::Store(_) | Self::Listen { .. } | Self::Stopped { .. } | Self::File { .. } => 69,
            Self::Tls(_) | Self::Crypto(_) => 70,
            Self::Denied(_) => 77,
            Self::Spire(error) => error.exit_code(),
        }
    }
}
