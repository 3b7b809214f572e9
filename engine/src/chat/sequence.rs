use std::slice;

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::{ChatSettings, Sampler, StopFilter, detokenize::Detokenizer};
use crate::{
    ChatEvent, EngineError, FinishReason, Text, Usage,
    decoder::{Decoder, Row},
    gate::Job,
    vocabulary::Vocabulary,
};

/// A checked request, ready to run.
pub(crate) struct ChatJob {
    pub(crate) prompt: Zeroizing<Vec<u32>>,
    /// At least 1; prompt and answer fit the context.
    pub(crate) max_tokens: usize,
    pub(crate) sampler: Sampler,
    pub(crate) stops: StopFilter,
    /// Room for every event of the answer.
    pub(crate) events: mpsc::Sender<ChatEvent>,
}

impl Job for ChatJob {
    fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }
}

/// A request that is being answered, one step at a time: the worker decides what runs between two steps.
pub(crate) struct Sequence<C> {
    job: ChatJob,
    cache: C,
    /// Prompt tokens that the cache holds.
    read: usize,
    last: u32,
    made: usize,
    text: Detokenizer,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    More,
    /// All text was passed on; [`Sequence::conclude`] tells the reader.
    Done(FinishReason),
    Cancelled,
}

impl<C> Sequence<C> {
    pub(crate) fn new<D: Decoder<Cache = C>>(
        job: ChatJob,
        decoder: &D,
    ) -> Result<Self, EngineError> {
        let cache = decoder
            .cache(job.prompt.len() + job.max_tokens)
            .map_err(internal)?;
        Ok(Self {
            job,
            cache,
            read: 0,
            last: 0,
            made: 0,
            text: Detokenizer::default(),
        })
    }

    /// One forward pass: a chunk of the prompt, or one new token.
    pub(crate) fn step<D: Decoder<Cache = C>>(
        &mut self,
        decoder: &D,
        settings: &ChatSettings,
        vocabulary: &Vocabulary,
    ) -> Result<Step, EngineError> {
        if self.job.events.is_closed() {
            return Ok(Step::Cancelled);
        }
        let end = self
            .job
            .prompt
            .len()
            .min(self.read + settings.prefill_chunk);
        let wants_logits = end == self.job.prompt.len();
        let tokens = match self.job.prompt.get(self.read..end) {
            Some(chunk) if !chunk.is_empty() => chunk,
            _ => slice::from_ref(&self.last),
        };
        self.read = end;
        let mut rows = [Row {
            tokens,
            cache: &mut self.cache,
            wants_logits,
        }];
        let logits = decoder
            .forward(&mut rows)
            .map_err(internal)?
            .pop()
            .flatten();
        match logits {
            None if !wants_logits => Ok(Step::More),
            None => Err(EngineError::Internal),
            Some(logits) => self.take(&logits, settings, vocabulary),
        }
    }

    pub(crate) fn prompt_tokens(&self) -> usize {
        self.read
    }

    pub(crate) fn completion_tokens(&self) -> usize {
        self.made
    }

    /// Tells the reader how the answer ended.
    pub(crate) fn conclude(&self, finish_reason: FinishReason) {
        let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
        let usage = Usage {
            prompt_tokens: count(self.job.prompt.len()),
            completion_tokens: count(self.made),
        };
        self.send(ChatEvent::Done {
            finish_reason,
            usage,
        });
    }

    /// A character that the last token leaves unfinished is dropped.
    fn take(
        &mut self,
        logits: &[f32],
        settings: &ChatSettings,
        vocabulary: &Vocabulary,
    ) -> Result<Step, EngineError> {
        let token = self.job.sampler.sample(logits)?;
        self.last = token;
        self.made += 1;
        if settings.end.contains(&token) {
            let rest = self.job.stops.finish();
            self.show(rest);
            return Ok(Step::Done(FinishReason::Stop));
        }
        let piece = self.text.push(token, vocabulary)?;
        let passed = self.job.stops.push(&piece);
        self.show(passed.text);
        if passed.stopped {
            return Ok(Step::Done(FinishReason::Stop));
        }
        if self.made == self.job.max_tokens {
            let rest = self.job.stops.finish();
            self.show(rest);
            return Ok(Step::Done(FinishReason::Length));
        }
        Ok(Step::More)
    }

    fn show(&self, mut text: Zeroizing<String>) {
        if !text.is_empty() {
            self.send(ChatEvent::Delta(Text::new(std::mem::take(&mut text))));
        }
    }

    /// The channel has room for everything, so this fails only when the reader is gone; the next step sees that.
    fn send(&self, event: ChatEvent) {
        if self.job.events.try_send(event).is_err() {
            tracing::trace!("an answer has no reader");
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
