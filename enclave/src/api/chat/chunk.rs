//! The JSON of one event of a stream: OpenAI's `chat.completion.chunk`.

use engine::{FinishReason, Piece, ToolCall, Usage};
use serde::Serialize;

use super::answer::{Call, Counts, Finish, Head};
use super::logprobs::Logprobs;

#[derive(Serialize)]
pub(crate) struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<Choice<'a>>,
    /// Absent unless asked for; then `null` in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Counts>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<Finish>,
}

/// What a chunk adds.
#[derive(Serialize, Default)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta<'a>; 1]>,
}

#[derive(Serialize)]
struct CallDelta<'a> {
    index: u32,
    #[serde(flatten)]
    call: Call<'a>,
}

impl<'a> Chunk<'a> {
    /// The first of a choice.
    pub(crate) fn role(head: &'a Head, choice: u32) -> Self {
        let delta = Delta {
            role: Some("assistant"),
            content: Some(""),
            ..Delta::default()
        };
        Self::delta(head, choice, delta)
    }

    pub(crate) fn text(head: &'a Head, piece: &'a Piece) -> Self {
        let delta = Delta {
            content: Some(piece.text.expose()),
            ..Delta::default()
        };
        let mut chunk = Self::delta(head, piece.choice, delta);
        for choice in &mut chunk.choices {
            choice.logprobs = Logprobs::of(head.logprobs, &piece.logprobs);
        }
        chunk
    }

    /// `index` is its place among the calls of the choice.
    pub(crate) fn call(head: &'a Head, choice: u32, index: u32, call: &'a ToolCall) -> Self {
        let call = CallDelta {
            index,
            call: Call::new(call),
        };
        let delta = Delta {
            tool_calls: Some([call]),
            ..Delta::default()
        };
        Self::delta(head, choice, delta)
    }

    /// The last of a choice.
    pub(crate) fn finish(head: &'a Head, choice: u32, finish: FinishReason) -> Self {
        let mut chunk = Self::delta(head, choice, Delta::default());
        for choice in &mut chunk.choices {
            choice.finish_reason = Some(Finish(finish));
        }
        chunk
    }

    /// The last chunk of a stream that was asked to count: no choice, only the counts.
    pub(crate) fn usage(head: &'a Head, usage: Usage) -> Self {
        Self {
            usage: Some(Some(usage.into())),
            ..Self::new(head, Vec::new())
        }
    }

    pub(crate) fn with_usage(mut self, asked: bool) -> Self {
        if self.usage.is_none() && asked {
            self.usage = Some(None);
        }
        self
    }

    fn delta(head: &'a Head, index: u32, delta: Delta<'a>) -> Self {
        let choice = Choice {
            index,
            delta,
            logprobs: None,
            finish_reason: None,
        };
        Self::new(head, vec![choice])
    }

    fn new(head: &'a Head, choices: Vec<Choice<'a>>) -> Self {
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
