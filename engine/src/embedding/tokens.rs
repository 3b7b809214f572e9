//! Inputs that a caller has tokenized itself.

use std::{future::Future, sync::Arc};

use zeroize::Zeroizing;

use super::{Embedding, Input, outcome};
use crate::{EngineError, request::Embeddings};

impl Embedding {
    pub(crate) fn embed_tokens(
        &self,
        inputs: Vec<Zeroizing<Vec<u32>>>,
        caller: Arc<str>,
    ) -> Result<impl Future<Output = Result<Embeddings, EngineError>> + Send + use<>, EngineError>
    {
        if self.dimensions.is_none() {
            return Err(EngineError::WrongKind);
        }
        self.check_count(inputs.len())?;
        let inputs = inputs.into_iter().map(|tokens| {
            self.fit(Input {
                tokens,
                second: None,
            })
        });
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        // Every token of the tokenizer is in the model's table, which was checked at the load.
        let mut tokens = inputs.iter().flat_map(|input| input.tokens.iter());
        if !tokens.all(|token| self.vocabulary.has(*token)) {
            return Err(EngineError::Invalid("a token is not in the vocabulary"));
        }
        let result = self.fill(self.queue.reserve()?, inputs, caller)?;
        Ok(outcome(result))
    }
}
