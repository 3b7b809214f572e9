//! Encoders: from texts to passes over a bounded number of tokens, and back into the order of each request.

mod pass;
mod tokens;
mod worker;

use std::{future::Future, sync::Arc};

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::{
    EngineError, EngineOptions, Text,
    gate::{Gate, Job, Place},
    request::{Embeddings, Ranking},
    turns::Turns,
    vocabulary::{Vocabulary, check_length},
};
pub(crate) use worker::EmbedWorker;

/// An encoder: one pass over packed inputs.
pub(crate) trait Encoder: Send {
    /// One vector per input of the batch, in its order.
    fn encode(&self, batch: &Batch<'_>) -> candle_core::Result<Vec<Vec<f32>>>;
}

/// Inputs of one pass. Nothing is padded.
pub(crate) struct Batch<'a> {
    pub(crate) inputs: Vec<&'a Input>,
}

/// One text, or a pair, as tokens; at least one.
#[derive(Default)]
pub(crate) struct Input {
    pub(crate) tokens: Zeroizing<Vec<u32>>,
    /// The first token of the second text, where the model tells them apart.
    pub(crate) second: Option<usize>,
}

/// A checked request, ready to run.
pub(crate) struct EmbedJob {
    pub(crate) inputs: Vec<Input>,
    pub(crate) caller: Arc<str>,
    pub(crate) answer: oneshot::Sender<Result<Embeddings, EngineError>>,
}

impl Job for EmbedJob {
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
}

/// The caller's side of an encoder.
pub(crate) struct Embedding {
    pub(crate) queue: Gate<EmbedJob>,
    pub(crate) vocabulary: Arc<Vocabulary>,
    /// Of a vector; none where pairs are ranked.
    pub(crate) dimensions: Option<usize>,
    pub(crate) marks_pairs: bool,
    pub(crate) max_input_tokens: usize,
    pub(crate) turns: Turns,
    pub(crate) options: EngineOptions,
}

impl Embedding {
    pub(crate) fn embed(
        &self,
        inputs: &[Text],
        caller: Arc<str>,
    ) -> Result<impl Future<Output = Result<Embeddings, EngineError>> + Send + use<>, EngineError>
    {
        if self.dimensions.is_none() {
            return Err(EngineError::WrongKind);
        }
        let lengths = inputs.iter().map(|input| input.expose().len());
        self.check(lengths)?;
        let result = self.start(caller, inputs, &|input| {
            let tokens = self.vocabulary.encode(input.expose(), true)?;
            Ok(Input {
                tokens,
                second: None,
            })
        })?;
        Ok(outcome(result))
    }

    pub(crate) fn rank(
        &self,
        query: &Text,
        documents: &[Text],
        caller: Arc<str>,
    ) -> Result<impl Future<Output = Result<Ranking, EngineError>> + Send + use<>, EngineError>
    {
        if self.dimensions.is_some() {
            return Err(EngineError::WrongKind);
        }
        let query_bytes = query.expose().len();
        let lengths = documents
            .iter()
            .map(|document| query_bytes.saturating_add(document.expose().len()));
        self.check(lengths)?;
        let result = self.start(caller, documents, &|document| {
            let (tokens, second) = self
                .vocabulary
                .encode_pair(query.expose(), document.expose())?;
            Ok(Input {
                tokens,
                second: second.filter(|_| self.marks_pairs),
            })
        })?;
        Ok(async move {
            let Embeddings {
                vectors,
                prompt_tokens,
            } = outcome(result).await?;
            Ok(Ranking {
                scores: vectors.into_iter().flatten().collect(),
                prompt_tokens,
            })
        })
    }

    /// By what is known before the tokenizer runs: `lengths` are the bytes of each input.
    fn check(&self, lengths: impl ExactSizeIterator<Item = usize>) -> Result<(), EngineError> {
        self.check_count(lengths.len())?;
        let mut sum = 0usize;
        let mut longest = 0;
        for length in lengths {
            sum = sum.saturating_add(length);
            longest = length.max(longest);
        }
        if sum > self.options.max_prompt_bytes {
            return Err(EngineError::Invalid("inputs are too long"));
        }
        check_length(longest, self.max_input_tokens)
    }

    fn check_count(&self, count: usize) -> Result<(), EngineError> {
        match count {
            0 => Err(EngineError::Invalid("inputs must not be empty")),
            _ if count > self.options.max_batch_inputs => Err(EngineError::TooManyInputs {
                limit: self.options.max_batch_inputs,
                requested: count,
            }),
            _ => Ok(()),
        }
    }

    fn start(
        &self,
        caller: Arc<str>,
        texts: &[Text],
        encode: &dyn Fn(&Text) -> Result<Input, EngineError>,
    ) -> Result<oneshot::Receiver<Result<Embeddings, EngineError>>, EngineError> {
        let place = self.queue.reserve()?;
        let turn = self.turns.take();
        let inputs = texts
            .iter()
            .map(|text| self.fit(encode(text)?))
            .collect::<Result<Vec<_>, _>>()?;
        drop(turn);
        self.fill(place, inputs, caller)
    }

    fn fill(
        &self,
        place: Place<EmbedJob>,
        inputs: Vec<Input>,
        caller: Arc<str>,
    ) -> Result<oneshot::Receiver<Result<Embeddings, EngineError>>, EngineError> {
        let total: usize = inputs.iter().map(|input| input.tokens.len()).sum();
        if total > self.options.max_prompt_tokens {
            return Err(EngineError::ContextLength {
                limit: self.options.max_prompt_tokens,
                requested: total,
            });
        }
        let (answer, result) = oneshot::channel();
        place.fill(EmbedJob {
            inputs,
            caller,
            answer,
        });
        Ok(result)
    }

    fn fit(&self, input: Input) -> Result<Input, EngineError> {
        if input.tokens.is_empty() {
            return Err(EngineError::Invalid("an input has no tokens"));
        }
        if input.tokens.len() > self.max_input_tokens {
            return Err(EngineError::ContextLength {
                limit: self.max_input_tokens,
                requested: input.tokens.len(),
            });
        }
        Ok(input)
    }
}

async fn outcome(
    result: oneshot::Receiver<Result<Embeddings, EngineError>>,
) -> Result<Embeddings, EngineError> {
    result.await.unwrap_or(Err(EngineError::Stopped))
}
