//! Who runs next. Each step is one pass over a row of each sequence: a token of every answer, and chunks of prompts that share
//! what a step may take. Requests join and leave between two steps.

mod draw;
mod share;

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use tokio::time::Instant;

use crate::{
    EngineError,
    chat::{ChatJob, ChatSettings, Grammar, Sequence, Step},
    decoder::{Decoder, Row},
    gate::Inbox,
    kv::{BLOCK, Blocks, KvPool},
    parallel,
    shared::{Counters, Shared},
    vocabulary::Vocabulary,
    worker::guarded,
};
use draw::{Scratches, draw};
use share::share;

pub(crate) struct Scheduler<D> {
    pub(crate) decoder: D,
    pub(crate) settings: Arc<ChatSettings>,
    pub(crate) vocabulary: Arc<Vocabulary>,
    pub(crate) shared: Arc<Shared>,
    kv: KvPool,
    blocks: Blocks,
    /// The longest running first.
    running: Vec<Sequence>,
    /// Had to give their blocks to others; they go on before anybody new comes in.
    waiting: VecDeque<Sequence>,
    scratches: Scratches,
}

impl<D: Decoder> Scheduler<D> {
    pub(crate) fn new(
        decoder: D,
        settings: Arc<ChatSettings>,
        vocabulary: Arc<Vocabulary>,
        shared: Arc<Shared>,
    ) -> Self {
        let blocks = settings.blocks;
        Self {
            kv: KvPool::new(decoder.shape(), blocks),
            blocks: Blocks::new(blocks),
            decoder,
            settings,
            vocabulary,
            shared,
            running: Vec::new(),
            waiting: VecDeque::new(),
            scratches: Scratches::default(),
        }
    }

    pub(crate) fn run(mut self, mut queue: Inbox<ChatJob>) {
        parallel::set_threads(self.decoder.threads());
        let mut last = Instant::now();
        loop {
            if self.running.is_empty() && self.waiting.is_empty() {
                self.report();
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
            let counters = &self.shared.counters;
            Counters::add(&counters.cancelled, queue.sweep());
            self.drop_abandoned();
            self.drop_late(&mut queue);
            self.admit(&mut queue);
            let finished = self.step();
            if finished > 0 {
                let now = Instant::now();
                self.shared.pace.record(now.duration_since(last), finished);
                last = now;
            }
        }
    }

    /// For the numbers of [`Stats`](crate::Stats).
    fn report(&self) {
        let counters = &self.shared.counters;
        let store = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        counters
            .running
            .store(store(self.running.len()), Ordering::Relaxed);
        let used = self.blocks.total() - self.blocks.available();
        counters
            .kv_blocks_used
            .store(store(used), Ordering::Relaxed);
    }

    fn abort(&mut self, queue: &mut Inbox<ChatJob>) {
        let counters = &self.shared.counters;
        for mut sequence in self.running.drain(..).chain(self.waiting.drain(..)) {
            sequence.release(&mut self.blocks);
            Counters::add(&counters.failed, 1);
            sequence.fail(EngineError::Stopped);
        }
        while let Some(job) = queue.pick(|_| 0, |_| true) {
            Counters::add(&counters.failed, 1);
            job.answer.fail(EngineError::Stopped);
        }
    }

    /// Whoever hung up frees their blocks before the next step.
    fn drop_abandoned(&mut self) {
        let left = self.withdraw(Sequence::is_abandoned);
        Counters::add(&self.shared.counters.cancelled, left.len());
    }

    /// Whoever waited for longer than anybody should is told so.
    fn drop_late(&mut self, queue: &mut Inbox<ChatJob>) {
        let now = Instant::now();
        let jobs = queue.remove(|job| job.deadline <= now);
        let left = self.withdraw(|sequence| sequence.deadline() <= now);
        Counters::add(&self.shared.counters.failed, jobs.len() + left.len());
        for job in jobs {
            job.answer.fail(EngineError::Deadline);
        }
        for sequence in left {
            sequence.fail(EngineError::Deadline);
        }
    }

    /// Takes these out, and their blocks from them.
    fn withdraw(&mut self, these: impl Fn(&Sequence) -> bool) -> Vec<Sequence> {
        let mut left: Vec<_> = self.running.extract_if(.., |each| these(each)).collect();
        let (go, stay): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(these);
        self.waiting = stay.into();
        left.extend(go);
        for sequence in &mut left {
            sequence.release(&mut self.blocks);
            self.account(sequence);
        }
        left
    }

    fn account(&self, sequence: &Sequence) {
        let counters = &self.shared.counters;
        Counters::add(&counters.prompt_tokens, sequence.prompt_tokens());
        Counters::add(&counters.completion_tokens, sequence.completion_tokens());
    }

    /// Lets in as many as have room: first who was here before, then whose caller has the fewest running, in the order in which
    /// they came. Nobody overtakes one for whom there is no room yet.
    fn admit(&mut self, queue: &mut Inbox<ChatJob>) {
        while self.running.len() < self.settings.max_sequences {
            let available = self.blocks.available();
            // And one token of the answer.
            let fits = |tokens: usize| (tokens + 1).div_ceil(BLOCK) <= available;
            let next = match self.waiting.front() {
                Some(sequence) if fits(sequence.pending()) => self.waiting.pop_front(),
                Some(_) => None,
                None => {
                    let of = |caller: &Arc<str>| {
                        self.running
                            .iter()
                            .filter(|each| each.caller() == caller)
                            .count()
                    };
                    // Who waits for another choice to read the prompt holds nobody up.
                    let rank = |job: &ChatJob| match job.may_start() {
                        true => of(&job.caller),
                        false => usize::MAX,
                    };
                    let may = |job: &ChatJob| job.may_start() && fits(job.prompt.len());
                    queue.pick(rank, may).map(Sequence::new)
                }
            };
            let Some(mut sequence) = next else { return };
            let known = sequence.reuse(&mut self.blocks);
            Counters::add(&self.shared.counters.cached_prompt_tokens, known);
            self.running.push(sequence);
        }
    }

    /// One pass. Returns how many answers it ended.
    fn step(&mut self) -> usize {
        let counts = self.plan();
        self.report();
        let mut grammars = self.lend_grammars(&counts);
        let outcome = guarded(&self.shared, || {
            let rows = self
                .running
                .iter()
                .zip(&counts)
                .filter(|(_, count)| **count > 0);
            let rows: Vec<Row<'_>> = rows.map(|(sequence, count)| sequence.row(*count)).collect();
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            // What may come next is found out beside the step, by whichever thread has nothing to do.
            rayon::in_place_scope(|scope| {
                for (_, grammar) in &mut grammars {
                    scope.spawn(|_| grammar.look_ahead());
                }
                self.decoder.forward(&mut self.kv, &rows).map_err(internal)
            })
        });
        for (index, grammar) in grammars {
            if let Some(sequence) = self.running.get_mut(index) {
                sequence.restraint().give_back(grammar);
            }
        }
        let mut logits = match outcome {
            Ok(logits) => logits.into_iter(),
            Err(error) => {
                let failed = self.running.len();
                for index in (0..failed).rev() {
                    self.end(index, Err(error.clone()));
                }
                return failed;
            }
        };
        let mut ended = Vec::new();
        let mut turns = Vec::new();
        for (index, (sequence, count)) in self.running.iter_mut().zip(&counts).enumerate() {
            if *count == 0 {
                continue;
            }
            let wanted = *count == sequence.pending();
            sequence.advance(*count, &mut self.blocks);
            match logits.next() {
                Some(None) if !wanted => {}
                Some(Some(logits)) => turns.push((index, sequence, logits)),
                _ => ended.push((index, Err(EngineError::Internal))),
            }
        }
        let model = (&*self.settings, &*self.vocabulary);
        ended.extend(draw(turns, model, &self.shared, &self.scratches));
        ended.sort_unstable_by_key(|(index, _)| *index);
        let count = ended.len();
        for (index, outcome) in ended.into_iter().rev() {
            self.end(index, outcome);
        }
        count
    }

    /// Of those that get a token in this step.
    fn lend_grammars(&mut self, counts: &[usize]) -> Vec<(usize, Grammar)> {
        let due = self.running.iter_mut().zip(counts).enumerate();
        let due = due.filter(|(_, (sequence, count))| **count > 0 && **count == sequence.pending());
        due.filter_map(|(index, (sequence, _))| Some((index, sequence.restraint().lend()?)))
            .collect()
    }

    fn end(&mut self, index: usize, outcome: Result<Step, EngineError>) {
        let mut sequence = self.running.remove(index);
        self.account(&sequence);
        sequence.release(&mut self.blocks);
        let counters = &self.shared.counters;
        match outcome {
            Ok(Step::Done(reason)) => {
                Counters::add(&counters.completed, 1);
                sequence.conclude(reason);
            }
            Ok(Step::More) => {}
            Err(error) => {
                Counters::add(&counters.failed, 1);
                sequence.fail(error);
            }
        }
    }

    /// How many tokens of each sequence run, for all of which there are blocks. Where blocks run out, the last to come in gives its
    /// own back and runs again later.
    fn plan(&mut self) -> Vec<usize> {
        let wants: Vec<_> = self
            .running
            .iter()
            .map(|sequence| (Arc::clone(sequence.caller()), sequence.pending()))
            .collect();
        let mut counts = share(self.settings.prefill_chunk, &wants);
        let mut index = 0;
        while let Some(sequence) = self.running.get_mut(index) {
            let count = counts.get(index).copied().unwrap_or_default();
            if sequence.reserve(count, &mut self.blocks) {
                index += 1;
                continue;
            }
            if index + 1 == self.running.len() && index > 0 {
                // None behind it to take from; who runs before it will end.
                self.preempt(&mut counts);
                break;
            }
            if index + 1 >= self.running.len() {
                // Alone, and admission has seen to it that there is room for one: not reached.
                break;
            }
            self.preempt(&mut counts);
        }
        counts
    }

    fn preempt(&mut self, counts: &mut Vec<usize>) {
        if let Some(mut sequence) = self.running.pop() {
            counts.pop();
            sequence.release(&mut self.blocks);
            self.waiting.push_front(sequence);
            Counters::add(&self.shared.counters.preempted, 1);
        }
    }
}

/// candle's message may hold token ids, so only the fact is logged.
fn internal(_tokens_inside: candle_core::Error) -> EngineError {
    tracing::error!("a step of the model failed");
    EngineError::Internal
}

#[cfg(test)]
mod tests;
