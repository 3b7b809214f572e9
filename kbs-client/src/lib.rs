//! One data key and one X.509-SVID from the key broker, by proving what we are.
//!
//! ```text
//! Broker ─TLS 1.3, exact SPIFFE ID of the broker, measured bundle─► kbs
//!   data_key   auth ► nonce ► evidence(nonce, fresh recipient key) ► attest ► JWE ► open
//!    by passport                              ► token ─TLS, host name, measured root─► trustee ► JWE ► open
//!   issue_svid challenge ► nonce ► evidence(nonce, fresh P-256 key, CSR) ► chain ► check again
//! ```
//!
//! The bytes between us and the broker pass through a hostile host. TLS ends here and at the broker; the JWE says only
//! that the sender knew our public key, so who sent it is TLS's to prove.
//!
//! # Layout
//! - `broker`: the two exchanges. `rcar` and `svid`: what goes over the wire in each.
//! - `jwe`, `tee_key`: the recipient key and the strict reader of what is wrapped to it.
//! - `server`: who is asked and how it proves itself. `retry`: when, and whom, to ask again.
//! - `http`: one connection, every wait and every body bounded.
#![warn(missing_docs)]

mod broker;
mod error;
mod http;
mod jwe;
mod rcar;
mod retry;
mod server;
mod step;
mod svid;
mod tee_key;

pub use broker::{Broker, BrokerFuture, KeyBroker, KeyBytes};
pub use error::{Error, Unavailable};
pub use jwe::{JweError, open};
pub use rcar::{PROTOCOL_VERSION, TEE, runtime_data_digest};
pub use server::{Server, ServerIdentity};
pub use step::{Observer, Step};
pub use tee_key::{Jwk, TeeKey};
