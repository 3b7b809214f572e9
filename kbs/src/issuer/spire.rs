//! A SPIRE server as the authority, in one of two ways.
//!
//! [`Agent`]: this broker is an agent of the server, as any machine's. It gets certificates for the entries below its agent ID and
//! for nothing else; operators see, limit and revoke them as every other entry. For production.
//!
//! [`Mint`]: this broker has the server's private socket and may mint any ID. For development.
//!
//! In both, an agent that held an entry with an enclave's ID would make a key for it outside of the enclave, so that [`Preflight`]
//! looks for such entries at start and before each signature.

mod agent;
mod attestor;
mod call;
mod mint;
mod preflight;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use identity::SpiffeId;
use transport::Endpoint;

pub(crate) use agent::{Agent, AgentSettings};
pub(crate) use attestor::{Attestor, PopKey};
pub(crate) use mint::Mint;
pub(crate) use preflight::{Listing, Preflight};

/// Generated from `proto/`.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/spire.rs"));
}
use pb::spire::api::types;

/// Why SPIRE signed nothing, or must not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpireError {
    // It may go better later.
    /// No connection, or one that broke.
    #[error("{endpoint}: {source}")]
    Unreachable {
        /// The server.
        endpoint: Endpoint,
        /// What the system or TLS said.
        source: std::io::Error,
    },
    /// Nothing came back in time.
    #[error("the server did not answer in time")]
    Timeout,
    /// Enough requests wait for the server already.
    #[error("too many requests wait for the server")]
    Busy,
    /// The server answered with an error.
    #[error("{call}: {code:?}: {message}")]
    Call {
        /// The method.
        call: &'static str,
        /// gRPC's status.
        code: tonic::Code,
        /// The server's words, cut off.
        message: String,
    },
    /// The agent's own certificate ended and could not be renewed.
    #[error("this broker's agent has no valid certificate")]
    NoAgent,

    // The server is not what it should be.
    /// An answer that breaks the protocol or its own promise.
    #[error("the server's {0} is not what was asked for")]
    Malformed(&'static str),
    /// A certificate that is not acceptable.
    #[error("the server's {what}: {source}")]
    Certificate {
        /// Which.
        what: &'static str,
        /// The rule it breaks.
        source: identity::Error,
    },

    // The operator decided so.
    /// The agent may not have this identity.
    #[error(
        "{agent} has no entry for {id}: spire-server entry create -parentID {agent} -spiffeID {id} -selector cloister:enclave"
    )]
    NoEntry {
        /// The enclave's.
        id: SpiffeId,
        /// This broker's.
        agent: SpiffeId,
    },
    /// An entry that would certify more than an identity.
    #[error("entry {entry} for {id} {problem}; remove that")]
    Entry {
        /// Its entry ID.
        entry: String,
        /// The enclave's.
        id: SpiffeId,
        /// What must not be in it.
        problem: &'static str,
    },
    /// Somebody else would get the enclave's identity.
    #[error(
        "entry {entry} gives {id} to {parent}, whose agent would hold a key for it: spire-server entry delete -entryID {entry}"
    )]
    OtherHolder {
        /// Its entry ID.
        entry: String,
        /// The enclave's.
        id: SpiffeId,
        /// Whose.
        parent: String,
    },

    // Ours to mend.
    /// A file that SPIRE's part of the configuration names.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The cryptographic library failed us.
    #[error("no key or request could be made")]
    Key,
}

impl SpireError {
    /// Whether an operator has to change an entry before it can go better.
    pub(crate) fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::NoEntry { .. } | Self::Entry { .. } | Self::OtherHolder { .. }
        )
    }

    /// sysexits.h: 64 configuration, 69 unavailable, 70 bug, 77 denied.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::File { .. } => 64,
            Self::Key => 70,
            Self::NoEntry { .. } | Self::Entry { .. } | Self::OtherHolder { .. } => 77,
            _ => 69,
        }
    }
}

/// An ID as SPIRE's API splits it.
fn split(id: &SpiffeId) -> types::Spiffeid {
    types::Spiffeid {
        trust_domain: id.trust_domain().as_str().to_owned(),
        path: id.path().to_owned(),
    }
}

/// The reverse; compared afterwards, since a path without its slash would become part of the trust domain.
fn joined(id: Option<&types::Spiffeid>) -> Option<SpiffeId> {
    let types::Spiffeid { trust_domain, path } = id?;
    let id = SpiffeId::new(format!("spiffe://{trust_domain}{path}")).ok()?;
    (id.trust_domain().as_str() == trust_domain && id.path() == path).then_some(id)
}
