//! Trying again: only what may pass by itself, a fixed number of times.

use std::future::Future;
use std::time::Duration;

use tokio::time::sleep;
use transport::jittered;

use crate::error::{Error, Failure};

/// With the waits below, four seconds of nothing are not noticed.
const ATTEMPTS: u32 = 5;
/// Doubled after each attempt.
const FIRST_WAIT: Duration = Duration::from_millis(250);

pub(crate) async fn with_backoff<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut wait = FIRST_WAIT;
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
        tracing::warn!(attempt = attempts, %reason, "KMS not available");
        sleep(jittered(wait)).await;
        wait = wait.saturating_mul(2);
        attempts += 1;
    }
}
