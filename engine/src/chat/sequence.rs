use std::sync::Arc;

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::{ChatSettings, Sampler, StopFilter, detokenize::Detokenizer};
use crate::{
    ChatEvent, EngineError, FinishReason, Text, Usage,
    decoder::Row,
    gate::Job,
    kv::{BLOCK, Blocks, Chain, Held},
    vocabulary::Vocabulary,
};

/// A checked request, ready to run.
pub(crate) struct ChatJob {
    pub(crate) prompt: Zeroizing<Vec<u32>>,
    /// At least 1; prompt and answer fit the context.
    pub(crate) max_tokens: usize,
    pub(crate) sampler: Sampler,
    pub(crate) stops: StopFilter,
    /// Who asks: callers share the model evenly, and none has use of what another's prompt left behind.
    pub(crate) caller: Arc<str>,
    /// Room for every event of the answer.
    pub(crate) events: mpsc::Sender<ChatEvent>,
}

impl Job for ChatJob {
    fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }
}

/// A request that is being answered: the scheduler decides which of its tokens run when, and in which blocks they are kept.
pub(crate) struct Sequence {
    job: ChatJob,
    /// The prompt and what was made.
    tokens: Zeroizing<Vec<u32>>,
    prompt: usize,
    /// How many of the tokens the blocks hold.
    held: usize,
    blocks: Vec<u32>,
    /// The beginning that the first `known` blocks make up.
    chain: Chain,
    known: usize,
    text: Detokenizer,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    More,
    /// All text was passed on; [`Sequence::conclude`] tells the reader.
    Done(FinishReason),
}

impl Sequence {
    pub(crate) fn new(job: ChatJob) -> Self {
        // Room for all, so that no copy is left behind where it grows.
        let mut tokens = Zeroizing::new(Vec::with_capacity(job.prompt.len() + job.max_tokens));
        tokens.extend_from_slice(&job.prompt);
        Self {
            prompt: tokens.len(),
            job,
            tokens,
            held: 0,
            blocks: Vec::new(),
            chain: Chain::default(),
            known: 0,
            text: Detokenizer::default(),
        }
    }

    pub(crate) fn caller(&self) -> &Arc<str> {
        &self.job.caller
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.job.is_abandoned()
    }

    /// Tokens that are still to run: one while an answer is made, more while a prompt is read.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.held
    }

    /// Takes over the blocks of a beginning that is known. Returns how many tokens need not run again.
    pub(crate) fn reuse(&mut self, blocks: &mut Blocks) -> usize {
        // One token must run, so that there are logits to go on from.
        while let Some(next) = self.tokens.get(self.held..self.held + BLOCK)
            && self.held + BLOCK < self.tokens.len()
            && let Some((block, chain)) = blocks.find(&self.job.caller, self.chain, next)
        {
            self.blocks.push(block);
            self.chain = chain;
            self.known += 1;
            self.held += BLOCK;
        }
        self.held
    }

    /// Blocks for `count` more tokens. False if there are none; what it got it keeps.
    pub(crate) fn reserve(&mut self, count: usize, blocks: &mut Blocks) -> bool {
        while self.blocks.len() * BLOCK < self.held + count {
            match blocks.take() {
                Some(block) => self.blocks.push(block),
                None => return false,
            }
        }
        true
    }

    /// Gives all blocks back. If it goes on, its tokens run again.
    pub(crate) fn release(&mut self, blocks: &mut Blocks) {
        // Last first: a beginning is of use for longer than what follows it.
        for block in self.blocks.drain(..).rev() {
            blocks.give_back(block);
        }
        self.held = 0;
        self.known = 0;
        self.chain = Chain::default();
    }

    /// The next `count` tokens, for which there are blocks.
    pub(crate) fn row(&self, count: usize) -> Row<'_> {
        Row {
            tokens: self
                .tokens
                .get(self.held..self.held + count)
                .unwrap_or_default(),
            held: Held {
                blocks: &self.blocks,
                tokens: self.held,
            },
            limit: self.prompt + self.job.max_tokens,
            wants_logits: count == self.pending(),
        }
    }

    /// These tokens have run. Full blocks are remembered.
    pub(crate) fn advance(&mut self, count: usize, blocks: &mut Blocks) {
        self.held += count;
        while let Some(tokens) = self
            .tokens
            .get(self.known * BLOCK..(self.known + 1) * BLOCK)
            && (self.known + 1) * BLOCK <= self.held
            && let Some(block) = self.blocks.get(self.known)
            && let Some(chain) = blocks.remember(*block, &self.job.caller, self.chain, tokens)
        {
            self.chain = chain;
            self.known += 1;
        }
    }

    pub(crate) fn prompt_tokens(&self) -> usize {
        self.held.min(self.prompt)
    }

    pub(crate) fn completion_tokens(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    /// Tells the reader how the answer ended.
    pub(crate) fn conclude(&self, finish_reason: FinishReason) {
        let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
        let usage = Usage {
            prompt_tokens: count(self.prompt),
            completion_tokens: count(self.completion_tokens()),
        };
        self.send(ChatEvent::Done {
            finish_reason,
            usage,
        });
    }

    pub(crate) fn fail(&self, error: EngineError) {
        self.send(ChatEvent::Failed(error));
    }

    /// The next token. A character that the last token leaves unfinished is dropped.
    pub(crate) fn take(
        &mut self,
        logits: &[f32],
        settings: &ChatSettings,
        vocabulary: &Vocabulary,
    ) -> Result<Step, EngineError> {
        let token = self.job.sampler.sample(logits)?;
        self.tokens.push(token);
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
        if self.completion_tokens() == self.job.max_tokens {
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

#[cfg(test)]
mod tests;
