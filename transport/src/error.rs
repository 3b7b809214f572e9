use std::io;

use crate::Endpoint;

/// Why a string is not an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// None of the four schemes.
    #[error(
        "{0:?} is not an endpoint: write vsock://CID:PORT, hvsock:///PATH:PORT, unix:///PATH or tcp://HOST:PORT"
    )]
    Scheme(String),
    /// The port, or its colon, is missing or no number of the right size.
    #[error("{0:?} does not end in a port number")]
    Port(String),
    /// The vsock context identifier is no 32-bit number (and not `any`).
    #[error("{0:?} does not name a vsock context identifier: a number, or `any`")]
    Cid(String),
    /// The path is relative, or holds a NUL byte.
    #[error("{0:?} does not name an absolute path")]
    Path(String),
    /// The host part of a tcp endpoint is missing.
    #[error("{0:?} does not name a host")]
    Host(String),
}

/// What was tried on which endpoint; the kind of the io error is kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {endpoint}: {reason}")]
struct AtEndpoint {
    verb: &'static str,
    endpoint: Endpoint,
    reason: io::Error,
}

/// An `io::Error` that names its endpoint: "permission denied" alone helps nobody.
pub(crate) fn at(verb: &'static str, endpoint: &Endpoint, reason: io::Error) -> io::Error {
    io::Error::new(
        reason.kind(),
        AtEndpoint {
            verb,
            endpoint: endpoint.clone(),
            reason,
        },
    )
}
