//! What can be wrong with the host's answer.

use std::io;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
#[error("the host's file {file}: {failure}")]
pub(super) struct ReadError {
    pub(super) file: String,
    pub(super) failure: Failure,
}

/// What the host did wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("the connection broke before an answer came: {0}")]
    Unanswered(io::Error),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("not an HTTP/1.1 answer")]
    NotHttp,
    #[error("no byte came for {} s", .0.as_secs_f32())]
    Stalled(Duration),
    #[error("not read within {} s", .0.as_secs_f32())]
    Deadline(Duration),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("gave no size")]
    NoLength,
    #[error("claims a size of {0} bytes")]
    Size(u64),
    #[error("is shorter than the range asked for")]
    Short,
    #[error("answered with another range than asked for")]
    Range,
    #[error("answered with another length than asked for")]
    Length,
    #[error("sent more bytes than announced")]
    TooLong,
    #[error("ended before all bytes had come")]
    Cut,
    #[error("the offset is out of range")]
    Offset,
    #[error("no connection became free")]
    Busy,
}

impl Failure {
    /// Whether another attempt may help. A lie is not tried again.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Connect(_)
            | Self::Unanswered(_)
            | Self::Broken(_)
            | Self::NotHttp
            | Self::Stalled(_)
            | Self::Cut => true,
            Self::Status(status) => *status == 429 || *status >= 500,
            _ => false,
        }
    }

    pub(super) fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Connect(error) => error.kind(),
            Self::Stalled(_) | Self::Deadline(_) | Self::Busy => io::ErrorKind::TimedOut,
            Self::Unanswered(_) | Self::Broken(_) | Self::Cut => io::ErrorKind::ConnectionAborted,
            Self::Status(404) => io::ErrorKind::NotFound,
            Self::Short => io::ErrorKind::UnexpectedEof,
            Self::Offset => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::InvalidData,
        }
    }
}
