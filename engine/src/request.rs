use std::sync::Arc;

use zeroize::Zeroizing;

use crate::{EngineError, Text, Tool, ToolCall, ToolChoice, Tools};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
    /// What a tool gave back.
    Tool,
}

impl Role {
    /// The name that chat templates know.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

pub struct Message {
    pub role: Role,
    pub content: Text,
    /// Of an assistant: the calls it made in this turn.
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool: the call it answers.
    pub tool_call_id: Option<Text>,
}

impl Message {
    pub fn new(role: Role, content: Text) -> Self {
        Self {
            role,
            content,
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }

    /// Bytes that a template may write of it.
    pub(crate) fn bytes(&self) -> usize {
        let id = self.tool_call_id.as_ref().map_or(0, |id| id.expose().len());
        let calls = self.tool_calls.iter().map(ToolCall::bytes).sum::<usize>();
        self.content.expose().len() + id + calls
    }
}

/// What a request goes on from.
pub enum Input {
    /// A conversation, which the model's template puts into words.
    Messages(Vec<Message>),
    /// Text as it is, with what the tokenizer itself puts before it.
    Text(Text),
    /// Tokens as they are.
    Tokens(Zeroizing<Vec<u32>>),
}

/// What the answer must be; the sampler leaves the model no other choice.
#[derive(Default)]
pub enum Format {
    #[default]
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that this schema describes.
    JsonSchema(serde_json::Value),
}

/// One conversation or text to continue.
pub struct ChatRequest {
    pub input: Input,
    pub tools: Tools,
    pub tool_choice: ToolChoice,
    /// False ends the answer with its first call.
    pub parallel_tool_calls: bool,
    pub format: Format,
    /// Answers to make, each drawn by itself; at least 1.
    pub choices: u32,
    /// Tokens to make at most for each choice; clipped to what the context and
    /// [`EngineOptions::max_new_tokens`](crate::EngineOptions) leave. `None` means as many as they leave.
    pub max_tokens: Option<u32>,
    /// 0 picks the likeliest token every time; at most 2.
    pub temperature: f32,
    /// Sample from the likeliest tokens that together reach this probability, 0 to 1.
    pub top_p: f32,
    /// Sample from so many of the likeliest tokens; 0 for all.
    pub top_k: u32,
    /// Sample from tokens that are at least so likely, compared with the likeliest; 0 to 1.
    pub min_p: f32,
    /// Taken from the logit of a token that was made before; -2 to 2.
    pub presence_penalty: f32,
    /// Taken from the logit of a token for each time that it was made before; -2 to 2.
    pub frequency_penalty: f32,
    /// What the logit of a token is divided by (multiplied if negative) that the prompt or the answer has; above 0, at most 10.
    pub repetition_penalty: f32,
    /// Added to the logits of tokens; -100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed, request, model and build give the same text. Each choice has a seed of its own, made from this one.
    pub seed: Option<u64>,
    /// The answer ends before the first of these.
    pub stop: Vec<Text>,
    /// Tell how likely each token was, and so many of the likeliest in its place (at most 20).
    pub logprobs: Option<u8>,
    /// Who asks. Callers share the model evenly, and only requests of the same caller have use of a beginning that was read before.
    pub caller: Arc<str>,
}

impl ChatRequest {
    /// A request with the defaults of the OpenAI API: temperature 1, no nucleus, no seed, no stop string.
    pub fn new(messages: Vec<Message>) -> Self {
        Self::of(Input::Messages(messages))
    }

    /// The tools that the model may call.
    pub(crate) fn shown_tools(&self) -> &[Tool] {
        match self.tool_choice {
            ToolChoice::None => &[],
            _ => &self.tools.0,
        }
    }

    /// As [`ChatRequest::new`], of any input.
    pub fn of(input: Input) -> Self {
        Self {
            input,
            tools: Tools::default(),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            format: Format::Text,
            choices: 1,
            max_tokens: None,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: None,
            stop: Vec::new(),
            logprobs: None,
            caller: Arc::default(),
        }
    }
}

/// What the answer to a request consists of: for each choice any number of `Delta` and `ToolCall`, then one `Ended`; those of several
/// choices mix. After the last `Ended` comes one `Done`; `Failed` instead ends it at any time.
pub enum ChatEvent {
    Delta(Piece),
    ToolCall {
        choice: u32,
        call: ToolCall,
    },
    Ended {
        choice: u32,
        finish_reason: FinishReason,
    },
    /// Prompt tokens count once, completion tokens of all choices.
    Done {
        usage: Usage,
    },
    Failed(EngineError),
}

/// What one choice goes on with.
pub struct Piece {
    pub choice: u32,
    /// Whole characters, never a part of a stop string. Empty only where there are `logprobs` of tokens without a text.
    pub text: Text,
    /// Of the tokens whose text this completes, if they were asked for.
    pub logprobs: Vec<TokenLogprob>,
}

/// How likely a token was by the model itself: before penalties, bias, temperature and format.
pub struct TokenLogprob {
    pub token: TokenChance,
    /// The likeliest in its place, first the likeliest.
    pub top: Vec<TokenChance>,
}

pub struct TokenChance {
    /// Part of a character, maybe.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Natural logarithm; finite.
    pub logprob: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn, a stop string was reached, or the format is complete.
    Stop,
    /// `max_tokens` or the context was used up.
    Length,
    /// The model asks for the results of tools.
    ToolCalls,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
