//! The thread of an encoder: passes over the inputs of all requests. Requests join and leave between two passes.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::Instant;

use super::{
    Batch, EmbedJob, Encoder,
    pass::{Served, Wish},
};
use crate::{
    EngineError,
    gate::{Inbox, Job as _},
    request::Embeddings,
    shared::{Counters, Shared},
    worker::guarded,
};

pub(crate) struct EmbedWorker<E> {
    encoder: E,
    /// Tokens of a pass.
    budget: usize,
    /// Requests at the same time, beside one of each caller, and beside what a pass has room for.
    max_requests: usize,
    shared: Arc<Shared>,
    served: Served,
    /// In step with each other: requests, and what they still want.
    running: Vec<Running>,
    wishes: Vec<Wish>,
}

struct Running {
    job: EmbedJob,
    vectors: Vec<Vec<f32>>,
}

impl<E: Encoder> EmbedWorker<E> {
    pub(crate) fn new(encoder: E, budget: usize, max_requests: usize, shared: Arc<Shared>) -> Self {
        Self {
            encoder,
            budget,
            max_requests,
            shared,
            served: Served::default(),
            running: Vec::new(),
            wishes: Vec::new(),
        }
    }

    pub(crate) fn run(mut self, mut queue: Inbox<EmbedJob>) {
        let mut last = Instant::now();
        loop {
            self.report();
            if self.running.is_empty() {
                if !queue.wait() {
                    return;
                }
                last = Instant::now();
            }
            queue.poll();
            if self.shared.aborted() {
                self.abort(&mut queue);
                continue;
            }
            Counters::add(&self.shared.counters.cancelled, queue.sweep());
            self.drop_abandoned();
            self.admit(&mut queue);
            self.report();
            let ended = self.pass();
            if ended > 0 {
                let now = Instant::now();
                self.shared.pace.record(now.duration_since(last), ended);
                last = now;
            }
        }
    }

    /// For the numbers of [`Stats`](crate::Stats).
    fn report(&self) {
        let running = u64::try_from(self.running.len()).unwrap_or(u64::MAX);
        let counters = &self.shared.counters;
        counters.running.store(running, Ordering::Relaxed);
    }

    fn abort(&mut self, queue: &mut Inbox<EmbedJob>) {
        while !self.running.is_empty() {
            self.end(self.running.len() - 1, Err(EngineError::Stopped));
        }
        while let Some(job) = queue.pick(|_| 0, |_| true) {
            self.join(job);
            self.end(self.running.len() - 1, Err(EngineError::Stopped));
        }
    }

    fn drop_abandoned(&mut self) {
        for index in (0..self.running.len()).rev() {
            let gone = self
                .running
                .get(index)
                .is_some_and(|each| each.job.is_abandoned());
            if gone {
                self.running.remove(index);
                self.wishes.remove(index);
                Counters::add(&self.shared.counters.cancelled, 1);
            }
        }
    }

    /// Lets in who comes from the caller with the fewest requests running, in the order in which they came.
    fn admit(&mut self, queue: &mut Inbox<EmbedJob>) {
        loop {
            let crowded = self.running.len() >= self.max_requests
                && self.wishes.iter().map(Wish::tokens).sum::<usize>() >= self.budget;
            let of = |caller: &Arc<str>| {
                let same = self.wishes.iter().filter(|wish| wish.caller() == caller);
                same.count()
            };
            let next = queue.pick(
                |job| of(&job.caller),
                |job| !crowded || of(&job.caller) == 0,
            );
            match next {
                Some(job) => self.join(job),
                None => return,
            }
        }
    }

    fn join(&mut self, job: EmbedJob) {
        let lengths = job.inputs.iter().map(|input| input.tokens.len());
        self.wishes
            .push(Wish::new(Arc::clone(&job.caller), lengths));
        self.running.push(Running {
            vectors: vec![Vec::new(); job.inputs.len()],
            job,
        });
    }

    /// Returns how many requests it ended.
    fn pass(&mut self) -> usize {
        let chosen = self.served.fill(&mut self.wishes, self.budget);
        let mut inputs = Vec::with_capacity(chosen.len());
        for (number, place) in &chosen {
            let input = self.running.get(*number);
            inputs.extend(input.and_then(|each| each.job.inputs.get(*place)));
        }
        let (count, tokens) = (
            inputs.len(),
            inputs.iter().map(|input| input.tokens.len()).sum(),
        );
        if count == 0 {
            return 0;
        }
        let outcome = guarded(&self.shared, || {
            let batch = Batch { inputs };
            self.encoder.encode(&batch).map_err(|_tokens_inside| {
                tracing::error!("a step of the model failed");
                EngineError::Internal
            })
        });
        let mut ended = 0;
        match outcome {
            Ok(vectors) => {
                let counters = &self.shared.counters;
                Counters::add(&counters.prompt_tokens, tokens);
                Counters::add(&counters.embedded_inputs, count);
                for ((number, place), vector) in chosen.into_iter().zip(vectors) {
                    let each = self.running.get_mut(number);
                    if let Some(slot) = each.and_then(|each| each.vectors.get_mut(place)) {
                        *slot = vector;
                    }
                }
                for index in (0..self.wishes.len()).rev() {
                    if self.wishes.get(index).is_some_and(Wish::is_empty) {
                        self.end(index, Ok(()));
                        ended += 1;
                    }
                }
            }
            Err(error) => {
                let mut numbers: Vec<_> = chosen.into_iter().map(|(number, _)| number).collect();
                numbers.sort_unstable();
                numbers.dedup();
                ended = numbers.len();
                for number in numbers.into_iter().rev() {
                    self.end(number, Err(error.clone()));
                }
            }
        }
        ended
    }

    fn end(&mut self, index: usize, outcome: Result<(), EngineError>) {
        self.wishes.remove(index);
        let Running { job, vectors } = self.running.remove(index);
        // A model that overflows must not answer with numbers that are none.
        let finite = vectors.iter().flatten().all(|value| value.is_finite());
        let outcome = match outcome {
            Ok(()) if !finite => Err(EngineError::Internal),
            outcome => outcome,
        };
        let counters = &self.shared.counters;
        let counter = match &outcome {
            Ok(()) => &counters.completed,
            Err(_) => &counters.failed,
        };
        Counters::add(counter, 1);
        let tokens: usize = job.inputs.iter().map(|input| input.tokens.len()).sum();
        let answer = outcome.map(|()| Embeddings {
            vectors,
            prompt_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        });
        if job.answer.send(answer).is_err() {
            tracing::trace!("an answer has no reader");
        }
    }
}

#[cfg(test)]
mod tests;
