//! The JSON of an answer: OpenAI's `chat.completion` and `chat.completion.chunk`.

use engine::{FinishReason, Usage};
use serde::{Serialize, Serializer};

use crate::models::Model;

/// What all parts of one answer share.
pub(crate) struct Head {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
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
            id: format!("chatcmpl-{id}"),
            created,
            model: model.to_owned(),
            fingerprint: format!("fp_{}", manifest.get(..12).unwrap_or_default()),
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
    choices: [Choice<'a>; 1],
    usage: Counts,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: (),
    finish_reason: Finish,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: (),
}

impl<'a> Completion<'a> {
    pub(crate) fn new(head: &'a Head, text: &'a str, finish: FinishReason, usage: Usage) -> Self {
        Self {
            id: &head.id,
            object: "chat.completion",
            created: head.created,
            model: &head.model,
            system_fingerprint: &head.fingerprint,
            choices: [Choice {
                index: 0,
                message: Message {
                    role: "assistant",
                    content: text,
                    refusal: (),
                },
                logprobs: (),
                finish_reason: Finish(finish),
            }],
            usage: Counts::from(usage),
        }
    }
}

/// One event of a stream.
#[derive(Serialize)]
pub(crate) struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<ChunkChoice<'a>>,
    /// Absent unless asked for; then `null` in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Counts>>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: (),
    finish_reason: Option<Finish>,
}

/// What a chunk adds.
#[derive(Serialize, Default)]
pub(crate) struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

impl<'a> Delta<'a> {
    pub(crate) fn role() -> Self {
        Self {
            role: Some("assistant"),
            content: Some(""),
        }
    }

    pub(crate) fn text(text: &'a str) -> Self {
        Self {
            role: None,
            content: Some(text),
        }
    }
}

impl<'a> Chunk<'a> {
    pub(crate) fn delta(head: &'a Head, delta: Delta<'a>, with_usage: bool) -> Self {
        Self::choice(head, delta, None, with_usage)
    }

    pub(crate) fn finish(head: &'a Head, finish: FinishReason, with_usage: bool) -> Self {
        Self::choice(head, Delta::default(), Some(Finish(finish)), with_usage)
    }

    /// The last chunk of a stream that was asked to count: no choice, only the counts.
    pub(crate) fn usage(head: &'a Head, usage: Usage) -> Self {
        Self {
            usage: Some(Some(usage.into())),
            ..Self::new(head, Vec::new())
        }
    }

    fn choice(head: &'a Head, delta: Delta<'a>, finish: Option<Finish>, with_usage: bool) -> Self {
        let choice = ChunkChoice {
            index: 0,
            delta,
            logprobs: (),
            finish_reason: finish,
        };
        Self {
            usage: with_usage.then_some(None),
            ..Self::new(head, vec![choice])
        }
    }

    fn new(head: &'a Head, choices: Vec<ChunkChoice<'a>>) -> Self {
        Self {
            id: &head.id,
            object: "chat.completion.chunk",
            created: head.created,
            model: &head.model,
            system_fingerprint: &head.fingerprint,
            choices,
            usage: None,
        }
    }
}

#[derive(Serialize)]
struct Counts {
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

struct Finish(FinishReason);

impl Serialize for Finish {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self.0 {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        })
    }
}
