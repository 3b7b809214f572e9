//! candle: model families, sampling, chat templates. Knows no TLS, no attestation and no network.
//!
//! # Layout
//!
//! - [`ModelFiles`] is the seam to the plaintext of a model; [`Engine::load`] reads it once.
//! - [`Engine`] is the handle: admission, templates and tokenizing happen on the caller's thread, everything that touches
//!   weights on one owned thread behind a bounded queue.
//! - `llama` and `bert` are the families, `weights` reads safetensors and GGUF tensor by tensor into their only plaintext copy.
//! - `ggml` puts a GGUF file into the words of a Hugging Face directory; `linear` is where products with weights are made.
//! - `scheduler` decides what runs in each step, `kv` keeps keys and values in blocks, `attention` reads them.
//! - `chat` turns a request into tokens and tokens into text; `embedding` does so for encoders, and shares their passes.
//!
//! Text that came from a user is a [`Text`]: never logged, never part of an error.

mod attention;
mod bert;
mod chat;
mod decoder;
mod embedding;
mod engine;
mod error;
mod fields;
mod files;
#[cfg(test)]
mod fixtures;
mod gate;
mod ggml;
mod kv;
mod linear;
mod llama;
mod load;
mod options;
mod parallel;
mod product;
mod request;
mod rows;
mod scheduler;
mod shared;
mod text;
mod threads;
mod tokenize;
mod tools;
mod turns;
mod vocabulary;
mod weights;
mod worker;

pub use engine::{Engine, ModelKind};
pub use error::{EngineError, LoadError};
pub use files::{DirFiles, ModelFiles};
pub use options::{Clock, EngineOptions, Quantize};
pub use request::{
    ChatEvent, ChatRequest, Embeddings, FinishReason, Format, Input, Message, Piece, Ranking, Role,
    TokenChance, TokenLogprob, Usage,
};
pub use shared::{Health, Stats};
pub use text::Text;
pub use tools::{Tool, ToolCall, ToolChoice, Tools};
