use std::time::Duration;

use attestation::AttestError;

/// Why there is no key and no SVID, by who must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker decided against us. Final: asking again gives the same answer until its owner changes something.
    #[error("the broker refused: {kind}")]
    Refused {
        /// The broker's error type, such as `PolicyDeny`; letters and digits only. The reason is in the broker's log.
        kind: String,
    },
    /// No usable answer, after the last of `attempts`. Worth trying again later.
    #[error("the broker is not available after {attempts} attempts: {reason}")]
    Unavailable {
        /// How often it was tried.
        attempts: u32,
        /// What happened the last time.
        reason: Unavailable,
    },
    /// The broker, or a host in its place, answered what the protocol does not allow. Worth a report.
    #[error("the broker's answer is malformed: {what}")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// Our own platform made no evidence.
    #[error("no evidence could be made")]
    Attester(#[from] AttestError),
    /// What was asked for cannot exist: a key identifier that is no resource path, or an unusable SPIFFE ID.
    #[error("{0}")]
    Request(&'static str),
}

/// Why one attempt came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// Nothing answers there, or the connection broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Somebody answers, but not the broker that our configuration names.
    #[error("the peer is not the broker: {}", verdict(.0))]
    Identity(std::io::Error),
    /// The handshake gave another kind of session than we ask for.
    #[error("{0}")]
    Session(identity::Error),
    /// HTTP came to no end.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// A wait ended.
    #[error("no {0} in time")]
    Timeout(&'static str),
    /// The broker says that it cannot serve now.
    #[error("the broker answered with status {status}")]
    Status {
        /// The HTTP status: 429, or 5xx.
        status: u16,
        /// What it asked us to wait.
        wait: Option<Duration>,
    },
    /// The session ended between two of our requests.
    #[error("the broker forgot our session")]
    Forgotten,
}

/// rustls wraps our own reason in its words; only the reason is of use.
fn verdict(error: &std::io::Error) -> String {
    identity::verdict(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// One attempt's outcome, before [`crate::retry`] decides on another.
#[derive(Debug)]
pub(crate) enum Failure {
    Again(Unavailable),
    Final(Error),
}

impl Failure {
    pub(crate) fn malformed(what: &'static str) -> Self {
        Self::Final(Error::Malformed { what })
    }
}

impl From<Unavailable> for Failure {
    fn from(reason: Unavailable) -> Self {
        Self::Again(reason)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}
