//! Llama and its relatives: one decoder, with what sets them apart as data ([`Config`]).
//!
//! The forward pass is over *packed rows*: the new tokens of all sequences lie one after another in one matrix, so that
//! every projection is one matrix product whatever the rows' lengths and positions. Only attention looks at a row alone,
//! because each has its own cache.

mod attention;
mod config;
mod family;
mod rope;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use crate::{
    LoadError,
    attention::Span,
    decoder::{Decoder, Row},
    kv::{Held, KvPool, KvShape},
    linear::{Linear, Matrix},
    parallel::Threads,
    weights::Weights,
};
use attention::Attention;
pub(crate) use config::{
    Config, LayerKind, MAX_CONTEXT, MAX_HEAD_DIM, MAX_HEADS, MAX_HIDDEN, MAX_INTERMEDIATE,
    MAX_LAYERS, MAX_THETA, MAX_VOCABULARY, narrow,
};
use family::Activation;
pub(crate) use family::Family;
pub(crate) use rope::{Angles, Rope, Rotation, Scaling};

pub(crate) struct Llama {
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
    /// One for each of the configuration's rotations.
    ropes: Vec<Rope>,
    config: Config,
}

struct Layer {
    attention_norm: Norm,
    attention: Attention,
    post_attention_norm: Option<Norm>,
    mlp_norm: Norm,
    mlp: Mlp,
    post_mlp_norm: Option<Norm>,
    /// Index of its rotation.
    rotation: Option<usize>,
}

struct Mlp {
    gate_up: GateUp,
    down: Linear,
    activation: Activation,
}

enum GateUp {
    Apart {
        gate: Linear,
        up: Linear,
    },
    /// One below the other.
    Fused(Linear),
}

struct Norm {
    weight: Tensor,
    epsilon: f32,
}

impl Llama {
    pub(crate) fn load(weights: &Weights, config: Config) -> std::result::Result<Self, LoadError> {
        let (vocabulary, hidden) = (config.vocabulary, config.hidden);
        let embedding = "model.embed_tokens.weight";
        let embedding = match config.tied {
            true => weights.matrix(embedding, vocabulary, hidden)?,
            false => weights.table(embedding, vocabulary, hidden)?,
        };
        // Several layers at a time: their matrices are too small to keep all threads at work alone.
        let layers = config
            .layers
            .par_iter()
            .enumerate()
            .map(|(index, kind)| Layer::load(weights, &config, index, *kind))
            .collect::<std::result::Result<_, _>>()?;
        let head = match config.tied {
            true => Linear::from_weight(embedding.clone()),
            false => Linear::load(weights, "lm_head", vocabulary, hidden, false)?,
        };
        Ok(Self {
            embedding,
            layers,
            norm: Norm::load(weights, "model.norm.weight", &config, hidden)?,
            head,
            ropes: config
                .rotations
                .iter()
                .map(|rotation| Rope::load(weights, rotation))
                .collect::<std::result::Result<_, _>>()?,
            config,
        })
    }
}

impl Decoder for Llama {
    fn shape(&self) -> KvShape {
        self.config.kv_shape()
    }

    fn threads(&self) -> Threads {
        match self.head.is_quantized() {
            true => Threads::Quantized,
            false => Threads::Rayon,
        }
    }

    fn forward(&self, kv: &mut KvPool, rows: &[Row<'_>]) -> Result<Vec<Option<Vec<f32>>>> {
        let mut tokens = Vec::new();
        let mut positions = Vec::new();
        let mut spans = Vec::with_capacity(rows.len());
        for row in rows {
            if row.tokens.is_empty() {
                candle_core::bail!("a row has no tokens");
            }
            let past = row.held.tokens;
            let after = past + row.tokens.len();
            spans.push(Span {
                start: tokens.len(),
                tokens: row.tokens.len(),
                held: Held {
                    tokens: after,
                    ..row.held
                },
            });
            positions.extend((past..after).map(|position| (position, row.limit)));
            tokens.extend_from_slice(row.tokens);
        }
        let angles = self.ropes.iter().map(|rope| rope.at(&positions));
        let angles = angles.collect::<Result<Vec<_>>>()?;

        let mut x = self.embedding.rows(&tokens)?;
        if let Some(scale) = self.config.embedding_scale {
            x = (x * f64::from(scale))?;
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = layer.attention_norm.forward(&x)?;
            let angles = layer.rotation.and_then(|index| angles.get(index));
            let mut seen = layer
                .attention
                .forward(&normed, angles, &spans, kv.layer(index)?)?;
            if let Some(norm) = &layer.post_attention_norm {
                seen = norm.forward(&seen)?;
            }
            x = (x + seen)?;
            let mut thought = layer.mlp.forward(&layer.mlp_norm.forward(&x)?)?;
            if let Some(norm) = &layer.post_mlp_norm {
                thought = norm.forward(&thought)?;
            }
            x = (x + thought)?;
        }
        self.logits(&x, rows, &spans)
    }
}

impl Llama {
    /// The vocabulary projection, for the last token of the rows that want it.
    fn logits(
        &self,
        x: &Tensor,
        rows: &[Row<'_>],
        spans: &[Span<'_>],
    ) -> Result<Vec<Option<Vec<f32>>>> {
        let last = rows
            .iter()
            .zip(spans)
            .filter(|(row, _)| row.wants_logits)
            .map(|(_, span)| {
                u32::try_from(span.start + span.tokens - 1).map_err(candle_core::Error::wrap)
            });
        let last = last.collect::<Result<Vec<u32>>>()?;
        if last.is_empty() {
            return Ok(rows.iter().map(|_| None).collect());
        }
        let count = last.len();
        let x = x.index_select(&Tensor::from_vec(last, count, &Device::Cpu)?, 0)?;
        let mut logits = self.head.forward(&self.norm.forward(&x)?)?;
        if let Some(cap) = self.config.logit_cap.map(f64::from) {
            logits = ((logits * (1.0 / cap))?.tanh()? * cap)?;
        }
        let mut logits = logits.to_vec2::<f32>()?.into_iter();
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
        kind: LayerKind,
    ) -> std::result::Result<Self, LoadError> {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let norm = |part: &str| {
            Norm::load(
                weights,
                &name(&format!("{part}.weight")),
                config,
                config.hidden,
            )
        };
        let attention_norm = norm("input_layernorm")?;
        // The same name is before the feed-forward part in most, and behind attention where both are.
        let (post_attention_norm, mlp_norm, post_mlp_norm) = match config.post_norms {
            true => (
                Some(norm("post_attention_layernorm")?),
                norm("pre_feedforward_layernorm")?,
                Some(norm("post_feedforward_layernorm")?),
            ),
            false => (None, norm("post_attention_layernorm")?, None),
        };
        Ok(Self {
            attention_norm,
            attention: Attention::load(weights, &name("self_attn"), config, kind.window)?,
            post_attention_norm,
            mlp_norm,
            mlp: Mlp::load(weights, &name("mlp"), config)?,
            post_mlp_norm,
            rotation: kind.rotation,
        })
    }
}

impl Mlp {
    fn load(
        weights: &Weights,
        name: &str,
        config: &Config,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, wide) = (config.hidden, config.intermediate);
        let linear = |part: &str, outputs: usize, inputs: usize| {
            Linear::load(
                weights,
                &format!("{name}.{part}"),
                outputs,
                inputs,
                config.mlp_bias,
            )
        };
        Ok(Self {
            gate_up: match config.fused {
                true => GateUp::Fused(linear("gate_up_proj", 2 * wide, hidden)?),
                false => GateUp::Apart {
                    gate: linear("gate_proj", wide, hidden)?,
                    up: linear("up_proj", wide, hidden)?,
                },
            },
            down: linear("down_proj", hidden, wide)?,
            activation: config.activation,
        })
    }

    /// A gated linear unit.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (gate, up) = match &self.gate_up {
            GateUp::Apart { gate, up } => (gate.forward(x)?, up.forward(x)?),
            GateUp::Fused(both) => {
                let both = both.forward(x)?;
                let wide = both.dim(1)? / 2;
                (
                    both.narrow(1, 0, wide)?.contiguous()?,
                    both.narrow(1, wide, wide)?.contiguous()?,
                )
            }
        };
        let gate = match self.activation {
            Activation::Silu => gate.silu()?,
            Activation::Gelu => gate.gelu()?,
        };
        self.down.forward(&(gate * up)?)
    }
}

impl Norm {
    fn load(
        weights: &Weights,
        name: &str,
        config: &Config,
        size: usize,
    ) -> std::result::Result<Self, LoadError> {
        let weight = weights.get(name, &[size])?;
        Ok(Self {
            weight: match config.norm_offset {
                true => (weight + 1.0).map_err(LoadError::Compute)?,
                false => weight,
            },
            epsilon: config.norm_epsilon,
        })
    }

    /// Over the last dimension.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(&x.contiguous()?, &self.weight, self.epsilon)
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
mod tests;
