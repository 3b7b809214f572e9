use std::sync::Arc;

use crate::{EngineError, Text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    /// The name that chat templates know.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

pub struct Message {
    pub role: Role,
    pub content: Text,
}

/// One conversation to continue.
pub struct ChatRequest {
    pub messages: Vec<Message>,
    /// Tokens to make at most; clipped to what the context and [`EngineOptions::max_new_tokens`](crate::EngineOptions)
    /// leave. `None` means as many as they leave.
    pub max_tokens: Option<u32>,
    /// 0 picks the likeliest token every time; at most 2.
    pub temperature: f32,
    /// Sample from the likeliest tokens that together reach this probability, 0 to 1.
    pub top_p: f32,
    /// The same seed, request, model and build give the same text.
    pub seed: Option<u64>,
    /// The answer ends before the first of these.
    pub stop: Vec<Text>,
    /// Who asks. Callers share the model evenly, and only requests of the same caller have use of a beginning that was read before.
    pub caller: Arc<str>,
}

impl ChatRequest {
    /// A request with the defaults of the OpenAI API: temperature 1, no nucleus, no seed, no stop string.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            max_tokens: None,
            temperature: 1.0,
            top_p: 1.0,
            seed: None,
            stop: Vec::new(),
            caller: Arc::default(),
        }
    }
}

/// What a chat answer consists of: any number of `Delta`, then exactly one `Done` or `Failed`.
pub enum ChatEvent {
    /// Whole characters, never a part of a stop string.
    Delta(Text),
    Done {
        finish_reason: FinishReason,
        usage: Usage,
    },
    Failed(EngineError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn, or a stop string was reached.
    Stop,
    /// `max_tokens` or the context was used up.
    Length,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u32,
    /// Tokens sampled, with the one that ended the turn.
    pub completion_tokens: u32,
}

/// One unit-length vector per input, in the order of the inputs.
pub struct Embeddings {
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs, with the special tokens of the tokenizer.
    pub prompt_tokens: u32,
}

/// How relevant each document is for the query, in the order of the documents.
pub struct Ranking {
    /// What the model says, any number; the logistic function of it is between 0 and 1.
    pub scores: Vec<f32>,
    /// Tokens of all pairs of query and document, with the special tokens of the tokenizer.
    pub prompt_tokens: u32,
}
