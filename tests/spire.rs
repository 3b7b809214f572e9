//! Identities against programs that we did not write: a SPIRE server and its agents, and go-spiffe. What issues certificates is
//! real here; what proves an enclave is the simulated secure module.

#![expect(
    clippy::disallowed_methods,
    reason = "SPIRE's clock is the system's, so the test's is too"
)]

#[path = "spire/broker.rs"]
mod broker;
#[path = "spire/issuing.rs"]
mod issuing;
#[path = "spire/server.rs"]
mod server;
#[path = "spire/service.rs"]
mod service;
