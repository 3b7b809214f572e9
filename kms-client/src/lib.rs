//! One data key from AWS KMS, by proving what we are.
//!
//! ```text
//! Kms ─TLS 1.3, roots compiled in or measured─► KMS
//!   decrypt   fresh RSA key ► document(key) ► Decrypt(key ARN, ciphertext, context, Recipient) ► envelope ► open
//! ```
//!
//! The gate is the key's policy, which looks at the document; this client only takes care that nothing but the answer to its own
//! request is believed: TLS says that KMS answered (an envelope authenticates nobody), the answer names the configured key, the
//! context names the model, and what comes out is checked against the signed manifest by whoever uses it.
//!
//! # Layout
//! - `kms`: the three calls. `recipient`, `envelope`, `ber`: the key that is answered to, and the strict reader of the answer.
//! - `wrapped`: how a wrapped key travels. `arn`: which key.
//! - `credentials`, `sigv4`: who asks. `tls`, `http`, `refusal`, `retry`: the way there and back.
#![warn(missing_docs)]

mod arn;
mod ber;
mod credentials;
mod envelope;
mod error;
mod http;
mod kms;
mod recipient;
mod refusal;
mod retry;
pub mod sigv4;
mod tls;
mod wrapped;

use std::sync::Arc;
use std::time::SystemTime;

pub use arn::{ArnError, KeyArn};
pub use credentials::{
    CredentialSource, Credentials, HostCredentials, MAX_CREDENTIALS, NoCredentials,
};
pub use envelope::{Envelope, MAX_ENVELOPE, NoEnvelope};
pub use error::{Error, Unavailable};
pub use kms::{Kms, KmsConfig, Secret};
pub use recipient::{OpenError, RecipientKey};
pub use tls::{Roots, RootsError};
pub use wrapped::{
    EncryptionContext, FORMAT, MAX_WRAPPED_KEY, WRAPPED_KEY, WrappedKey, WrappedKeyError,
};

/// The clock, as `main` provides it.
pub type Now = Arc<dyn Fn() -> SystemTime + Send + Sync>;
