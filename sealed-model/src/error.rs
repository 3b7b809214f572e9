use std::io;
use std::path::PathBuf;

use crate::accept::Rejection;

/// Why a package was not made, opened or read. [`Error::kind`] says who must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source did not deliver. Nothing was concluded about the package; trying again may help.
    #[error("{file}: cannot be read from the package")]
    Unavailable {
        file: String,
        #[source]
        source: io::Error,
    },

    // Refused: the package is not what was asked for. Final; reading again gives the same answer.
    #[error("{file}: not a signature envelope of this format")]
    Envelope { file: &'static str },
    #[error("{file}: signed by {publisher}, who is not a trusted publisher")]
    UnknownPublisher {
        file: &'static str,
        publisher: String,
    },
    #[error("manifest.json: is not what publisher {publisher} signed")]
    Signature { publisher: String },
    #[error("manifest.json: format {found:?} is not known, this reader knows {known:?}")]
    UnknownFormat { found: String, known: &'static str },
    #[error("manifest.json: {problem}")]
    Manifest { problem: String },
    #[error("manifest.json: is for model {actual:?}, expected {expected:?}")]
    WrongName { expected: String, actual: String },
    #[error("manifest.json: epoch {actual} is older than the floor {floor}")]
    StaleEpoch { floor: u64, actual: u64 },
    #[error("manifest.json: the key is not {key_id}, which this package was sealed with")]
    WrongKey { key_id: String },
    #[error("{file}: {actual} bytes, expected {expected}")]
    Size {
        file: String,
        expected: u64,
        actual: u64,
    },
    #[error("{file}: {actual} bytes, more than the {max} allowed")]
    TooLarge { file: String, max: u64, actual: u64 },
    /// Altered, moved from another place or package, cut short, or sealed with another key: a tag cannot tell which.
    #[error(
        "{file}: segment {segment} is not what was sealed for this model, epoch, file and place"
    )]
    Segment { file: String, segment: u32 },
    #[error("{file}: SHA-256 {actual}, expected {expected}")]
    Digest {
        file: String,
        expected: crate::Sha256Digest,
        actual: crate::Sha256Digest,
    },

    #[error("model signature: {problem}")]
    ModelSignature { problem: String },
    /// A file of a model directory is not what its signature says.
    #[error("{file}: {problem}")]
    ModelFile { file: String, problem: &'static str },

    // The caller's own input: fix it and call again.
    #[error("{file}: refused: {reason}")]
    Rejected {
        file: String,
        #[source]
        reason: Rejection,
    },
    #[error("no weights found: a model directory holds .safetensors or .gguf files")]
    NoWeights,
    #[error("more than {max} files in the model directory")]
    TooManyFiles { max: usize },
    #[error(
        "model name {name:?}: use 1 to 64 ASCII letters, digits, '.', '_' or '-', starting with a letter or digit"
    )]
    ModelName { name: String },
    #[error("epoch {epoch}: use 1 to {max}")]
    Epoch { epoch: u64, max: u64 },
    #[error("epoch {epoch}: use more than {old}, which the package has")]
    NotNewer { epoch: u64, old: u64 },
    #[error("{what}: {problem}")]
    Key {
        what: &'static str,
        problem: &'static str,
    },
    #[error("{}: exists already", path.display())]
    OutputExists { path: PathBuf },
    #[error("{}: another run is at work there", path.display())]
    Busy { path: PathBuf },
    #[error("{}: cannot {action}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{file}: not a file of this package")]
    NoSuchFile { file: String },
    #[error("{file}: bytes {offset}..+{len} are outside its {size}")]
    OutOfRange {
        file: String,
        offset: u64,
        len: u64,
        size: u64,
    },

    /// A primitive failed that cannot fail with the arguments it was given.
    #[error("internal: {0}")]
    Internal(&'static str),
}

/// Who must act on an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The source may deliver later: retry, within bounds.
    Unavailable,
    /// The package failed a check: final.
    Refused,
    /// The caller's arguments, keys or model directory.
    Invalid,
    /// A bug here.
    Internal,
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Envelope { .. }
            | Self::UnknownPublisher { .. }
            | Self::Signature { .. }
            | Self::UnknownFormat { .. }
            | Self::Manifest { .. }
            | Self::WrongName { .. }
            | Self::StaleEpoch { .. }
            | Self::WrongKey { .. }
            | Self::Size { .. }
            | Self::TooLarge { .. }
            | Self::Segment { .. }
            | Self::Digest { .. }
            | Self::ModelSignature { .. }
            | Self::ModelFile { .. } => ErrorKind::Refused,
            Self::Rejected { .. }
            | Self::NoWeights
            | Self::TooManyFiles { .. }
            | Self::ModelName { .. }
            | Self::Epoch { .. }
            | Self::NotNewer { .. }
            | Self::Busy { .. }
            | Self::Key { .. }
            | Self::OutputExists { .. }
            | Self::Io { .. }
            | Self::NoSuchFile { .. }
            | Self::OutOfRange { .. } => ErrorKind::Invalid,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// True where a later attempt may succeed.
    pub fn is_retryable(&self) -> bool {
        self.kind() == ErrorKind::Unavailable
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Unavailable { source, .. } | Error::Io { source, .. } => source.kind(),
            Error::NoSuchFile { .. } => io::ErrorKind::NotFound,
            other => match other.kind() {
                ErrorKind::Refused => io::ErrorKind::InvalidData,
                ErrorKind::Invalid => io::ErrorKind::InvalidInput,
                ErrorKind::Unavailable | ErrorKind::Internal => io::ErrorKind::Other,
            },
        };
        Self::new(kind, error)
    }
}
