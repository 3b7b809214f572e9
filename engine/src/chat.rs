//! Chat: from messages to prompt tokens, and from sampled tokens to pieces of text.

mod detokenize;
mod sampling;
mod sequence;
mod settings;
mod stop;
mod template;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    ChatEvent, ChatRequest, EngineError, EngineOptions,
    gate::Gate,
    turns::Turns,
    vocabulary::{Vocabulary, check_length},
};
pub(crate) use sampling::Sampler;
pub(crate) use sequence::{ChatJob, Sequence, Step};
pub(crate) use settings::{ChatSettings, TOKENIZER_CONFIG};
pub(crate) use stop::StopFilter;
pub(crate) use template::ChatTemplate;

/// The caller's side of a chat model.
pub(crate) struct Chat {
    pub(crate) queue: Gate<ChatJob>,
    pub(crate) settings: Arc<ChatSettings>,
    pub(crate) vocabulary: Arc<Vocabulary>,
    pub(crate) template: ChatTemplate,
    pub(crate) turns: Turns,
    pub(crate) options: EngineOptions,
}

/// OpenAI allows four.
const MAX_STOP_STRINGS: usize = 16;
const MAX_STOP_BYTES: usize = 512;

impl Chat {
    pub(crate) fn start(
        &self,
        request: ChatRequest,
    ) -> Result<mpsc::Receiver<ChatEvent>, EngineError> {
        self.check(&request)?;
        // A full queue is found out before the work of the template and the tokenizer is done.
        let place = self.queue.reserve()?;
        let turn = self.turns.take();
        let text = self
            .template
            .render(&request.messages, self.options.max_prompt_bytes)?;
        let prompt = self.vocabulary.encode(text.expose(), false)?;
        drop(turn);
        if prompt.is_empty() {
            return Err(EngineError::Invalid(
                "the chat template gives an empty prompt",
            ));
        }
        let limit = self.prompt_limit();
        if prompt.len() > limit {
            return Err(EngineError::ContextLength {
                limit,
                requested: prompt.len(),
            });
        }
        let room = self
            .options
            .max_new_tokens
            .min(self.settings.context - prompt.len());
        let wanted = request
            .max_tokens
            .map_or(room, |tokens| usize::try_from(tokens).unwrap_or(room));
        let max_tokens = wanted.min(room);

        // Every event has its place from the start: a slow reader can never make the model's thread wait.
        let (events, receiver) = mpsc::channel(max_tokens + 2);
        place.fill(ChatJob {
            prompt,
            max_tokens,
            sampler: Sampler::new(request.temperature, request.top_p, request.seed),
            stops: StopFilter::new(request.stop),
            caller: request.caller,
            events,
        });
        Ok(receiver)
    }

    /// In tokens; one of the context is left for the answer.
    fn prompt_limit(&self) -> usize {
        self.options
            .max_prompt_tokens
            .min(self.settings.context - 1)
    }

    fn check(&self, request: &ChatRequest) -> Result<(), EngineError> {
        let invalid = |problem| Err(EngineError::Invalid(problem));
        if request.messages.is_empty() {
            return invalid("messages must not be empty");
        }
        if request.messages.len() > self.options.max_messages {
            return invalid("too many messages");
        }
        let bytes: usize = request
            .messages
            .iter()
            .map(|message| message.content.expose().len())
            .sum();
        if bytes > self.options.max_prompt_bytes {
            return invalid("messages are too long");
        }
        check_length(bytes, self.prompt_limit())?;
        if request.max_tokens == Some(0) {
            return invalid("max_tokens must be at least 1");
        }
        if !(0.0..=2.0).contains(&request.temperature) {
            return invalid("temperature must be from 0 to 2");
        }
        if !(0.0..=1.0).contains(&request.top_p) {
            return invalid("top_p must be from 0 to 1");
        }
        if request.stop.len() > MAX_STOP_STRINGS {
            return invalid("too many stop strings");
        }
        if request
            .stop
            .iter()
            .any(|stop| !(1..=MAX_STOP_BYTES).contains(&stop.expose().len()))
        {
            return invalid("a stop string must have 1 to 512 bytes");
        }
        Ok(())
    }
}
