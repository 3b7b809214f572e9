//! How many decisions that let nothing out the release log lists one by one. The rest is counted, so that nobody can
//! fill the disk. What was released, issued or changed is always listed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::entry::{NewEntry, Outcome};

/// Peers without fresh evidence: everybody who reaches the port. At once, and each second.
const STRANGERS: (f64, f64) = (200.0, 2.0);
/// Peers with evidence for a challenge of ours, so with some enclave under the trust anchor; under AWS's that is
/// whoever rents one, and no more than these are worth reading.
const ATTESTED: (f64, f64) = (1000.0, 10.0);

pub(super) struct Throttle {
    strangers: Mutex<Bucket>,
    attested: Mutex<Bucket>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            strangers: Mutex::new(Bucket::new(STRANGERS)),
            attested: Mutex::new(Bucket::new(ATTESTED)),
        }
    }
}

impl Throttle {
    /// How many were only counted since the last listed one of the kind, if `entry` may be listed.
    pub(super) fn admit(&self, entry: &NewEntry<'_>) -> Option<u64> {
        let bucket = match (entry.outcome, entry.facts.fresh) {
            (Outcome::Refused, false) => &self.strangers,
            (Outcome::Refused | Outcome::Attested, _) => &self.attested,
            _ => return Some(0),
        };
        bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit()
    }
}

struct Bucket {
    burst: f64,
    rate: f64,
    tokens: f64,
    at: Option<Instant>,
    suppressed: u64,
}

impl Bucket {
    fn new((burst, rate): (f64, f64)) -> Self {
        Self {
            burst,
            rate,
            tokens: burst,
            at: None,
            suppressed: 0,
        }
    }

    fn admit(&mut self) -> Option<u64> {
        let now = Instant::now();
        let passed = self
            .at
            .replace(now)
            .map_or(Duration::ZERO, |before| now - before);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate).min(self.burst);
        if self.tokens < 1.0 {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.suppressed))
    }
}
