//! SPIFFE X.509-SVID rules and TLS 1.3-only rustls configurations.
//!
//! - [`leaf`] reads one certificate and applies every rule an X.509-SVID has to meet by itself.
//! - [`TrustBundles`] holds the CA certificates per trust domain and checks a whole chain.
//! - [`BundleDocument`] is a bundle as it is written down; [`federation`] fetches that of another trust domain.
//! - [`Svid`] and [`Credentials`] are our own side: a chain with its key, swappable while configurations stay.
//! - [`server_config`] and [`client_config`] build the only two TLS configurations the project uses.
//! - [`server_facts`] and [`client_facts`] read from a finished handshake what evidence is bound to.
//! - [`issue`] makes certificates: development authorities, the key broker's issuer, tests.
//!
//! There is no permissive default: who is accepted ([`Accept`]) is always an argument.

mod bundle;
mod clock;
mod credentials;
mod document;
mod error;
pub mod federation;
pub mod issue;
mod leaf;
pub mod pem;
mod proven;
mod session;
mod svid;
mod tls;
mod verifier;

pub use spiffe::{SpiffeId, TrustDomain};

pub use bundle::{BundleHandle, MAX_CHAIN, TrustBundles};
pub use clock::Clock;
pub use credentials::Credentials;
pub use document::{BundleDocument, MAX_DOCUMENT};
pub use error::{Error, is_about_the_certificate, verdict};
pub use leaf::{Leaf, leaf, other_names};
pub use session::{SessionFacts, client_facts, server_facts};
pub use svid::Svid;
pub use tls::{
    ClientAuth, client_config, client_config_at, provider, server_config, server_name,
    web_client_config,
};
pub use verifier::Accept;
