//! The JSON of a whole answer: OpenAI's `chat.completion`.

use engine::{FinishReason, ToolCall, Usage};
use serde::{Serialize, Serializer};

use super::logprobs::Logprobs;
use super::whole::{Whole, WholeChoice};
use crate::models::Model;

/// What all parts of one answer share.
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
    /// Whether the caller wants to know how likely tokens were.
    pub(crate) logprobs: bool,
}

impl Head {
    pub(crate) fn new(id: String, created: u64, model: &Model) -> Self {
        Self::named(
            id,
            created,
            model.name(),
            &model.identity().manifest_sha256.to_string(),
        )
    }

    /// The fingerprint is the beginning of the manifest's digest: the same sealed model, the same fingerprint.
    pub(crate) fn named(id: String, created: u64, model: &str, manifest: &str) -> Self {
        Self {
            id,
            created,
            model: model.to_owned(),
            fingerprint: format!("fp_{}", manifest.get(..12).unwrap_or_default()),
            logprobs: false,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<Choice<'a>>,
    usage: Counts,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<Finish>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    /// `null` beside calls, if there is no text.
    content: Option<&'a str>,
    refusal: (),
    #[serde(skip_serializing_if = "<[Call<'_>]>::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

impl<'a> Completion<'a> {
    pub(crate) fn new(head: &'a Head, whole: &'a Whole) -> Self {
        let choices = whole.choices.iter().enumerate();
        Self {
            id: &head.id,
            object: "chat.completion",
            created: head.created,
            model: &head.model,
            system_fingerprint: &head.fingerprint,
            choices: choices
                .map(|(index, choice)| Choice::new(head, index, choice))
                .collect(),
            usage: whole.usage.into(),
        }
    }
}

impl<'a> Choice<'a> {
    fn new(head: &Head, index: usize, choice: &'a WholeChoice) -> Self {
        let silent = choice.text.is_empty() && !choice.calls.is_empty();
        Self {
            index,
            message: Message {
                role: "assistant",
                content: (!silent).then_some(choice.text.as_str()),
                refusal: (),
                tool_calls: choice.calls.iter().map(Call::new).collect(),
            },
            logprobs: Logprobs::of(head.logprobs, &choice.logprobs),
            finish_reason: choice.finish.map(Finish),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Call<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a str,
}

impl<'a> Call<'a> {
    pub(crate) fn new(call: &'a ToolCall) -> Self {
        Self {
            id: &call.id,
            kind: "function",
            function: Function {
                name: &call.name,
                arguments: call.arguments.expose(),
            },
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Counts {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
}

impl From<Usage> for Counts {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
        }
    }
}

pub(crate) struct Finish(pub(crate) FinishReason);

impl Serialize for Finish {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self.0 {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
        })
    }
}
