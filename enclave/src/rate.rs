//! How often one caller may ask. The caller is its SPIFFE ID; how many are remembered is bounded.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue};
use identity::SpiffeId;

#[cfg(test)]
mod tests;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// A token bucket per caller.
pub(crate) struct Rate {
    limiter: RateLimiter<
        SpiffeId,
        DashMapStateStore<SpiffeId>,
        DefaultClock,
        StateInformationMiddleware,
    >,
    clock: DefaultClock,
    quota: Quota,
    max_callers: usize,
}

/// What is left of a caller's allowance after an accepted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    limit: u32,
    remaining: u32,
    reset: Duration,
}

/// The caller has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) wait: Duration,
    limit: u32,
}

impl Rate {
    pub(crate) fn new(requests_per_minute: u32, burst: u32, max_callers: usize) -> Self {
        let per_minute = NonZeroU32::new(requests_per_minute).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_minute(per_minute)
            .allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN));
        let clock = DefaultClock::default();
        let limiter = RateLimiter::dashmap_with_clock(quota, clock.clone())
            .with_middleware::<StateInformationMiddleware>();
        Self {
            limiter,
            clock,
            quota,
            max_callers,
        }
    }

    /// Counts one request of `caller`.
    pub(crate) fn check(&self, caller: &SpiffeId) -> Result<Allowance, Exceeded> {
        let limit = self.quota.burst_size().get();
        if self.limiter.len() >= self.max_callers {
            self.limiter.retain_recent();
            // Still full of callers that are active right now: nobody new until one of them rests.
            if self.limiter.len() >= self.max_callers {
                return Err(Exceeded {
                    wait: self.quota.replenish_interval(),
                    limit,
                });
            }
        }
        match self.limiter.check_key(caller) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let missing = limit.saturating_sub(remaining);
                let reset = self.quota.replenish_interval().saturating_mul(missing);
                Ok(Allowance {
                    limit,
                    remaining,
                    reset,
                })
            }
            Err(until) => Err(Exceeded {
                wait: until.wait_time_from(self.clock.now()),
                limit,
            }),
        }
    }

    /// Forgets callers whose allowance is full again.
    pub(crate) fn upkeep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

impl Allowance {
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        write(headers, self.limit, self.remaining, self.reset);
    }
}

impl Exceeded {
    /// For `Retry-After`: whole seconds, never zero.
    pub(crate) fn seconds(self) -> u64 {
        self.wait
            .as_secs()
            .saturating_add(u64::from(self.wait.subsec_nanos() > 0))
            .max(1)
    }

    pub(crate) fn write(self, headers: &mut HeaderMap) {
        write(headers, self.limit, 0, self.wait);
    }
}

fn write(headers: &mut HeaderMap, limit: u32, remaining: u32, reset: Duration) {
    headers.insert(LIMIT, limit.into());
    headers.insert(REMAINING, remaining.into());
    let reset = format!("{}ms", reset.as_millis());
    if let Ok(value) = HeaderValue::from_str(&reset) {
        headers.insert(RESET, value);
    }
}
