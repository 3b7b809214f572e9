//! The one thread that owns the model.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use crate::{
    EngineError, Health, LoadError,
    embedding::{EmbedJob, Encoder, plan},
    gate::Inbox,
    request::Embeddings,
    shared::{Counters, Shared},
};
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

pub(crate) struct EmbedWorker<E> {
    pub(crate) encoder: E,
    pub(crate) batch_tokens: usize,
    pub(crate) shared: Arc<Shared>,
}

impl<E: Encoder> EmbedWorker<E> {
    pub(crate) fn run(self, mut queue: Inbox<EmbedJob>) {
        while let Some(job) = queue.next() {
            let counters = &self.shared.counters;
            counters.running.store(1, Ordering::Relaxed);
            let result = self.embed(&job, &mut queue);
            let outcome = match &result {
                Ok(Some(_)) => &counters.completed,
                Ok(None) => &counters.cancelled,
                Err(_) => &counters.failed,
            };
            Counters::add(outcome, 1);
            if let Some(result) = result.transpose()
                && job.answer.send(result).is_err()
            {
                tracing::trace!("an answer has no reader");
            }
            counters.running.store(0, Ordering::Relaxed);
        }
    }

    /// `None` if nobody waits for the answer any more, which is looked at before each batch.
    fn embed(
        &self,
        job: &EmbedJob,
        queue: &mut Inbox<EmbedJob>,
    ) -> Result<Option<Embeddings>, EngineError> {
        let counters = &self.shared.counters;
        let mut vectors = vec![Vec::new(); job.inputs.len()];
        let mut tokens = 0;
        for batch in plan(&job.inputs, self.batch_tokens) {
            if job.answer.is_closed() {
                return Ok(None);
            }
            if self.shared.aborted() {
                return Err(EngineError::Stopped);
            }
            Counters::add(&counters.cancelled, queue.sweep());
            let encoded = guarded(&self.shared, || {
                self.encoder.encode(&batch).map_err(|_tokens_inside| {
                    tracing::error!("a step of the model failed");
                    EngineError::Internal
                })
            })?;
            for (place, vector) in batch.places.iter().zip(encoded) {
                if let Some(slot) = vectors.get_mut(*place) {
                    *slot = vector;
                }
            }
            let batch_tokens = batch.inputs.iter().map(|input| input.len()).sum::<usize>();
            tokens += batch_tokens;
            Counters::add(&counters.prompt_tokens, batch_tokens);
            Counters::add(&counters.embedded_inputs, batch.inputs.len());
        }
        // A model that overflows must not answer with numbers that are none.
        if vectors.iter().flatten().any(|value| !value.is_finite()) {
            return Err(EngineError::Internal);
        }
        Ok(Some(Embeddings {
            vectors,
            prompt_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        }))
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
