//! The only place where plaintext exists: TLS ends here, the policy decides here, the model computes here.
//!
//! # Layout
//! - `config`: the one measured file. `boot`: the numbered steps from nothing to listening. `clock`: what time is counted by.
//! - `host_files`: sealed model files from the hostile host. `models`: what was opened from them.
//! - `keys`: their data keys, from the broker or from AWS KMS.
//! - `tls`: sessions and what is known about them. `authz`: the policy, and the permits that the models require.
//! - `api`: the OpenAI-compatible endpoints and `POST /v1/attestation`. `rate`: how often a caller may ask.
//! - `control`: health, readiness and metrics for the host. `renewal`: the next SVID before this one ends. `reload`: the next
//!   generation of models beside the current one.

use std::sync::Arc;
use std::time::SystemTime;

use attestation::Attester;

mod api;
pub mod authz;
mod boot;
mod clock;
pub mod config;
mod control;
mod error;
mod host_files;
mod keys;
pub mod log;
mod memory;
mod metrics;
mod model_files;
mod models;
mod process;
mod rate;
mod reload;
mod renewal;
mod serve;
mod tls;

pub use clock::check_clock_source;
pub use config::{Config, ConfigError};
pub use error::Error;
pub use host_files::HostFiles;
pub use model_files::PlainFiles;
pub use process::{Failure, install_crypto, termination};
pub use serve::run;

/// The wall clock, as `main` provides it.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What the machine provides: evidence, and the time.
#[derive(Clone)]
pub struct Platform {
    pub attester: Arc<dyn Attester>,
    pub now: Clock,
}
