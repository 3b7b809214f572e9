//! What a chat request may say, and what it may not: a field that would change the answer and is not implemented is
//! refused by name; a field that would not, or that nobody knows, is ignored.

use std::sync::Arc;

use engine::{ChatRequest, Text};
use serde::Deserialize;
use serde::de::MapAccess;

use super::message::RawMessage;
use super::values::{ResponseFormat, Seed, Stop, Word};
use crate::api::error::ApiError;
use crate::api::object::{self, Asked};

/// A conversation longer than this is not one.
const MAX_MESSAGES: usize = 1024;
/// OpenAI's own limit.
const MAX_STOPS: usize = 4;
/// Each token of the answer is compared with all stop strings.
const MAX_STOP_BYTES: usize = 256;

/// The fields as they were sent.
#[derive(Default)]
pub(crate) struct Fields {
    model: Option<String>,
    messages: Option<Vec<RawMessage>>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    seed: Option<Seed>,
    stop: Option<Stop>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// The first field that asks for something not implemented.
    refused: Option<&'static str>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl object::Fields for Fields {
    const NAMES: &'static [&'static str] = &[
        "model",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "stream",
        "stream_options",
        // Refused unless they say what happens anyway.
        "n",
        "best_of",
        "top_k",
        "repetition_penalty",
        "tool_choice",
        "function_call",
        "response_format",
        "modalities",
        "reasoning_effort",
        "verbosity",
        // Refused unless null, false, zero or empty.
        "tools",
        "functions",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "presence_penalty",
        "frequency_penalty",
        "audio",
        "web_search_options",
        "min_p",
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

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let asks = match name {
            "model" => return map.next_value().map(|value| self.model = value),
            "messages" => return map.next_value().map(|value| self.messages = value),
            "max_tokens" => return map.next_value().map(|value| self.max_tokens = value),
            "max_completion_tokens" => {
                return map
                    .next_value()
                    .map(|value| self.max_completion_tokens = value);
            }
            "temperature" => return map.next_value().map(|value| self.temperature = value),
            "top_p" => return map.next_value().map(|value| self.top_p = value),
            "seed" => return map.next_value().map(|value| self.seed = value),
            "stop" => return map.next_value().map(|value| self.stop = value),
            "stream" => return map.next_value().map(|value| self.stream = value),
            "stream_options" => return map.next_value().map(|value| self.stream_options = value),
            "n" | "best_of" => map
                .next_value::<Option<u64>>()?
                .is_some_and(|count| count != 1),
            "top_k" => map.next_value::<Option<i64>>()?.is_some_and(|k| k > 0),
            "repetition_penalty" => map
                .next_value::<Option<f64>>()?
                .is_some_and(|penalty| penalty != 1.0),
            "tool_choice" | "function_call" => {
                !map.next_value::<Word>()?.is_one_of(&["none", "auto"])
            }
            "reasoning_effort" => !map.next_value::<Word>()?.is_one_of(&["none"]),
            "verbosity" => !map.next_value::<Word>()?.is_one_of(&["medium"]),
            "response_format" => map
                .next_value::<Option<ResponseFormat>>()?
                .is_some_and(|format| !format.is_text()),
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

/// The request, checked.
pub(crate) struct Request {
    pub(crate) model: String,
    pub(crate) chat: ChatRequest,
    pub(crate) stream: bool,
    /// Ends a stream with the token counts.
    pub(crate) include_usage: bool,
}

impl Fields {
    pub(crate) fn check(self) -> Result<Request, ApiError> {
        if let Some(name) = self.refused {
            return Err(ApiError::unsupported(name));
        }
        let model = self.model.ok_or_else(|| ApiError::missing("model"))?;
        let messages = self.messages.ok_or_else(|| ApiError::missing("messages"))?;
        if messages.is_empty() || messages.len() > MAX_MESSAGES {
            return Err(ApiError::invalid(
                "messages",
                format!("`messages` holds 1 to {MAX_MESSAGES} messages"),
            ));
        }
        let messages = messages
            .into_iter()
            .enumerate()
            .map(|(index, message)| message.check(index))
            .collect::<Result<_, _>>()?;
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            return Err(ApiError::invalid(
                "stream_options",
                "`stream_options` needs `stream` to be true",
            ));
        }
        let chat = ChatRequest {
            messages,
            max_tokens: max_tokens(self.max_tokens, self.max_completion_tokens)?,
            temperature: between("temperature", self.temperature.unwrap_or(1.0), 0.0, 2.0)?,
            top_p: between("top_p", self.top_p.unwrap_or(1.0), 0.0, 1.0)?,
            seed: self.seed.map(|seed| seed.0),
            stop: stops(self.stop)?,
            // Whoever has the connection says.
            caller: Arc::default(),
        };
        let include_usage = self
            .stream_options
            .and_then(|options| options.include_usage)
            .unwrap_or(false);
        Ok(Request {
            model,
            chat,
            stream,
            include_usage,
        })
    }
}

/// The newer name and the older one mean the same; both at once must agree.
fn max_tokens(older: Option<u32>, newer: Option<u32>) -> Result<Option<u32>, ApiError> {
    let (name, value) = match (older, newer) {
        (None, None) => return Ok(None),
        (Some(older), Some(newer)) if older != newer => {
            return Err(ApiError::invalid(
                "max_completion_tokens",
                "`max_tokens` and `max_completion_tokens` differ; send one of them",
            ));
        }
        (Some(value), None) => ("max_tokens", value),
        (_, Some(value)) => ("max_completion_tokens", value),
    };
    if value == 0 {
        return Err(ApiError::invalid(
            name,
            format!("`{name}` must be at least 1"),
        ));
    }
    Ok(Some(value))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "within 0 to 2, where rounding to f32 is all that happens"
)]
fn between(name: &'static str, value: f64, low: f64, high: f64) -> Result<f32, ApiError> {
    if (low..=high).contains(&value) {
        Ok(value as f32)
    } else {
        Err(ApiError::invalid(
            name,
            format!("`{name}` must be {low} to {high}"),
        ))
    }
}

fn stops(stop: Option<Stop>) -> Result<Vec<Text>, ApiError> {
    let Some(Stop(stops)) = stop else {
        return Ok(Vec::new());
    };
    if stops.len() > MAX_STOPS {
        return Err(ApiError::invalid(
            "stop",
            format!("`stop` holds at most {MAX_STOPS} strings"),
        ));
    }
    let fits = |stop: &Text| (1..=MAX_STOP_BYTES).contains(&stop.expose().len());
    if !stops.iter().all(fits) {
        return Err(ApiError::invalid(
            "stop",
            format!("each of `stop` has 1 to {MAX_STOP_BYTES} bytes"),
        ));
    }
    Ok(stops)
}
