//! Llama and its relatives with the same layers.
//!
//! The forward pass is over *packed rows*: the new tokens of all sequences lie one after another in one matrix, so that
//! every projection is one matrix product whatever the rows' lengths and positions. Only attention looks at a row alone,
//! because each has its own cache.

mod attention;
mod cache;
mod config;
mod rope;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use crate::{
    LoadError,
    decoder::{Decoder, Row},
    linear::{Linear, Matrix},
    weights::Weights,
};
use attention::{Attention, Span};
pub(crate) use cache::Cache;
pub(crate) use config::{
    Config, MAX_CONTEXT, MAX_HEADS, MAX_HIDDEN, MAX_INTERMEDIATE, MAX_LAYERS, MAX_VOCABULARY,
};
use rope::Rope;

pub(crate) struct Llama {
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
    rope: Rope,
    config: Config,
}

struct Layer {
    attention_norm: Norm,
    attention: Attention,
    mlp_norm: Norm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

struct Norm {
    weight: Tensor,
    epsilon: f32,
}

impl Llama {
    pub(crate) fn load(weights: &Weights, config: Config) -> std::result::Result<Self, LoadError> {
        let (vocabulary, hidden) = (config.vocabulary, config.hidden);
        let embedding = weights.matrix("model.embed_tokens.weight", vocabulary, hidden)?;
        // Several layers at a time: their matrices are too small to keep all threads at work alone.
        let layers = (0..config.layers)
            .into_par_iter()
            .map(|index| Layer::load(weights, &config, index))
            .collect::<std::result::Result<_, _>>()?;
        let head = match config.tied {
            true => Linear::from_weight(embedding.clone()),
            false => Linear::load(weights, "lm_head", vocabulary, hidden, false)?,
        };
        Ok(Self {
            embedding,
            layers,
            norm: Norm::load(weights, "model.norm.weight", &config)?,
            head,
            rope: Rope::load(weights, &config)?,
            config,
        })
    }
}

impl Decoder for Llama {
    type Cache = Cache;

    fn cache(&self, limit: usize) -> Result<Cache> {
        Cache::new(&self.config, limit)
    }

    fn forward(&self, rows: &mut [Row<'_, Cache>]) -> Result<Vec<Option<Vec<f32>>>> {
        let mut tokens = Vec::new();
        let mut positions = Vec::new();
        let mut spans = Vec::with_capacity(rows.len());
        for row in rows.iter_mut() {
            row.cache.reserve(row.tokens.len())?;
            spans.push(Span::new(tokens.len(), row.tokens.len(), row.cache.len())?);
            positions.extend(row.cache.len()..row.cache.len() + row.tokens.len());
            tokens.extend_from_slice(row.tokens);
        }
        let (cos, sin) = self.rope.at(&positions)?;

        let mut x = self.embedding.rows(&tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = layer.attention_norm.forward(&x)?;
            let caches: Vec<_> = rows
                .iter()
                .map(|row| row.cache.layer(index))
                .collect::<Result<_>>()?;
            x = (x + layer
                .attention
                .forward(&normed, &cos, &sin, &spans, &caches)?)?;
            x = (&x + layer.mlp(&layer.mlp_norm.forward(&x)?)?)?;
        }
        for row in rows.iter_mut() {
            row.cache.advance(row.tokens.len());
        }
        self.logits(&x, rows, &spans)
    }
}

impl Llama {
    /// The vocabulary projection, for the last token of the rows that want it.
    fn logits(
        &self,
        x: &Tensor,
        rows: &[Row<'_, Cache>],
        spans: &[Span],
    ) -> Result<Vec<Option<Vec<f32>>>> {
        let last = rows
            .iter()
            .zip(spans)
            .filter(|(row, _)| row.wants_logits)
            .map(|(_, span)| span.last());
        let last = last.collect::<Result<Vec<u32>>>()?;
        if last.is_empty() {
            return Ok(rows.iter().map(|_| None).collect());
        }
        let count = last.len();
        let x = x.index_select(&Tensor::from_vec(last, count, &Device::Cpu)?, 0)?;
        let mut logits = self
            .head
            .forward(&self.norm.forward(&x)?)?
            .to_vec2::<f32>()?
            .into_iter();
        Ok(rows
            .iter()
            .map(|row| {
                if row.wants_logits {
                    logits.next()
                } else {
                    None
                }
            })
            .collect())
    }
}

impl Layer {
    fn load(
        weights: &Weights,
        config: &Config,
        index: usize,
    ) -> std::result::Result<Self, LoadError> {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let (hidden, wide, bias) = (config.hidden, config.intermediate, config.mlp_bias);
        Ok(Self {
            attention_norm: Norm::load(weights, &name("input_layernorm.weight"), config)?,
            attention: Attention::load(weights, &name("self_attn"), config)?,
            mlp_norm: Norm::load(weights, &name("post_attention_layernorm.weight"), config)?,
            gate: Linear::load(weights, &name("mlp.gate_proj"), wide, hidden, bias)?,
            up: Linear::load(weights, &name("mlp.up_proj"), wide, hidden, bias)?,
            down: Linear::load(weights, &name("mlp.down_proj"), hidden, wide, bias)?,
        })
    }

    /// SwiGLU.
    fn mlp(&self, x: &Tensor) -> Result<Tensor> {
        self.down
            .forward(&(self.gate.forward(x)?.silu()? * self.up.forward(x)?)?)
    }
}

impl Norm {
    fn load(
        weights: &Weights,
        name: &str,
        config: &Config,
    ) -> std::result::Result<Self, LoadError> {
        Ok(Self {
            weight: weights.get(name, &[config.hidden])?,
            epsilon: config.norm_epsilon,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(x, &self.weight, self.epsilon)
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
