use std::sync::Arc;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{
    ChatSettings, Restraint, Sampler, answer::Answer, logprobs::Chances, sampling::Scratch,
};
use crate::{
    EngineError, FinishReason,
    decoder::Row,
    gate::Job,
    kv::{BLOCK, Blocks, Chain, Held},
    vocabulary::Vocabulary,
};

/// One choice of a checked request, ready to run.
pub(crate) struct ChatJob {
    pub(crate) prompt: Arc<Zeroizing<Vec<u32>>>,
    /// At least 1; prompt and answer fit the context.
    pub(crate) max_tokens: usize,
    pub(crate) sampler: Sampler,
    pub(crate) logprobs: Option<u8>,
    pub(crate) restraint: Restraint,
    /// Who asks: callers share the model evenly, and none has use of what another's prompt left behind.
    pub(crate) caller: Arc<str>,
    /// Nobody waits longer.
    pub(crate) deadline: Instant,
    pub(crate) answer: Answer,
}

impl ChatJob {
    /// False while another choice of the request reads the prompt for this one.
    pub(crate) fn may_start(&self) -> bool {
        self.answer.is_first() || self.answer.group().is_read()
    }
}

impl Job for ChatJob {
    fn is_abandoned(&self) -> bool {
        self.answer.is_abandoned()
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
        if self.held >= self.prompt {
            self.job.answer.group().set_read();
        }
    }

    pub(crate) fn prompt_tokens(&self) -> usize {
        self.held.min(self.prompt)
    }

    pub(crate) fn completion_tokens(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.job.deadline
    }

    /// Tells the reader how the answer ended.
    pub(crate) fn conclude(&mut self, finish_reason: FinishReason) {
        self.job
            .answer
            .conclude(finish_reason, self.completion_tokens());
    }

    pub(crate) fn fail(&self, error: EngineError) {
        self.job.answer.fail(error);
    }

    pub(crate) fn restraint(&mut self) -> &mut Restraint {
        &mut self.job.restraint
    }

    /// The next token.
    pub(crate) fn take(
        &mut self,
        logits: &mut [f32],
        settings: &ChatSettings,
        vocabulary: &Vocabulary,
        scratch: &mut Scratch,
    ) -> Result<Step, EngineError> {
        let job = &mut self.job;
        let chances = job
            .logprobs
            .map(|count| Chances::look(logits, count, scratch))
            .transpose()?;
        job.sampler.adjust(logits);
        job.restraint.restrict(logits)?;
        let token = job.sampler.sample(logits, scratch)?;
        self.tokens.push(token);
        if settings.end.contains(&token) {
            job.answer.finish();
            return Ok(Step::Done(FinishReason::Stop));
        }
        let logprob = chances
            .map(|chances| chances.of(token, scratch, vocabulary))
            .transpose()?;
        if job.answer.push(token, logprob, vocabulary)? {
            return Ok(Step::Done(FinishReason::Stop));
        }
        let begun = job.answer.call_begun();
        if job.restraint.advance(token, begun, vocabulary)? {
            job.answer.finish();
            return Ok(Step::Done(FinishReason::Stop));
        }
        if self.tokens.len() - self.prompt == job.max_tokens {
            job.answer.finish();
            return Ok(Step::Done(FinishReason::Length));
        }
        Ok(Step::More)
    }
}

#[cfg(test)]
mod tests;
