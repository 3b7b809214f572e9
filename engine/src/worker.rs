//! The one thread that owns the model.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{EngineError, Health, LoadError, shared::Shared};
use rayon::ThreadPool;

/// Starts the thread. It lives inside the pool, so that whatever candle hands to rayon runs on the pool's threads and no
/// others; it ends when the queue is closed and empty, and frees the model.
pub(crate) fn spawn(
    pool: ThreadPool,
    shared: Arc<Shared>,
    run: impl FnOnce() + Send + 'static,
) -> Result<(), LoadError> {
    let thread = move || {
        let ended = Ended(shared);
        pool.install(run);
        drop(ended);
    };
    let started = std::thread::Builder::new()
        .name("engine".into())
        .spawn(thread);
    started
        .map(drop)
        .map_err(|error| LoadError::Threads(error.into()))
}

/// However the thread ends, nobody is left to believe that it runs.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.health.send_replace(Health::Stopped);
    }
}

/// A panic in a step costs its request, and the engine's good health, but not the process.
pub(crate) fn guarded<T>(
    shared: &Shared,
    step: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_payload_may_hold_text| {
        tracing::error!("a step of the model panicked");
        shared.health.send_replace(Health::Failed);
        Err(EngineError::Internal)
    })
}
