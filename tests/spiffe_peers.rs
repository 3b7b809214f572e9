//! Our SPIFFE rules, TLS configurations, bundles and development authority against programs and libraries that others wrote:
//! go-spiffe, SPIFFE's reference library, and spiffe-rustls.

#![expect(
    clippy::disallowed_methods,
    reason = "the peers' clock is the system's, so the test's is too"
)]

#[path = "spiffe_peers/authority.rs"]
mod authority;
#[path = "spiffe_peers/bundles.rs"]
mod bundles;
#[path = "spiffe_peers/leaves.rs"]
mod leaves;
#[path = "spiffe_peers/peer.rs"]
mod peer;
#[path = "spiffe_peers/tls.rs"]
mod tls;
