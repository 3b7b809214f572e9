use std::sync::Arc;

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::{StopFilter, detokenize::Detokenizer, group::Group, logprobs::Pending};
use crate::{
    ChatEvent, EngineError, FinishReason, Piece, Text, TokenLogprob, vocabulary::Vocabulary,
};

/// One choice as its reader sees it: tokens go in, events come out.
pub(crate) struct Answer {
    choice: u32,
    text: Detokenizer,
    stops: StopFilter,
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
        group: Arc<Group>,
        events: mpsc::Sender<ChatEvent>,
    ) -> Self {
        Self {
            choice,
            text: Detokenizer::default(),
            stops,
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

    /// The next token. True if a stop string was reached: nothing comes after it.
    pub(crate) fn push(
        &mut self,
        token: u32,
        logprob: Option<TokenLogprob>,
        vocabulary: &Vocabulary,
    ) -> Result<bool, EngineError> {
        let piece = self.text.push(token, vocabulary)?;
        self.made += piece.len();
        if let Some(logprob) = logprob {
            self.pending.push(self.made, logprob);
        }
        let passed = self.stops.push(&piece);
        self.show(passed.text);
        Ok(passed.stopped)
    }

    /// Shows what was held back, since it is known that nothing follows. A character that the last token leaves unfinished is dropped.
    pub(crate) fn finish(&mut self) {
        let rest = self.stops.finish();
        self.show(rest);
        let logprobs = self.pending.take(self.passed);
        if !logprobs.is_empty() {
            self.delta(Text::new(String::new()), logprobs);
        }
    }

    /// Tells the reader how the choice ended, and if it was the last, the request.
    pub(crate) fn conclude(&self, finish_reason: FinishReason, completion_tokens: usize) {
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

    fn show(&mut self, mut text: Zeroizing<String>) {
        self.passed += text.len();
        if !text.is_empty() {
            let logprobs = self.pending.take(self.passed);
            self.delta(Text::new(std::mem::take(&mut text)), logprobs);
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
