use std::io;

/// Why a request was not answered. Holds no text of a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Try again later: nothing was queued.
    #[error("the queue is full")]
    Overloaded,
    #[error("{requested} tokens were requested, the limit is {limit}")]
    ContextLength { limit: usize, requested: usize },
    /// Known by its bytes alone, so nobody counted.
    #[error("the text is longer than {limit} tokens")]
    TextTooLong { limit: usize },
    #[error("{requested} inputs were requested, the limit is {limit}")]
    TooManyInputs { limit: usize, requested: usize },
    #[error("the model does not answer this kind of request")]
    WrongKind,
    /// The model's chat template refused these messages, or could not be rendered for them.
    #[error("the chat template of the model refuses these messages")]
    Template,
    #[error("{0}")]
    Invalid(&'static str),
    /// The model cannot do what this field asks for.
    #[error("the model does not take {0}")]
    Unsupported(&'static str),
    /// A schema of the caller, in this field.
    #[error("{field}: {problem}")]
    Schema {
        field: &'static str,
        problem: &'static str,
    },
    /// The answer took longer than [`EngineOptions::deadline`](crate::EngineOptions).
    #[error("the request took too long")]
    Deadline,
    #[error("the engine was stopped")]
    Stopped,
    /// A bug, or weights that do not compute; the engine reports itself unhealthy after a panic.
    #[error("internal error of the engine")]
    Internal,
}

/// Why a model was not loaded. Each names the file, and the field or tensor in it, that must change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    #[error("engine option {field}: {problem}")]
    Option {
        field: &'static str,
        problem: &'static str,
    },
    #[error("{file}: missing from the model")]
    MissingFile { file: String },
    #[error("{file}: cannot be read")]
    Read { file: String, source: io::Error },
    #[error("{file}: {actual} bytes, the limit is {limit}")]
    FileTooLarge {
        file: String,
        limit: u64,
        actual: u64,
    },
    #[error("{file}: {problem}")]
    Malformed { file: String, problem: String },
    #[error("{file}: field {field}: {problem}")]
    Field {
        file: String,
        field: String,
        problem: String,
    },
    #[error("tensor {name}: missing from the weights")]
    MissingTensor { name: String },
    #[error("{file}: tensor {name}: {problem}")]
    Tensor {
        file: String,
        name: String,
        problem: String,
    },
    /// Found before any of it was taken.
    #[error("the model takes {needed} bytes of memory, {available} are available")]
    Memory { needed: u64, available: u64 },
    #[error("the model does not compute")]
    Compute(#[source] candle_core::Error),
    #[error("the model's first step gives values that are not finite")]
    NotFinite,
    #[error("cannot start the engine's threads")]
    Threads(#[source] Box<dyn std::error::Error + Send + Sync>),
}
