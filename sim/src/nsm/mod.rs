//! A simulated Nitro Secure Module: true COSE_Sign1 documents with a five-certificate chain, under a root made for the
//! run. Verifiers run unchanged; the trust anchor is the only difference, and AWS's refuses all of this.
//!
//! What it does not simulate is the point of the real one: nothing here measures what actually runs, and whoever holds
//! the [`SimPki`] can claim anything.

mod document;
mod error;
mod measure;
mod module;
mod pki;
mod rank;

pub use document::DocumentBuilder;
pub use error::PkiError;
pub use measure::measure;
pub use module::SimNsm;
pub use pki::{SimLeaf, SimPki, revocation_list};
pub use rank::{INSTANCE_ID, Rank};

#[cfg(test)]
mod tests;
