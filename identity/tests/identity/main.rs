//! Each SPIFFE rule broken once, and the handshakes that rest on them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a failure is the report"
)]

mod chain;
mod document;
mod federation;
mod handshake;
mod issuing;
mod leaf_rules;
mod support;
