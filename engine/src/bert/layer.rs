use candle_core::{Result, Tensor};

use super::{Config, Names, Span, attention::Attention, family::Up as UpNames, norm};
use crate::{
    LoadError,
    linear::Linear,
    llama::Angles,
    rows::{self, Activation, LayerNorm},
    weights::Weights,
};

/// Attention and a feed-forward part, each added to what it was given.
pub(super) struct Layer {
    /// Before attention or behind it; the first layer has none where norms come first.
    attention_norm: Option<LayerNorm>,
    attention: Attention,
    mlp_norm: LayerNorm,
    up: Up,
    down: Linear,
    activation: Activation,
    norms_first: bool,
}

enum Up {
    Plain(Linear),
    Gated {
        gate: Linear,
        up: Linear,
    },
    /// Gate and up, one below the other.
    Fused(Linear),
}

impl Layer {
    pub(super) fn load(
        weights: &Weights,
        names: &Names,
        prefix: &str,
        config: &Config,
        index: usize,
    ) -> std::result::Result<Self, LoadError> {
        let name = |part: &str| format!("{prefix}{}{index}.{part}", names.layers);
        let (hidden, wide) = (config.hidden, config.intermediate);
        let linear = |part: &str, outputs: usize, inputs: usize| {
            Linear::load(weights, &name(part), outputs, inputs, config.mlp_bias)
        };
        let norms_first = config.family.norms_first();
        let kind = config.layers.get(index).copied();
        let kind = kind.ok_or_else(|| LoadError::MissingTensor {
            name: name(names.output),
        })?;
        Ok(Self {
            attention_norm: match norms_first && index == 0 {
                true => None,
                false => Some(norm(weights, &name(names.attention_norm), config)?),
            },
            attention: Attention::load(weights, names, &name(""), config, kind)?,
            mlp_norm: norm(weights, &name(names.mlp_norm), config)?,
            up: match names.up {
                UpNames::Plain(up) => Up::Plain(linear(up, wide, hidden)?),
                UpNames::Gated(gate, up) => Up::Gated {
                    gate: linear(gate, wide, hidden)?,
                    up: linear(up, wide, hidden)?,
                },
                UpNames::Fused(both) => Up::Fused(linear(both, 2 * wide, hidden)?),
            },
            down: linear(names.down, hidden, wide)?,
            activation: config.activation,
            norms_first,
        })
    }

    pub(super) fn forward(&self, x: Tensor, angles: &[Angles], spans: &[Span]) -> Result<Tensor> {
        if self.norms_first {
            let seen = match &self.attention_norm {
                Some(norm) => self.attention.forward(&normed(norm, &x)?, angles, spans)?,
                None => self.attention.forward(&x, angles, spans)?,
            };
            rows::add_matrix(&seen, &x)?;
            let thought = self.think(&normed(&self.mlp_norm, &seen)?)?;
            rows::add_matrix(&thought, &seen)?;
            return Ok(thought);
        }
        let seen = self.attention.forward(&x, angles, spans)?;
        match &self.attention_norm {
            Some(norm) => norm.apply(&seen, Some(&x))?,
            None => rows::add_matrix(&seen, &x)?,
        }
        let thought = self.think(&seen)?;
        self.mlp_norm.apply(&thought, Some(&seen))?;
        Ok(thought)
    }

    /// The feed-forward part.
    fn think(&self, x: &Tensor) -> Result<Tensor> {
        let activation = self.activation;
        let wide = match &self.up {
            Up::Plain(up) => {
                let wide = up.forward(x)?;
                rows::each(
                    &wide,
                    #[inline(always)]
                    |_, row| activation.apply(row),
                )?;
                wide
            }
            Up::Gated { gate, up } => {
                let wide = gate.forward(x)?;
                rows::view(&up.forward(x)?, |up| {
                    rows::each(
                        &wide,
                        #[inline(always)]
                        |index, row| {
                            activation.apply(row);
                            let start = index * row.len();
                            multiply(row, up.get(start..start + row.len()));
                        },
                    )
                })?;
                wide
            }
            Up::Fused(both) => {
                let both = both.forward(x)?;
                let half = both.dim(1)? / 2;
                let wide = both.narrow(1, 0, half)?.contiguous()?;
                rows::view(&both, |both| {
                    rows::each(
                        &wide,
                        #[inline(always)]
                        |index, row| {
                            activation.apply(row);
                            let start = index * 2 * row.len() + row.len();
                            multiply(row, both.get(start..start + row.len()));
                        },
                    )
                })?;
                wide
            }
        };
        self.down.forward(&wide)
    }
}

#[inline(always)]
fn multiply(row: &mut [f32], by: Option<&[f32]>) {
    for (value, by) in row.iter_mut().zip(by.unwrap_or_default()) {
        *value *= by;
    }
}

/// A copy, since what comes in is added later.
fn normed(norm: &LayerNorm, x: &Tensor) -> Result<Tensor> {
    let copy = x.copy()?;
    norm.apply(&copy, None)?;
    Ok(copy)
}
