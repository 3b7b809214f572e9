use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::client::conn::http2;
use tokio::time::{sleep, sleep_until, timeout_at};

use super::state::{Shared, Signed};
use crate::Error;
use crate::body::SessionBody;

/// Re-attestation starts this part of the interval before the verdict ends, at most [`MAX_MARGIN`] before.
const MARGIN_PART: u32 = 5;
/// Pauses between the questions to a busy enclave that fit into the margin.
const RETRY_PART: u32 = 10;
const MAX_MARGIN: Duration = Duration::from_secs(60);

/// How late an end that only the wall clock shows may be noticed.
const WATCH: Duration = Duration::from_secs(1);

/// Renews the verdict in band until the connection ends. A renewal that fails, or comes too late, cuts it.
pub(super) async fn run(
    shared: Arc<Shared>,
    sender: http2::SendRequest<SessionBody>,
    verdict: Arc<ArcSwap<Signed>>,
) {
    let reason = tokio::select! {
        reason = renewals(&shared, &sender, &verdict) => reason,
        () = outlived(&shared, &verdict) => Error::Expired,
    };
    shared.close(reason);
}

/// Renews by the monotonic clock; gives the reason for which the connection has to end.
async fn renewals(
    shared: &Shared,
    sender: &http2::SendRequest<SessionBody>,
    verdict: &ArcSwap<Signed>,
) -> Error {
    loop {
        let current = verdict.load_full();
        let renewable = current.verdict.until < current.verdict.last;
        let margin = (shared.options.policy.reattest / MARGIN_PART).min(MAX_MARGIN);
        if renewable {
            let start = current.deadline.checked_sub(margin);
            sleep_until(start.unwrap_or(current.deadline)).await;
            if !shared.ended.is_cancelled() {
                let renewal = renew(shared, sender, margin / RETRY_PART);
                match timeout_at(current.deadline, renewal).await {
                    Ok(Ok(next)) => {
                        verdict.store(Arc::new(next));
                        continue;
                    }
                    // The peer said goodbye meanwhile: that is no verdict on it.
                    Ok(Err(reason)) if reason.step().is_none() && shared.ended.is_cancelled() => {}
                    Ok(Err(reason)) => return reason,
                    Err(_elapsed) => return Error::Expired,
                }
            }
        }
        // No renewal is possible: what is in flight may use the time that is left.
        sleep_until(current.deadline).await;
        return Error::Expired;
    }
}

/// Ends with the verdict by the wall clock, which runs ahead of the other after the machine has slept.
async fn outlived(shared: &Shared, verdict: &ArcSwap<Signed>) {
    while (shared.options.now)() < verdict.load().verdict.until {
        sleep(WATCH).await;
    }
}

/// One new verdict. A busy enclave is asked again, within the time that is left; a check that fails is final.
async fn renew(
    shared: &Shared,
    sender: &http2::SendRequest<SessionBody>,
    pause: Duration,
) -> Result<Signed, Error> {
    loop {
        shared.check_identity()?;
        match shared.attest(sender).await {
            Err(Error::Timeout { .. } | Error::ChallengeRefused { status: 429 | 503 }) => {
                sleep(pause).await;
            }
            done => return done,
        }
    }
}
