//! The caller's side: verifies, then speaks.
//!
//! - [`connect`] opens one TLS connection to an enclave and returns an [`AttestedSession`] only after every check of the
//!   [`Policy`] has passed on *that* connection. A connection without a verdict has no method that sends a request.
//! - [`run`] is the local OpenAI-compatible proxy on top: it listens on loopback, keeps a verified session, and forwards.
//!
//! The order of the checks, and why each is there, is written down in `docs/verifying.md`; the steps carry the same
//! numbers in [`Step`], `session.rs` and `verify.rs`.

mod body;
mod challenge;
pub mod check;
mod config;
mod error;
mod local;
mod metrics;
pub mod policy;
mod pool;
mod proxy;
mod report;
mod run;
mod session;
mod verify;
mod workload;

pub use body::{BoxError, SessionBody};
pub use config::{Config, ConfigError, Limits};
pub use error::{Error, Step};
pub use policy::{Fleet, History, ModelRule, Policy, PolicyError, ServerIds};
pub use run::{RunError, run, termination};
pub use session::{AttestedSession, ConnectOptions, Unsent, connect};
pub use verify::Verdict;

/// The time that evidence and certificates are checked against. It enters through `main`.
pub type Now = std::sync::Arc<dyn Fn() -> std::time::SystemTime + Send + Sync>;
