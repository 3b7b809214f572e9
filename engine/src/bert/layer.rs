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
            let input = match &self.attention_norm {
                Some(norm) => normed(norm, &x)?,
                None => x.clone(),
            };
            let seen = rows::view(&x, |before| {
                self.attention.forward(
                    &input,
                    angles,
                    spans,
                    #[inline(always)]
                    |index, row| rows::add_row(index, row, before),
                )
            })?;
            let input = normed(&self.mlp_norm, &seen)?;
            return rows::view(&seen, |before| {
                self.think(
                    &input,
                    #[inline(always)]
                    |index, row| rows::add_row(index, row, before),
                )
            });
        }
        let seen = rows::view(&x, |before| {
            self.attention.forward(
                &x,
                angles,
                spans,
                #[inline(always)]
                |index, row| {
                    rows::add_row(index, row, before);
                    if let Some(norm) = &self.attention_norm {
                        norm.row(row);
                    }
                },
            )
        })?;
        rows::view(&seen, |before| {
            self.think(
                &seen,
                #[inline(always)]
                |index, row| {
                    rows::add_row(index, row, before);
                    self.mlp_norm.row(row);
                },
            )
        })
    }

    /// The feed-forward part.
    fn think(&self, x: &Tensor, then: impl Fn(usize, &mut [f32]) + Sync) -> Result<Tensor> {
        let activation = self.activation;
        let wide = match &self.up {
            Up::Plain(up) => {
                return up.through(
                    x,
                    #[inline(always)]
                    |_, row| activation.apply(row),
                    &self.down,
                    then,
                );
            }
            Up::Gated { gate, up } => rows::view(&up.forward(x)?, |up| {
                gate.forward_then(
                    x,
                    #[inline(always)]
                    |index, row| {
                        activation.apply(row);
                        multiply(row, rows::same_row(index, row.len(), up));
                    },
                )
            })?,
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
                            let up = both.get(start..start + row.len());
                            multiply(row, up.unwrap_or_default());
                        },
                    )
                })?;
                wide
            }
        };
        self.down.forward_then(&wide, then)
    }
}

#[inline(always)]
fn multiply(row: &mut [f32], by: &[f32]) {
    for (value, by) in row.iter_mut().zip(by) {
        *value *= by;
    }
}

/// A copy, since what comes in is added later.
fn normed(norm: &LayerNorm, x: &Tensor) -> Result<Tensor> {
    let copy = x.copy()?;
    norm.apply(&copy)?;
    Ok(copy)
}
