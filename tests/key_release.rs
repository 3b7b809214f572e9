//! The key broker against enclaves that are what they say and against all others: what leaves, what is refused, and
//! that either is in the release log.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failure is the report"
)]

#[path = "key_release/admin.rs"]
mod admin;
#[path = "key_release/appraisals.rs"]
mod appraisals;
#[path = "key_release/broker.rs"]
mod broker;
#[path = "key_release/passport.rs"]
mod passport;
#[path = "key_release/peer.rs"]
mod peer;
#[path = "key_release/probe.rs"]
mod probe;
#[path = "key_release/refusals.rs"]
mod refusals;
#[path = "key_release/releases.rs"]
mod releases;
#[path = "key_release/stock.rs"]
mod stock;
#[path = "key_release/svids.rs"]
mod svids;
#[path = "key_release/trustee.rs"]
mod trustee;
