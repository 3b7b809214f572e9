//! Moves ciphertext: relay in, allow-listed egress out, sealed-model files.
//!
//! The host is the untrusted half of a machine. It sees who connects, when and how much, and may refuse to work; it holds no
//! key of a model and ends no TLS. It depends on no crate that knows what evidence, a prompt or a model is.

mod accept;
mod boot;
mod config;
mod control;
mod credentials;
mod enclave;
mod error;
mod forward;
mod meters;
mod models;
mod pipe;
mod run;

pub use config::{
    BootConfig, Config, ConfigError, CredentialsConfig, EgressConfig, Limits, ModelsConfig,
    RelayConfig, TrafficLimits,
};
pub use error::Error;
pub use run::run;
