//! The local key broker: releases secrets and identities to software that proves what it is.
//!
//! ```text
//! peer ─TLS 1.3─► api ─► desk ─► sessions, evidence, policy, store, issuer ─► release log ─► answer
//! ```
//!
//! # Layout
//! - `api`: one file per endpoint of RCAR 0.4.0 and of SVID issuance. `refusal`: what a refused peer is told.
//! - `desk`: runs each decision, logs it, and only then answers.
//! - `evidence`, `tee_key`, `appraisal`, `token`, `policy`, `jwe`: from evidence to a secret wrapped to its key.
//! - `issuer`: from a measurement to an X.509-SVID, by the built-in authority or by SPIRE.
//! - `store`: SQLite, the vault over it, and the release log with its one writer, chain and signed checkpoints.
//! - `config`, `server`, `offline`, `dry_run`, `init`, `cli`: the program.

mod admin;
mod api;
mod appraisal;
pub mod cli;
mod config;
mod desk;
mod dry_run;
mod error;
mod evidence;
mod init;
mod issuer;
mod jwe;
mod metrics;
pub mod offline;
mod policy;
mod refusal;
mod server;
mod session;
mod store;
mod tee_key;
mod token;

pub use config::{
    Admin, Config, ConfigError, Issuer, JoinToken, Limits, Log, Mapping, Spire, SpireMint, Tls,
    Token, X509Pop,
};
pub use error::Error;
pub use init::init;
pub use issuer::spire::SpireError;
pub use refusal::Kind;
pub use server::{Server, run};
pub use store::{Audited, Broken, Entry, LogPublicKey, NoteError, Outcome, Record, StoreError};
