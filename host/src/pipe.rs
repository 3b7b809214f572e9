use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use metrics::Counter;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::time::{Instant, sleep};

use crate::config::TrafficLimits;
use crate::meters::{Ended, ForwardMeters};

/// Per direction. All that a reader who is slower than the writer can make us hold, beside the kernel's buffers.
const BUFFER: usize = 16 << 10;

/// How long a connection may go on without a byte once its target has stopped to speak or to listen. Without this a caller
/// that never closes would hold a slot for the whole idle time after the target is gone.
const LINGER: Duration = Duration::from_secs(10);

/// Copies bytes both ways until both sides have closed, one has failed, or a limit is met. A half-close is passed on.
pub(crate) async fn pipe<C, T>(
    caller: C,
    target: T,
    limits: TrafficLimits,
    meters: &ForwardMeters,
) -> Ended
where
    C: AsyncRead + AsyncWrite,
    T: AsyncRead + AsyncWrite,
{
    let (mut from_caller, mut to_caller) = split(caller);
    let (mut from_target, mut to_target) = split(target);
    let activity = Activity::new();

    let inward = async {
        let copied = copy(
            &mut from_caller,
            &mut to_target,
            &activity,
            &meters.bytes_in,
        )
        .await;
        if let Err(Fault::Write(_)) = copied {
            // The target's last words, a TLS alert perhaps, are still to be delivered.
            activity.target_gone();
            return Ok(());
        }
        copied
    };
    let outward = async {
        copy(
            &mut from_target,
            &mut to_caller,
            &activity,
            &meters.bytes_out,
        )
        .await?;
        activity.target_gone();
        Ok(())
    };
    tokio::select! {
        copied = async { tokio::try_join!(inward, outward) } => match copied {
            Ok(_) => Ended::Closed,
            Err(Fault::Read(e) | Fault::Write(e)) => {
                tracing::debug!(error = %e, "connection failed");
                Ended::Failed
            }
        },
        how = activity.idle(limits.idle()) => how,
        () = sleep(limits.lifetime()) => Ended::Lifetime,
    }
}

enum Fault {
    Read(io::Error),
    Write(io::Error),
}

/// One direction, to its end: reads no further than the other side takes.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    activity: &Activity,
    passed: &Counter,
) -> Result<(), Fault> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await.map_err(Fault::Read)?;
        activity.touch();
        if read == 0 {
            return to.shutdown().await.map_err(Fault::Write);
        }
        let mut rest = buffer.get(..read).unwrap_or_default();
        while !rest.is_empty() {
            let written = to.write(rest).await.map_err(Fault::Write)?;
            if written == 0 {
                return Err(Fault::Write(io::ErrorKind::WriteZero.into()));
            }
            activity.touch();
            passed.increment(written as u64);
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}

/// When a byte was last read or written on either side, and whether the target still takes part.
struct Activity {
    start: Instant,
    last_ms: AtomicU64,
    target_gone: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            last_ms: AtomicU64::new(0),
            target_gone: AtomicBool::new(false),
        }
    }

    fn touch(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    fn target_gone(&self) {
        self.target_gone.store(true, Ordering::Relaxed);
    }

    /// Resolves after `limit` without a byte, or after [`LINGER`] once the target is gone.
    async fn idle(&self, limit: Duration) -> Ended {
        loop {
            let gone = self.target_gone.load(Ordering::Relaxed);
            let (allowed, how) = if gone {
                (limit.min(LINGER), Ended::Closed)
            } else {
                (limit, Ended::Idle)
            };
            let last = self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let quiet = last.elapsed();
            if quiet >= allowed {
                return how;
            }
            // Never longer than LINGER, so that `target_gone` is seen without a channel to wake us.
            sleep((allowed - quiet).min(LINGER)).await;
        }
    }
}

#[cfg(test)]
mod tests;
