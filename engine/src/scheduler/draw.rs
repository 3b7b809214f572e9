//! The tokens of one step, each sequence its own.

use std::sync::{Mutex, PoisonError};

use crate::{
    EngineError,
    chat::{ChatSettings, Scratch, Sequence, Step},
    parallel,
    shared::Shared,
    vocabulary::Vocabulary,
    worker::guarded,
};

/// Logits. For fewer it takes longer to wake up another thread.
const WORTH_THREADS: usize = 1 << 17;

/// A running sequence, its number among them, and its logits.
pub(super) type Turn<'a> = (usize, &'a mut Sequence, Vec<f32>);

/// Has each sequence take its next token. Returns those that this ended, by number.
pub(super) fn draw(
    turns: Vec<Turn<'_>>,
    (settings, vocabulary): (&ChatSettings, &Vocabulary),
    shared: &Shared,
    scratches: &Scratches,
) -> Vec<(usize, Result<Step, EngineError>)> {
    let ended = Mutex::new(Vec::new());
    let take = |(index, sequence, mut logits): Turn<'_>| {
        let outcome = guarded(shared, || {
            scratches.lend(|scratch| sequence.take(&mut logits, settings, vocabulary, scratch))
        });
        if outcome != Ok(Step::More) {
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.push((index, outcome));
        }
    };
    match turns.len().saturating_mul(settings.vocabulary) < WORTH_THREADS {
        true => turns.into_iter().for_each(take),
        false => parallel::for_each(turns, take),
    }
    ended.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// As many as were ever in use at once: one for each thread.
#[derive(Default)]
pub(super) struct Scratches(Mutex<Vec<Scratch>>);

impl Scratches {
    fn lend<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = free().pop().unwrap_or_default();
        let result = work(&mut scratch);
        free().push(scratch);
        result
    }
}
