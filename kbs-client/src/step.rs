//! What has been done so far, for whoever watches an exchange.

use std::fmt;
use std::sync::Arc;

/// Called after each step of a key release, in order; an attempt that fails and is repeated begins anew.
pub type Observer = Arc<dyn Fn(Step) + Send + Sync>;

/// One step of a key release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// TCP or vsock, and TLS with the server's identity checked. By passport there are two of these.
    Connection,
    /// A nonce was given.
    Challenge,
    /// A recipient key was made, and our platform's document over it and the nonce.
    Evidence,
    /// The broker accepted the evidence.
    Attested,
    /// The broker accepted the evidence and made a token of it.
    Token,
    /// The resource arrived and was opened with the recipient key.
    Resource,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "connected, identity checked",
            Self::Challenge => "challenge received",
            Self::Evidence => "evidence made",
            Self::Attested => "evidence accepted",
            Self::Token => "evidence accepted, token received",
            Self::Resource => "resource received and opened",
        })
    }
}
