//! One [`Stream`] and [`Listener`] over vsock, hybrid vsock, unix and tcp, and the one HTTP accept loop of the project.
//!
//! The same program runs in a Nitro enclave, in a Firecracker guest, and on a laptop: only its endpoints differ.
//! This crate knows no TLS, no identity and no evidence; who may speak is decided above it.

mod endpoint;
mod error;
mod hybrid;
mod jitter;
mod listener;
mod serve;
mod stream;

pub use endpoint::Endpoint;
pub use error::EndpointError;
pub use jitter::jittered;
pub use listener::{AcceptBackoff, Listener};
pub use serve::{HttpService, ServeLimits, serve, serve_with_turnover};
pub use stream::Stream;
