//! What is known to be wrong with a request before any work is done for it.

use super::Chat;
use crate::{ChatRequest, EngineError, Format, Input, Message, vocabulary::check_length};

const MAX_STOP_BYTES: usize = 512;
const MAX_TOP_LOGPROBS: u8 = 20;

impl Chat {
    pub(super) fn check(&self, request: &ChatRequest) -> Result<(), EngineError> {
        self.check_input(&request.input)?;
        self.check_sampling(request)?;
        if !request.tools.0.is_empty() {
            return Err(EngineError::Unsupported("tools"));
        }
        if !matches!(request.format, Format::Text) {
            return Err(EngineError::Unsupported("response_format"));
        }
        if request.stop.len() > self.options.max_stop_strings {
            return Err(EngineError::Invalid("too many stop strings"));
        }
        if request
            .stop
            .iter()
            .any(|stop| !(1..=MAX_STOP_BYTES).contains(&stop.expose().len()))
        {
            return Err(EngineError::Invalid(
                "a stop string must have 1 to 512 bytes",
            ));
        }
        Ok(())
    }

    fn check_input(&self, input: &Input) -> Result<(), EngineError> {
        let invalid = |problem| Err(EngineError::Invalid(problem));
        let bytes = match input {
            Input::Messages(messages) => {
                if messages.is_empty() {
                    return invalid("messages must not be empty");
                }
                if messages.len() > self.options.max_messages {
                    return invalid("too many messages");
                }
                messages.iter().map(Message::bytes).sum()
            }
            Input::Text(text) => text.expose().len(),
            Input::Tokens(tokens) => {
                let known = |token: &u32| (*token as usize) < self.settings.vocabulary;
                return match tokens.iter().all(known) {
                    true => Ok(()),
                    false => invalid("a token is not in the vocabulary"),
                };
            }
        };
        if bytes > self.options.max_prompt_bytes {
            return invalid("messages are too long");
        }
        check_length(bytes, self.prompt_limit())
    }

    fn check_sampling(&self, request: &ChatRequest) -> Result<(), EngineError> {
        let invalid = |problem| Err(EngineError::Invalid(problem));
        let choices = usize::try_from(request.choices).unwrap_or(usize::MAX);
        let most = self.options.max_choices.min(self.options.queue);
        if !(1..=most).contains(&choices) {
            return invalid("too many choices, or none");
        }
        if request.max_tokens == Some(0) {
            return invalid("max_tokens must be at least 1");
        }
        if !(0.0..=2.0).contains(&request.temperature) {
            return invalid("temperature must be from 0 to 2");
        }
        if !(0.0..=1.0).contains(&request.top_p) {
            return invalid("top_p must be from 0 to 1");
        }
        if !(0.0..=1.0).contains(&request.min_p) {
            return invalid("min_p must be from 0 to 1");
        }
        let penalties = [request.presence_penalty, request.frequency_penalty];
        if !penalties
            .iter()
            .all(|penalty| (-2.0..=2.0).contains(penalty))
        {
            return invalid("presence_penalty and frequency_penalty must be from -2 to 2");
        }
        if !(0.0..=10.0).contains(&request.repetition_penalty) || request.repetition_penalty == 0.0
        {
            return invalid("repetition_penalty must be above 0 and at most 10");
        }
        if request.logit_bias.len() > self.options.max_logit_bias {
            return invalid("too many entries in logit_bias");
        }
        let known = |(token, bias): &(u32, f32)| {
            (*token as usize) < self.settings.vocabulary && (-100.0..=100.0).contains(bias)
        };
        if !request.logit_bias.iter().all(known) {
            return invalid("logit_bias is for tokens of the vocabulary, from -100 to 100");
        }
        if request
            .logprobs
            .is_some_and(|count| count > MAX_TOP_LOGPROBS)
        {
            return invalid("top_logprobs must be from 0 to 20");
        }
        Ok(())
    }
}
