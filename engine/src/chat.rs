//! Chat: from messages to prompt tokens, and from sampled tokens to pieces of text.

mod answer;
mod calls;
mod check;
mod detokenize;
mod form;
mod grammar;
mod group;
mod logprobs;
mod restraint;
mod sampling;
mod schema;
mod sequence;
mod settings;
mod stop;
mod template;

use std::sync::{Arc, OnceLock};

use tokio::{sync::mpsc, time::Instant};
use zeroize::Zeroizing;

use crate::{
    ChatEvent, ChatRequest, EngineError, EngineOptions, Input, Message, gate::Gate, turns::Turns,
    vocabulary::Vocabulary,
};
use answer::Answer;
pub(crate) use grammar::Grammar;
use grammar::Grammars;
use group::Group;
use restraint::Restraint;
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
    /// Made when somebody first asks for a format: `None` if the vocabulary cannot be restrained.
    pub(crate) grammars: OnceLock<Option<Grammars>>,
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
        let turn = self.turns.take();
        let prompt = self.prompt(&request)?;
        // Compiled here, and not while others wait for the model's thread.
        let restraint = self.restraint(&request)?;
        if request.logprobs.is_some() {
            self.vocabulary.token_bytes();
        }
        drop(turn);
        let room = self
            .options
            .max_new_tokens
            .min(self.settings.context - prompt.len());
        let wanted = request
            .max_tokens
            .map_or(room, |tokens| usize::try_from(tokens).unwrap_or(room));
        let max_tokens = wanted.min(room);

        // Every event has its place from the start: a slow reader can never make the model's thread wait.
        let choices = usize::try_from(request.choices).unwrap_or(usize::MAX);
        let each = EVENTS_OF_A_TOKEN * max_tokens + EVENTS_AT_THE_END;
        let (events, receiver) = mpsc::channel(each * choices);
        let group = Arc::new(Group::new(prompt.len(), request.choices));
        let prompt = Arc::new(prompt);
        let job = |choice| ChatJob {
            prompt: Arc::clone(&prompt),
            max_tokens,
            sampler: Sampler::new(&request, choice, &prompt),
            logprobs: request.logprobs,
            restraint: restraint.again(),
            caller: Arc::clone(&request.caller),
            deadline,
            answer: Answer::new(
                choice,
                StopFilter::new(&request.stop),
                self.call_filter(&request),
                self.call_signs(&request),
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

    /// As [`Self::start`] would read these messages.
    pub(crate) fn tokenize(
        &self,
        messages: &[Message],
    ) -> Result<Zeroizing<Vec<u32>>, EngineError> {
        self.check_messages(messages, &[])?;
        let _turn = self.turns.take();
        let most = self.options.max_prompt_bytes;
        let text = self.template.render(messages, &[], most)?;
        self.vocabulary.encode(text.expose(), false)
    }

    /// What the model reads.
    fn prompt(&self, request: &ChatRequest) -> Result<Zeroizing<Vec<u32>>, EngineError> {
        let prompt = match &request.input {
            Input::Messages(messages) => {
                let most = self.options.max_prompt_bytes;
                let text = self
                    .template
                    .render(messages, request.shown_tools(), most)?;
                let opening = self.opening(request);
                let text = Zeroizing::new([text.expose(), opening].concat());
                self.vocabulary.encode(&text, false)?
            }
            Input::Text(text) => self.vocabulary.encode(text.expose(), true)?,
            Input::Tokens(tokens) => tokens.clone(),
        };
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

/// Text, the call that it ends, and text again.
const EVENTS_OF_A_TOKEN: usize = 3;
/// A rest of text, how the choice ended, and how the request did.
const EVENTS_AT_THE_END: usize = 8;
