use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::client::conn::http2;
use tokio::time::{sleep_until, timeout_at};

use super::state::{Shared, Signed};
use crate::Error;
use crate::body::SessionBody;

/// Re-attestation starts this part of the interval before the verdict ends, at most [`MAX_MARGIN`] before.
const MARGIN_PART: u32 = 5;
const MAX_MARGIN: Duration = Duration::from_secs(60);

/// Renews the verdict in band until the connection ends. A renewal that fails, or comes too late, cuts it.
pub(super) async fn run(
    shared: Arc<Shared>,
    sender: http2::SendRequest<SessionBody>,
    verdict: Arc<ArcSwap<Signed>>,
) {
    loop {
        let current = verdict.load_full();
        let renewable = current.verdict.until < shared.channel.server.not_after;
        let margin = (shared.options.policy.reattest / MARGIN_PART).min(MAX_MARGIN);
        if renewable {
            let start = current.deadline.checked_sub(margin);
            sleep_until(start.unwrap_or(current.deadline)).await;
            if !shared.ended.is_cancelled() {
                let renewal = async {
                    shared.check_identity()?;
                    shared.attest(&sender).await
                };
                match timeout_at(current.deadline, renewal).await {
                    Ok(Ok(next)) => {
                        verdict.store(Arc::new(next));
                        continue;
                    }
                    Ok(Err(reason)) => return shared.close(reason),
                    Err(_elapsed) => return shared.close(Error::Expired),
                }
            }
        }
        // No renewal is possible: what is in flight may use the time that is left.
        sleep_until(current.deadline).await;
        return shared.close(Error::Expired);
    }
}
