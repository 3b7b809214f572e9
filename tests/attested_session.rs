//! The caller's side against enclaves that lie, each in one way: nothing but the challenge reaches them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code: a failure is the report, and the wall clock is the one the certificates are made for"
)]

#[path = "attested_session/attacks.rs"]
mod attacks;
#[path = "attested_session/fake_enclave.rs"]
mod fake_enclave;
#[path = "attested_session/inspector.rs"]
mod inspector;
#[path = "attested_session/proxy.rs"]
mod proxy;
#[path = "attested_session/renewal.rs"]
mod renewal;
#[path = "attested_session/verdicts.rs"]
mod verdicts;
