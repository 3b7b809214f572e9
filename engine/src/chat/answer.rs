use std::sync::Arc;

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::{
    StopFilter,
    calls::{CallFilter, Passed},
    detokenize::Detokenizer,
    group::Group,
    logprobs::Pending,
};
use crate::{
    ChatEvent, EngineError, FinishReason, Piece, Text, TokenLogprob, vocabulary::Vocabulary,
};

/// One choice as its reader sees it: tokens go in, events come out.
pub(crate) struct Answer {
    choice: u32,
    text: Detokenizer,
    stops: StopFilter,
    calls: Option<CallFilter>,
    /// Tokens that the tokenizer leaves out of text, and that begin or end calls.
    signs: Vec<(u32, &'static str)>,
    /// Bytes of text that the tokens made, and of those, what is before any stop string.
    made: usize,
    passed: usize,
    pending: Pending,
    group: Arc<Group>,
    /// Room for every event.
    events: mpsc::Sender<ChatEvent>,
}

impl Answer {
    pub(crate) fn new(
        choice: u32,
        stops: StopFilter,
        calls: Option<CallFilter>,
        signs: Vec<(u32, &'static str)>,
        group: Arc<Group>,
        events: mpsc::Sender<ChatEvent>,
    ) -> Self {
        Self {
            choice,
            text: Detokenizer::default(),
            stops,
            calls,
            signs,
            made: 0,
            passed: 0,
            pending: Pending::default(),
            group,
            events,
        }
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// The first choice reads the prompt for all.
    pub(crate) fn is_first(&self) -> bool {
        self.choice == 0
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// The next token. True if a stop string was reached, or the only call: nothing comes after it.
    pub(crate) fn push(
        &mut self,
        token: u32,
        logprob: Option<TokenLogprob>,
        vocabulary: &Vocabulary,
    ) -> Result<bool, EngineError> {
        let sign = self.signs.iter().find(|(sign, _)| *sign == token);
        let piece = match sign {
            Some((_, text)) => Zeroizing::new((*text).to_owned()),
            None => self.text.push(token, vocabulary)?,
        };
        self.made += piece.len();
        if let Some(logprob) = logprob {
            self.pending.push(logprob);
        }
        if !piece.is_empty() {
            self.pending.settle(self.made);
        }
        let passed = self.stops.push(&piece);
        self.pass(passed.text);
        Ok(passed.stopped || self.calls.as_ref().is_some_and(CallFilter::is_over))
    }

    /// What has come of a call that is not whole.
    pub(crate) fn call_begun(&self) -> Option<&str> {
        self.calls.as_ref()?.begun()
    }

    /// Shows what may be part of a stop string, since it is known that nothing follows. A character that the last token leaves
    /// unfinished is dropped.
    pub(crate) fn finish(&mut self) {
        self.pending.settle(self.made);
        let rest = self.stops.finish();
        self.pass(rest);
    }

    /// Tells the reader how the choice ended, and if it was the last, the request.
    pub(crate) fn conclude(&mut self, mut finish_reason: FinishReason, completion_tokens: usize) {
        if let Some(mut calls) = self.calls.take() {
            let passed = calls.finish();
            self.show(passed, 0);
            if calls.has_called() && finish_reason == FinishReason::Stop {
                finish_reason = FinishReason::ToolCalls;
            }
        }
        let logprobs = self.pending.take(self.passed);
        if !logprobs.is_empty() {
            self.delta(Text::new(String::new()), logprobs);
        }
        self.group.set_read();
        self.send(ChatEvent::Ended {
            choice: self.choice,
            finish_reason,
        });
        if let Some(usage) = self.group.ended(completion_tokens) {
            self.send(ChatEvent::Done { usage });
        }
    }

    pub(crate) fn fail(&self, error: EngineError) {
        self.group.set_read();
        self.send(ChatEvent::Failed(error));
    }

    /// Text that is before any stop string.
    fn pass(&mut self, text: Zeroizing<String>) {
        if text.is_empty() {
            return;
        }
        self.passed += text.len();
        let (passed, held) = match &mut self.calls {
            Some(calls) => (calls.push(&text), calls.held()),
            None => (vec![Passed::Text(text)], 0),
        };
        self.show(passed, held);
    }

    /// `held` are the bytes of text behind these, which may become a call.
    fn show(&mut self, passed: Vec<Passed>, held: usize) {
        for each in passed {
            let logprobs = self.pending.take(self.passed.saturating_sub(held));
            match each {
                Passed::Text(mut text) => {
                    self.delta(Text::new(std::mem::take(&mut text)), logprobs);
                }
                // Nobody is told of the tokens that a call is made of.
                Passed::Call(call) => self.send(ChatEvent::ToolCall {
                    choice: self.choice,
                    call,
                }),
            }
        }
    }

    fn delta(&self, text: Text, logprobs: Vec<TokenLogprob>) {
        self.send(ChatEvent::Delta(Piece {
            choice: self.choice,
            text,
            logprobs,
        }));
    }

    /// The channel has room for everything, so this fails only when the reader is gone; the next step sees that.
    fn send(&self, event: ChatEvent) {
        if self.events.try_send(event).is_err() {
            tracing::trace!("an answer has no reader");
        }
    }
}
