//! What a completion request may say.

use engine::{ChatRequest, Input};
use serde::de::MapAccess;

use crate::api::error::ApiError;
use crate::api::generation::{self, out_of_range};
use crate::api::inputs::Inputs;
use crate::api::object::{self, Asked};
use crate::config::Limits;

/// OpenAI's own limit.
const MAX_LOGPROBS: u8 = 5;

/// The fields as they were sent.
#[derive(Default)]
pub(crate) struct Fields {
    generation: generation::Fields,
    prompt: Option<Inputs>,
    logprobs: Option<u8>,
    /// The first field that asks for something not implemented.
    refused: Option<&'static str>,
}

impl object::Fields for Fields {
    const NAMES: &'static [&'static str] = &[
        "prompt",
        "logprobs",
        // Refused unless it says what happens anyway.
        "best_of",
        // Refused unless null, false, zero or empty.
        "echo",
        "suffix",
        "min_tokens",
        "ignore_eos",
        "bad_words",
        "response_format",
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
            "prompt" => return map.next_value().map(|value| self.prompt = value),
            "logprobs" => return map.next_value().map(|value| self.logprobs = value),
            "best_of" => map
                .next_value::<Option<u64>>()?
                .is_some_and(|count| count != 1),
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
    /// One for each prompt, the same but for that.
    pub(crate) prompts: Vec<ChatRequest>,
    /// Of each prompt.
    pub(crate) choices: u32,
    pub(crate) logprobs: bool,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

impl Fields {
    pub(crate) fn check(self, limits: &Limits) -> Result<Request, ApiError> {
        if let Some(name) = self.refused {
            return Err(ApiError::unsupported(name));
        }
        let most = usize::try_from(limits.max_choices).unwrap_or(usize::MAX);
        let inputs = self.prompt.ok_or_else(|| ApiError::missing("prompt"))?;
        let inputs = inputs.check("prompt", most)?;
        if self.logprobs.is_some_and(|count| count > MAX_LOGPROBS) {
            return Err(out_of_range("logprobs", "0 to 5"));
        }
        let first = ChatRequest {
            logprobs: self.logprobs,
            ..ChatRequest::new(Vec::new())
        };
        let checked = self.generation.check(first, limits)?;
        let like = checked.chat;
        let choices = usize::try_from(like.choices).unwrap_or(usize::MAX);
        if inputs.len().saturating_mul(choices) > most {
            return Err(ApiError::invalid(
                "n",
                format!("`n` times the number of prompts must be at most {most}"),
            ));
        }
        Ok(Request {
            model: checked.model,
            prompts: inputs
                .into_iter()
                .map(|input| with_input(&like, input))
                .collect(),
            choices: like.choices,
            logprobs: self.logprobs.is_some(),
            stream: checked.stream,
            include_usage: checked.include_usage,
        })
    }
}

fn with_input(like: &ChatRequest, input: Input) -> ChatRequest {
    ChatRequest {
        choices: like.choices,
        // OpenAI's default for completions.
        max_tokens: Some(like.max_tokens.unwrap_or(16)),
        temperature: like.temperature,
        top_p: like.top_p,
        top_k: like.top_k,
        min_p: like.min_p,
        presence_penalty: like.presence_penalty,
        frequency_penalty: like.frequency_penalty,
        repetition_penalty: like.repetition_penalty,
        logit_bias: like.logit_bias.clone(),
        seed: like.seed,
        stop: like
            .stop
            .iter()
            .map(|stop| engine::Text::new(stop.expose().to_owned()))
            .collect(),
        logprobs: like.logprobs,
        ..ChatRequest::of(input)
    }
}
