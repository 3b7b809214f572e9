use std::{
    num::NonZero,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::LoadError;

/// Where a chat template learns the date.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A block format of ggml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantize {
    /// Eight bits and a scale for each 32.
    Q8_0,
    /// Four bits, with two levels of scales for each 256; the vocabulary's matrix in six bits, since it decides between tokens. Rows of
    /// another length take [`Quantize::Q8_0`].
    Q4K,
}

impl Quantize {
    /// By the name that configurations give it.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "q8_0" => Some(Self::Q8_0),
            "q4_k" => Some(Self::Q4K),
            _ => None,
        }
    }
}

/// Capacity and limits. The defaults suit one model on one machine.
#[derive(Clone)]
pub struct EngineOptions {
    /// Requests that may wait; one more is answered [`Overloaded`](crate::EngineError::Overloaded).
    pub queue: usize,
    /// Threads that compute. The program's environment should say the same in `RAYON_NUM_THREADS`:
    /// candle splits its products by it, sizes its process-wide helpers for large element-wise
    /// operations by it, and without it reads /proc/cpuinfo before each product.
    pub threads: usize,
    /// Each of them stays on a processor of its own, of those that the process may use: steps take more alike, and other programs on
    /// these processors, other models among them, are not made way for. On Linux.
    pub pin_threads: bool,
    /// Tokens of a rendered conversation, or of all inputs of one embedding request.
    pub max_prompt_tokens: usize,
    /// Tokens made for one request.
    pub max_new_tokens: usize,
    /// Inputs of one embedding request.
    pub max_batch_inputs: usize,
    /// Messages of one conversation.
    pub max_messages: usize,
    /// Bytes of text in one request: bounds the work of the template and the tokenizer before tokens are counted.
    pub max_prompt_bytes: usize,
    /// Choices of one request, and not more than the queue has places: each takes one.
    pub max_choices: usize,
    /// Entries of `logit_bias`: each is work at every token.
    pub max_logit_bias: usize,
    /// Stop strings of one request: each is looked for at every token.
    pub max_stop_strings: usize,
    /// Tools of one request.
    pub max_tools: usize,
    /// A JSON schema, written without spaces.
    pub max_schema_bytes: usize,
    /// Objects and lists of a schema inside each other.
    pub max_schema_depth: usize,
    /// What the regular expressions that a schema becomes may cost, in steps of which there are some 50,000 in a millisecond.
    pub max_grammar_cost: u64,
    /// How long a request may take, from when it is queued.
    pub deadline: Duration,
    /// Choices that are made at the same time.
    pub max_sequences: usize,
    /// Prompt tokens per step, of all requests together, beside one token of each answer: a cancelled request frees its memory
    /// after at most one of these.
    pub prefill_chunk: usize,
    /// Memory for the keys and values of all requests at most; less if so many requests of the whole context take less. A request
    /// that alone would take more is refused.
    pub kv_cache_bytes: u64,
    /// Tokens, padding included, that one forward pass of an embedding model takes.
    pub batch_tokens: usize,
    /// What the matrices of a chat model become while they are read, unless they are quantized already.
    pub quantize: Option<Quantize>,
    /// Memory that the tensors and the keys and values may take. A model that needs more is refused before any of it is taken.
    pub max_weight_bytes: u64,
    /// Lets chat templates call `strftime_now`. Without it the function does not exist, and templates use their fallback.
    pub clock: Option<Clock>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            queue: 64,
            threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            pin_threads: false,
            max_prompt_tokens: 16_384,
            max_new_tokens: 4096,
            max_batch_inputs: 256,
            max_messages: 1024,
            max_prompt_bytes: 1 << 20,
            max_choices: 8,
            max_logit_bias: 300,
            max_stop_strings: 4,
            max_tools: 128,
            max_schema_bytes: 64 << 10,
            max_schema_depth: 32,
            max_grammar_cost: 500_000,
            deadline: Duration::from_secs(600),
            max_sequences: 16,
            prefill_chunk: 128,
            kv_cache_bytes: 1 << 30,
            batch_tokens: 2048,
            quantize: None,
            max_weight_bytes: u64::MAX,
            clock: None,
        }
    }
}

impl EngineOptions {
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let counts = [
            ("queue", self.queue),
            ("threads", self.threads),
            ("max_prompt_tokens", self.max_prompt_tokens),
            ("max_new_tokens", self.max_new_tokens),
            ("max_batch_inputs", self.max_batch_inputs),
            ("max_messages", self.max_messages),
            ("max_prompt_bytes", self.max_prompt_bytes),
            ("max_choices", self.max_choices),
            ("max_sequences", self.max_sequences),
            ("prefill_chunk", self.prefill_chunk),
            ("batch_tokens", self.batch_tokens),
        ];
        for (field, value) in counts {
            if value == 0 {
                return Err(LoadError::Option {
                    field,
                    problem: "must be at least 1",
                });
            }
            // Sums of these are formed later; token counts are reported as u32.
            if value > 1 << 30 {
                return Err(LoadError::Option {
                    field,
                    problem: "must be at most 1073741824",
                });
            }
        }
        if self.threads > MAX_THREADS {
            return Err(LoadError::Option {
                field: "threads",
                problem: "must be at most 1024",
            });
        }
        Ok(())
    }
}

/// More than any machine this runs on; a typo should not start a million threads.
const MAX_THREADS: usize = 1024;
