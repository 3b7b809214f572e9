//! What a chat request may say, and what it may not: a field that would change the answer and is not implemented is
//! refused by name; a field that would not, or that nobody knows, is ignored.

use engine::ChatRequest;
use serde::de::MapAccess;

use super::message::{RawMessage, conversation};
use super::tools::{format, tool_choice, tools};
use crate::api::error::ApiError;
use crate::api::generation::{self, Word, out_of_range};
use crate::api::json::Json;
use crate::api::object::{self, Asked};
use crate::config::Limits;

/// OpenAI's own limit.
const MAX_TOP_LOGPROBS: u8 = 20;

/// The fields as they were sent.
#[derive(Default)]
pub(crate) struct Fields {
    generation: generation::Fields,
    messages: Option<Vec<RawMessage>>,
    max_completion_tokens: Option<u32>,
    logprobs: Option<bool>,
    top_logprobs: Option<u8>,
    response_format: Option<Json>,
    tools: Option<Json>,
    tool_choice: Option<Json>,
    parallel_tool_calls: Option<bool>,
    /// The first field that asks for something not implemented.
    refused: Option<&'static str>,
}

impl object::Fields for Fields {
    const NAMES: &'static [&'static str] = &[
        "messages",
        "max_completion_tokens",
        "logprobs",
        "top_logprobs",
        "response_format",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        // Refused unless they say what happens anyway.
        "best_of",
        "function_call",
        "modalities",
        "reasoning_effort",
        "verbosity",
        // Refused unless null, false, zero or empty.
        "functions",
        "audio",
        "web_search_options",
        "min_tokens",
        "ignore_eos",
        "echo",
        "bad_words",
        "continue_final_message",
        "structured_outputs",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
    ];
    const SHARED: &'static [&'static str] = generation::NAMES;

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        if generation::NAMES.contains(&name) {
            return self.generation.read(name, map);
        }
        let asks = match name {
            "messages" => return map.next_value().map(|value| self.messages = value),
            "max_completion_tokens" => {
                return map
                    .next_value()
                    .map(|value| self.max_completion_tokens = value);
            }
            "logprobs" => return map.next_value().map(|value| self.logprobs = value),
            "top_logprobs" => return map.next_value().map(|value| self.top_logprobs = value),
            "response_format" => {
                return map.next_value().map(|value| self.response_format = value);
            }
            "tools" => return map.next_value().map(|value| self.tools = value),
            "tool_choice" => return map.next_value().map(|value| self.tool_choice = value),
            "parallel_tool_calls" => {
                return map
                    .next_value()
                    .map(|value| self.parallel_tool_calls = value);
            }
            "best_of" => map
                .next_value::<Option<u64>>()?
                .is_some_and(|count| count != 1),
            "function_call" => !map.next_value::<Word>()?.is_one_of(&["none", "auto"]),
            "reasoning_effort" => !map.next_value::<Word>()?.is_one_of(&["none"]),
            "verbosity" => !map.next_value::<Word>()?.is_one_of(&["medium"]),
            "modalities" => map
                .next_value::<Option<Vec<Word>>>()?
                .is_some_and(|words| words.iter().any(|word| !word.is_one_of(&["text"]))),
            _ => map.next_value::<Asked>()?.0,
        };
        if asks {
            self.refused.get_or_insert(name);
        }
        Ok(())
    }
}

impl Fields {
    pub(crate) fn check(self, limits: &Limits) -> Result<generation::Request, ApiError> {
        if let Some(name) = self.refused {
            return Err(ApiError::unsupported(name));
        }
        let messages = self.messages.ok_or_else(|| ApiError::missing("messages"))?;
        let messages = conversation(messages, limits.max_messages)?;
        let chat = ChatRequest {
            tools: tools(self.tools)?,
            tool_choice: tool_choice(self.tool_choice)?,
            parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
            format: format(self.response_format)?,
            max_tokens: max_tokens(self.generation.max_tokens, self.max_completion_tokens)?,
            logprobs: logprobs(self.logprobs, self.top_logprobs)?,
            ..ChatRequest::new(messages)
        };
        self.generation.check(chat, limits)
    }
}

/// The newer name and the older one mean the same; both at once must agree.
fn max_tokens(older: Option<u32>, newer: Option<u32>) -> Result<Option<u32>, ApiError> {
    match (older, newer) {
        (Some(older), Some(newer)) if older != newer => Err(ApiError::invalid(
            "max_completion_tokens",
            "`max_tokens` and `max_completion_tokens` differ; send one of them",
        )),
        (_, Some(0)) => Err(out_of_range("max_completion_tokens", "at least 1")),
        (older, newer) => Ok(newer.or(older)),
    }
}

fn logprobs(asked: Option<bool>, top: Option<u8>) -> Result<Option<u8>, ApiError> {
    let top = top.unwrap_or(0);
    match asked.unwrap_or(false) {
        _ if top > MAX_TOP_LOGPROBS => Err(out_of_range("top_logprobs", "0 to 20")),
        true => Ok(Some(top)),
        false if top > 0 => Err(ApiError::invalid(
            "top_logprobs",
            "`top_logprobs` needs `logprobs` to be true",
        )),
        false => Ok(None),
    }
}
