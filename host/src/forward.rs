use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use transport::{Endpoint, Listener, Stream};

use crate::accept::{Class, accept};
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
        let class = Class {
            name: &forward.class,
            max_connections: forward.limits.max_connections,
            drain: forward.drain,
        };
        let refused = || forward.meters.ended(Ended::Refused);
        let serve = |caller| Arc::clone(&forward).carry(caller);
        accept(listener, class, shutdown, refused, serve).await
    }

    async fn carry(self: Arc<Self>, caller: Stream) {
        let mut open = Open::new(&self.meters);
        match self.target.connect().await {
            Ok(target) => open.ended = pipe(caller, target, self.limits, &self.meters).await,
            Err(e) => {
                tracing::warn!(class = self.class, error = %e, "target unreachable");
                open.ended = Ended::Unreachable;
            }
        }
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
