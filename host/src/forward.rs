use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use transport::{AcceptBackoff, Endpoint, Listener};

use crate::config::TrafficLimits;
use crate::meters::{Ended, ForwardMeters};
use crate::pipe::pipe;

/// One class of connections: everything accepted on one listener goes to one target, as bytes. The relay is one, each
/// egress another; nothing is shared between them.
pub(crate) struct Forward {
    pub(crate) class: String,
    pub(crate) target: Endpoint,
    pub(crate) limits: TrafficLimits,
    pub(crate) drain: Duration,
    pub(crate) meters: ForwardMeters,
}

impl Forward {
    /// Accepts until `shutdown`; what is open then has `drain` to end.
    ///
    /// # Errors
    /// Only when the listener itself is broken.
    pub(crate) async fn run(
        self,
        listener: Listener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let forward = Arc::new(self);
        let slots = Arc::new(Semaphore::new(forward.limits.max_connections));
        let mut connections = JoinSet::new();
        let mut backoff = AcceptBackoff::default();
        let mut shutdown = pin!(shutdown);

        let outcome = loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break Ok(()),
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            let caller = match accepted {
                Ok(caller) => {
                    backoff.succeeded();
                    caller
                }
                Err(e) => {
                    let Some(rest) = backoff.failed(&e) else {
                        break Err(e);
                    };
                    tracing::warn!(class = forward.class, error = %e, "accept failed");
                    tokio::select! {
                        () = &mut shutdown => break Ok(()),
                        () = sleep(rest) => continue,
                    }
                }
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                forward.meters.ended(Ended::Refused);
                tracing::debug!(class = forward.class, "connection limit reached, closing");
                continue;
            };
            let forward = Arc::clone(&forward);
            connections.spawn(async move {
                let mut open = Open::new(&forward.meters);
                match forward.target.connect().await {
                    Ok(target) => {
                        open.ended = pipe(caller, target, forward.limits, &forward.meters).await;
                    }
                    Err(e) => {
                        tracing::warn!(class = forward.class, error = %e, "target unreachable");
                        open.ended = Ended::Unreachable;
                    }
                }
                drop(slot);
            });
        };

        drop(listener);
        let drained = timeout(forward.drain, async {
            while connections.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            let cut = connections.len();
            tracing::warn!(
                class = forward.class,
                connections = cut,
                "drain deadline passed, cutting"
            );
            connections.shutdown().await;
        }
        outcome
    }
}

/// Counts a connection while it is open, and how it ended also when its task is cut.
struct Open<'a> {
    meters: &'a ForwardMeters,
    ended: Ended,
}

impl<'a> Open<'a> {
    fn new(meters: &'a ForwardMeters) -> Self {
        meters.open.increment(1.0);
        Self {
            meters,
            ended: Ended::Shutdown,
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.meters.open.decrement(1.0);
        self.meters.ended(self.ended);
    }
}
