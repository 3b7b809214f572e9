use attestation::AttestError;

use crate::arn::KeyArn;
use crate::recipient::OpenError;

/// Why KMS gave no key, by who must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// KMS decided against us. Final: asking again gives the same answer until a policy or a key is changed.
    #[error("KMS refused: {kind}{}{message}", if message.is_empty() { "" } else { ": " })]
    Refused {
        /// The service's error type, such as `AccessDeniedException`; letters and digits only.
        kind: String,
        /// The service's sentence, printable and shortened. It names the caller and the key.
        message: String,
    },
    /// No usable answer, after the last of `attempts`. Worth trying again later.
    #[error("KMS is not available after {attempts} attempts: {reason}")]
    Unavailable {
        /// How often it was tried.
        attempts: u32,
        /// What happened the last time.
        reason: Unavailable,
    },
    /// The answer is not one of KMS. Worth a report.
    #[error("the answer is malformed: {what}")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// The answer names another key than the one asked for.
    #[error("the answer is from another key than {expected}")]
    AnotherKey {
        /// As configured.
        expected: KeyArn,
    },
    /// The answer held the key in the clear, as KMS gives it to a caller without a document.
    #[error("the answer holds the key in the clear: the secret is no longer one, make a new epoch")]
    PlaintextReturned,
    /// The envelope was not made for us, or not rightly.
    ///
    /// One text for all, since a host reads the log; a program may tell them apart.
    #[error("the envelope in the answer was not made for us, or not rightly")]
    Envelope(OpenError),
    /// Our own platform made no evidence.
    #[error("no evidence could be made")]
    Attester(#[from] AttestError),
    /// Something of ours that cannot work.
    #[error("{0}")]
    Setup(&'static str),
}

/// Why one attempt came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// Nothing answers there, or the connection broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Somebody answers, with a certificate that is not KMS's.
    #[error("the peer is not KMS: {0}")]
    Tls(std::io::Error),
    /// HTTP came to no end.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// A wait ended.
    #[error("no {0} in time")]
    Timeout(&'static str),
    /// An answer over the limit.
    #[error("the answer is too long")]
    TooLong,
    /// The service, or the host's credentials listener, says that it cannot serve now.
    #[error("{who} answered with status {status}")]
    Status {
        /// Who.
        who: &'static str,
        /// HTTP status.
        status: u16,
    },
    /// The credentials have expired, or AWS does not know them.
    #[error("AWS does not take the credentials: {0}")]
    CredentialsRefused(String),
    /// The host's answer.
    #[error("the host gave no credentials: does [credentials] of its configuration name a source?")]
    Credentials,
    /// The service asks for patience.
    #[error("KMS asks to wait: {0}")]
    Busy(String),
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
