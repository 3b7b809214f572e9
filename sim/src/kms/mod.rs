//! AWS KMS as an enclave sees it: JSON 1.1 over TLS, signatures (SigV4) checked, key policies on verified documents, answers in
//! the service's own form.
//!
//! What it takes from the service: the shapes and names of requests, answers and errors; that a document is verified (chain,
//! signature, certificates' times) and then judged by its registers and its public key alone, so a replayed one is as good as a
//! new one; that a caller without a document gets plaintext wherever a policy lets him. What it does not have: IAM policies,
//! grants, aliases, key rotation, other operations than the three below.
//!
//! | operation | |
//! |---|---|
//! | `Encrypt` | symmetric |
//! | `Decrypt`, `GenerateDataKey` | symmetric, with or without `Recipient` |

mod auth;
mod cms;
mod keys;
mod operations;
mod policy;
mod refusal;
mod server;
mod tls;

#[cfg(test)]
mod tests;

pub use policy::{KeyPolicy, PolicyError};
pub use server::{Event, KeySetup, KmsError, KmsHandle, KmsServer, KmsSetup, Principal, Spoil};
pub use tls::KmsTls;
