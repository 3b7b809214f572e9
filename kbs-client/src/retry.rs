//! Trying again: only what may pass by itself, a fixed number of times.

use std::future::Future;
use std::time::Duration;

use tokio::time::sleep;

use crate::error::{Error, Failure};

/// With the waits below, a broker that restarts within four seconds is not noticed.
const ATTEMPTS: u32 = 5;
/// Doubled after each attempt.
const FIRST_WAIT: Duration = Duration::from_millis(250);

pub(crate) async fn with_backoff<T, F>(attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Failure>>,
{
    from(FIRST_WAIT, attempt).await
}

async fn from<T, F>(mut wait: Duration, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut attempts = 1;
    loop {
        let reason = match attempt().await {
            Ok(value) => return Ok(value),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Again(reason)) => reason,
        };
        if attempts == ATTEMPTS {
            return Err(Error::Unavailable { attempts, reason });
        }
        tracing::warn!(attempt = attempts, %reason, "broker not available");
        sleep(jittered(wait)).await;
        wait = wait.saturating_mul(2);
        attempts += 1;
    }
}

/// Three quarters to one whole of `wait`, so that a fleet that lost its broker does not come back in step.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0_u8];
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        return wait;
    }
    wait.mul_f64(0.75 + f64::from(random[0]) / 1024.0)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Unavailable;

    #[tokio::test]
    async fn what_may_pass_is_tried_a_bounded_number_of_times() {
        let tried = Cell::new(0);
        let outcome: Result<(), _> = from(Duration::ZERO, || {
            tried.set(tried.get() + 1);
            async { Err(Unavailable::Status(503).into()) }
        })
        .await;
        assert!(matches!(
            outcome,
            Err(Error::Unavailable {
                attempts: ATTEMPTS,
                ..
            })
        ));
        assert_eq!(tried.get(), ATTEMPTS);
    }

    #[tokio::test]
    async fn a_refusal_is_not_asked_for_twice() {
        let tried = Cell::new(0);
        let outcome: Result<(), _> = from(Duration::ZERO, || {
            tried.set(tried.get() + 1);
            async {
                Err(Error::Refused {
                    kind: "PolicyDeny".to_owned(),
                }
                .into())
            }
        })
        .await;
        assert!(matches!(outcome, Err(Error::Refused { .. })));
        assert_eq!(tried.get(), 1);
    }
}
