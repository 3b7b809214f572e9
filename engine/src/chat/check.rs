//! What is known to be wrong with a request before any work is done for it.

use super::{Chat, schema};
use crate::{
    ChatRequest, EngineError, Format, Input, Message, Tool, ToolChoice, vocabulary::check_length,
};

const MAX_STOP_BYTES: usize = 512;
const MAX_TOP_LOGPROBS: u8 = 20;

impl Chat {
    pub(super) fn check(&self, request: &ChatRequest) -> Result<(), EngineError> {
        self.check_input(&request.input, request.shown_tools())?;
        self.check_sampling(request)?;
        self.check_tools(request)?;
        if let Format::JsonSchema(schema) = &request.format {
            schema::check("response_format", schema, &self.options)?;
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

    fn check_tools(&self, request: &ChatRequest) -> Result<(), EngineError> {
        let refused = |field, problem| Err(EngineError::Schema { field, problem });
        let tools = request.shown_tools();
        if tools.len() > self.options.max_tools {
            return refused("tools", "there are too many tools");
        }
        for tool in tools {
            schema::check("tools", &tool.parameters, &self.options)?;
        }
        let called = match &request.tool_choice {
            ToolChoice::None | ToolChoice::Auto => true,
            ToolChoice::Required => !tools.is_empty(),
            ToolChoice::Named(name) => tools.iter().any(|tool| tool.name == *name),
        };
        if !called {
            return refused("tool_choice", "there is no such tool");
        }
        if tools.is_empty() {
            return Ok(());
        }
        if self.template.calls.is_none() || !matches!(request.input, Input::Messages(_)) {
            return Err(EngineError::Unsupported("tools"));
        }
        // The answer cannot be one thing and another.
        match request.format {
            Format::Text => Ok(()),
            _ => Err(EngineError::Unsupported("response_format")),
        }
    }

    fn check_input(&self, input: &Input, tools: &[Tool]) -> Result<(), EngineError> {
        match input {
            Input::Messages(messages) => self.check_messages(messages, tools),
            Input::Text(text) => self.check_bytes(text.expose().len()),
            Input::Tokens(tokens) => {
                let known = |token: &u32| (*token as usize) < self.settings.vocabulary;
                match tokens.iter().all(known) {
                    true => Ok(()),
                    false => Err(EngineError::Invalid("a token is not in the vocabulary")),
                }
            }
        }
    }

    pub(super) fn check_messages(
        &self,
        messages: &[Message],
        tools: &[Tool],
    ) -> Result<(), EngineError> {
        if messages.is_empty() {
            return Err(EngineError::Invalid("messages must not be empty"));
        }
        if messages.len() > self.options.max_messages {
            return Err(EngineError::Invalid("too many messages"));
        }
        let definitions = tools.iter().map(|tool| schema::bytes(&tool.definition));
        let texts = messages.iter().map(Message::bytes);
        self.check_bytes(texts.chain(definitions).fold(0, usize::saturating_add))
    }

    fn check_bytes(&self, bytes: usize) -> Result<(), EngineError> {
        if bytes > self.options.max_prompt_bytes {
            return Err(EngineError::Invalid("messages are too long"));
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
