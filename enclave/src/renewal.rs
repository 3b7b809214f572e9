//! The next identity before this one ends: at half its life, with a new key and new evidence. If none comes, the old one
//! ends, new handshakes fail and the enclave is no longer ready; nothing is served on an expired identity.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Credentials, Leaf, SpiffeId};
use kbs_client::KeyBroker;
use tokio::time::sleep;

use crate::Clock;
use crate::error::chain;
use crate::metrics::Metrics;

#[cfg(test)]
mod tests;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Renews for as long as it is polled.
pub(crate) async fn keep(
    broker: Arc<dyn KeyBroker>,
    id: SpiffeId,
    credentials: Arc<Credentials>,
    metrics: Arc<Metrics>,
    now: Clock,
) {
    loop {
        let pause = credentials
            .leaf()
            .map(|leaf| until_half_life(&leaf, now()))
            .unwrap_or_default();
        // What was just issued may be past its middle already, where clocks differ or the issuer's own certificate ends
        // soon: without a pause the broker would be asked again and again.
        sleep(pause.max(FIRST_PAUSE)).await;
        renew(broker.as_ref(), &id, &credentials, &metrics).await;
    }
}

/// Tries until a new identity is in place.
async fn renew(
    broker: &dyn KeyBroker,
    id: &SpiffeId,
    credentials: &Credentials,
    metrics: &Metrics,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        match broker.issue_svid(id).await {
            Ok(svid) => {
                metrics.renewal(true);
                metrics.svid_expiry(svid.leaf().not_after);
                tracing::info!(serial = svid.leaf().serial, "identity renewed");
                credentials.install(svid);
                return;
            }
            Err(error) => {
                metrics.renewal(false);
                tracing::warn!(
                    error = chain(&error),
                    retry_s = pause.as_secs(),
                    "the identity was not renewed"
                );
                sleep(pause).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// From `now` to the middle of the certificate's life; nothing if that has passed.
fn until_half_life(leaf: &Leaf, now: SystemTime) -> Duration {
    let life = leaf
        .not_after
        .duration_since(leaf.not_before)
        .unwrap_or_default();
    leaf.not_before
        .checked_add(life / 2)
        .and_then(|middle| middle.duration_since(now).ok())
        .unwrap_or_default()
}
