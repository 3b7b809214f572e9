//! Embeddings: from texts to token batches of a bounded size, and back into the order of the request.

mod batch;
mod tokens;

use std::{future::Future, sync::Arc};

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::{
    EngineError, EngineOptions, Text,
    gate::{Gate, Job},
    request::Embeddings,
    turns::Turns,
    vocabulary::{Vocabulary, check_length},
};
pub(crate) use batch::{Batch, plan};

/// An embedding model: one pass over a padded batch.
pub(crate) trait Encoder: Send {
    /// One vector per input of the batch, in its order.
    fn encode(&self, batch: &Batch<'_>) -> candle_core::Result<Vec<Vec<f32>>>;
}

/// A checked request, ready to run.
pub(crate) struct EmbedJob {
    /// At least one token each.
    pub(crate) inputs: Vec<Zeroizing<Vec<u32>>>,
    pub(crate) answer: oneshot::Sender<Result<Embeddings, EngineError>>,
}

impl Job for EmbedJob {
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
}

/// The caller's side of an embedding model.
pub(crate) struct Embedding {
    pub(crate) queue: Gate<EmbedJob>,
    pub(crate) vocabulary: Arc<Vocabulary>,
    pub(crate) dimensions: usize,
    pub(crate) max_input_tokens: usize,
    pub(crate) turns: Turns,
    pub(crate) options: EngineOptions,
}

impl Embedding {
    pub(crate) fn start(
        &self,
        inputs: Vec<Text>,
    ) -> Result<impl Future<Output = Result<Embeddings, EngineError>> + Send + use<>, EngineError>
    {
        if inputs.is_empty() {
            return Err(EngineError::Invalid("inputs must not be empty"));
        }
        if inputs.len() > self.options.max_batch_inputs {
            return Err(EngineError::TooManyInputs {
                limit: self.options.max_batch_inputs,
                requested: inputs.len(),
            });
        }
        if inputs
            .iter()
            .map(|input| input.expose().len())
            .sum::<usize>()
            > self.options.max_prompt_bytes
        {
            return Err(EngineError::Invalid("inputs are too long"));
        }
        for input in &inputs {
            check_length(input.expose().len(), self.max_input_tokens)?;
        }

        let place = self.queue.reserve()?;
        let turn = self.turns.take();
        let inputs = inputs
            .iter()
            .map(|input| self.encode(input))
            .collect::<Result<Vec<_>, _>>()?;
        drop(turn);
        let total: usize = inputs.iter().map(|input| input.len()).sum();
        if total > self.options.max_prompt_tokens {
            return Err(EngineError::ContextLength {
                limit: self.options.max_prompt_tokens,
                requested: total,
            });
        }
        let (answer, result) = oneshot::channel();
        place.fill(EmbedJob { inputs, answer });
        Ok(async move { result.await.unwrap_or(Err(EngineError::Stopped)) })
    }

    fn encode(&self, input: &Text) -> Result<Zeroizing<Vec<u32>>, EngineError> {
        let tokens = self.vocabulary.encode(input.expose(), true)?;
        if tokens.is_empty() {
            return Err(EngineError::Invalid("an input has no tokens"));
        }
        if tokens.len() > self.max_input_tokens {
            return Err(EngineError::ContextLength {
                limit: self.max_input_tokens,
                requested: tokens.len(),
            });
        }
        Ok(tokens)
    }
}
