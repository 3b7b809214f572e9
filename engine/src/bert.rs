//! BERT-family sentence embeddings: candle's encoder, our pooling.

mod config;
mod pooling;

use candle_core::{Device, Result, Tensor};
use candle_transformers::models::bert::BertModel;

use crate::{
    LoadError, ModelFiles,
    embedding::{Batch, Encoder},
    fields::Fields,
    weights::Weights,
};
use config::Config;
use pooling::Pooling;

pub(crate) struct Bert {
    model: BertModel,
    pooling: Pooling,
    padding: u32,
    pub(crate) dimensions: usize,
    pub(crate) vocabulary: usize,
    /// Tokens of one input, special tokens included.
    pub(crate) max_input_tokens: usize,
}

impl Bert {
    pub(crate) fn load(
        files: &dyn ModelFiles,
        fields: &Fields<'_>,
        weights: &std::sync::Arc<Weights>,
    ) -> std::result::Result<Self, LoadError> {
        let config = Config::read(fields)?;
        let pooling = Pooling::read(files, config.model.hidden_size)?;
        let max_input_tokens = config.max_input_tokens(files)?;
        // Checkpoints with a head keep the encoder under its name.
        let builder = weights.var_builder();
        let (builder, parts) = match weights.contains("bert.embeddings.word_embeddings.weight") {
            true => (builder.pp("bert"), ["bert.embeddings.", "bert.encoder."]),
            false => (builder, ["embeddings.", "encoder."]),
        };
        weights.preload(&parts)?;
        let model =
            BertModel::load(builder, &config.model).map_err(|error| weights.failure(error))?;
        weights.forget();
        Ok(Self {
            model,
            pooling,
            padding: config.padding,
            dimensions: config.model.hidden_size,
            vocabulary: config.model.vocab_size,
            max_input_tokens,
        })
    }
}

impl Encoder for Bert {
    fn encode(&self, batch: &Batch<'_>) -> Result<Vec<Vec<f32>>> {
        let (rows, width) = (batch.inputs.len(), batch.width());
        let mut ids = Vec::with_capacity(rows * width);
        let mut mask = Vec::with_capacity(rows * width);
        for input in &batch.inputs {
            let padding = width - input.len();
            ids.extend(
                input
                    .iter()
                    .copied()
                    .chain(std::iter::repeat_n(self.padding, padding)),
            );
            mask.extend(
                std::iter::repeat_n(1f32, input.len()).chain(std::iter::repeat_n(0.0, padding)),
            );
        }
        let shape = (rows, width);
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        let hidden = self.model.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        self.pooling.apply(&hidden, &mask)?.to_vec2()
    }
}

#[cfg(test)]
mod tests;
