//! Chat: from messages to prompt tokens, and from sampled tokens to pieces of text.

mod answer;
mod check;
mod detokenize;
mod group;
mod logprobs;
mod sampling;
mod sequence;
mod settings;
mod stop;
mod template;

use std::sync::Arc;

use tokio::{sync::mpsc, time::Instant};
use zeroize::Zeroizing;

use crate::{
    ChatEvent, ChatRequest, EngineError, EngineOptions, Input, gate::Gate, turns::Turns,
    vocabulary::Vocabulary,
};
use answer::Answer;
use group::Group;
use sampling::Sampler;
pub(crate) use sampling::Scratch;
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

impl Chat {
    pub(crate) fn start(
        &self,
        request: ChatRequest,
    ) -> Result<mpsc::Receiver<ChatEvent>, EngineError> {
        self.check(&request)?;
        // A full queue is found out before the work of the template and the tokenizer is done.
        let mut places = self.queue.reserve_many(request.choices)?;
        let deadline = Instant::now() + self.options.deadline;
        let prompt = self.prompt(&request)?;
        let room = self
            .options
            .max_new_tokens
            .min(self.settings.context - prompt.len());
        let wanted = request
            .max_tokens
            .map_or(room, |tokens| usize::try_from(tokens).unwrap_or(room));
        let max_tokens = wanted.min(room);
        if request.logprobs.is_some() {
            // Here, and not while others wait for the model's thread.
            self.vocabulary.token_bytes();
        }

        // Every event has its place from the start: a slow reader can never make the model's thread wait.
        let choices = usize::try_from(request.choices).unwrap_or(usize::MAX);
        let (events, receiver) = mpsc::channel((max_tokens + EVENTS_AT_THE_END) * choices);
        let group = Arc::new(Group::new(prompt.len(), request.choices));
        let prompt = Arc::new(prompt);
        let job = |choice| ChatJob {
            prompt: Arc::clone(&prompt),
            max_tokens,
            sampler: Sampler::new(&request, choice, &prompt),
            logprobs: request.logprobs,
            caller: Arc::clone(&request.caller),
            deadline,
            answer: Answer::new(
                choice,
                StopFilter::new(&request.stop),
                Arc::clone(&group),
                events.clone(),
            ),
        };
        for choice in 0..request.choices {
            match places.split() {
                Some(place) => place.fill(job(choice)),
                None => {
                    places.fill(job(choice));
                    break;
                }
            }
        }
        Ok(receiver)
    }

    /// What the model reads.
    fn prompt(&self, request: &ChatRequest) -> Result<Zeroizing<Vec<u32>>, EngineError> {
        let turn = self.turns.take();
        let prompt = match &request.input {
            Input::Messages(messages) => {
                let text = self
                    .template
                    .render(messages, self.options.max_prompt_bytes)?;
                self.vocabulary.encode(text.expose(), false)?
            }
            Input::Text(text) => self.vocabulary.encode(text.expose(), true)?,
            Input::Tokens(tokens) => tokens.clone(),
        };
        drop(turn);
        if prompt.is_empty() {
            return Err(EngineError::Invalid("the prompt has no tokens"));
        }
        let limit = self.prompt_limit();
        if prompt.len() > limit {
            return Err(EngineError::ContextLength {
                limit,
                requested: prompt.len(),
            });
        }
        Ok(prompt)
    }

    /// In tokens; one of the context is left for the answer.
    fn prompt_limit(&self) -> usize {
        self.options
            .max_prompt_tokens
            .min(self.settings.context - 1)
    }
}

/// A rest of text, how the choice ended, and how the request did.
const EVENTS_AT_THE_END: usize = 4;
