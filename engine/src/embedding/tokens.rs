//! Inputs that a caller has tokenized itself.

use std::future::Future;

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{EmbedJob, Embedding};
use crate::{EngineError, request::Embeddings};

impl Embedding {
    pub(crate) fn start_tokens(
        &self,
        inputs: Vec<Zeroizing<Vec<u32>>>,
    ) -> Result<impl Future<Output = Result<Embeddings, EngineError>> + Send + use<>, EngineError>
    {
        if inputs.is_empty() || inputs.iter().any(|input| input.is_empty()) {
            return Err(EngineError::Invalid("an input has no tokens"));
        }
        if inputs.len() > self.options.max_batch_inputs {
            return Err(EngineError::TooManyInputs {
                limit: self.options.max_batch_inputs,
                requested: inputs.len(),
            });
        }
        let longest = inputs.iter().map(|input| input.len()).max().unwrap_or(0);
        let total = inputs.iter().map(|input| input.len()).sum();
        for (limit, requested) in [
            (self.max_input_tokens, longest),
            (self.options.max_prompt_tokens, total),
        ] {
            if requested > limit {
                return Err(EngineError::ContextLength { limit, requested });
            }
        }
        // Every token of the tokenizer is in the model's table, which was checked at the load.
        if !inputs
            .iter()
            .flat_map(|input| input.iter())
            .all(|token| self.vocabulary.has(*token))
        {
            return Err(EngineError::Invalid("a token is not in the vocabulary"));
        }
        let place = self.queue.reserve()?;
        let (answer, result) = oneshot::channel();
        place.fill(EmbedJob { inputs, answer });
        Ok(async move { result.await.unwrap_or(Err(EngineError::Stopped)) })
    }
}
