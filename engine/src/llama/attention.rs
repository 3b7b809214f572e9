use candle_core::{Device, Result, Tensor};

use super::{Config, Norm, rope::Angles};
use crate::{
    LoadError,
    attention::{Heads, Span, attend},
    kv::{Held, KvLayer},
    linear::Linear,
    weights::Weights,
};

/// Grouped-query attention over packed rows.
pub(super) struct Attention {
    projections: Projections,
    /// Of queries and of keys, head by head.
    norms: Option<(Norm, Norm)>,
    output: Linear,
    heads: Heads,
    scale: f64,
}

enum Projections {
    Apart {
        query: Linear,
        key: Linear,
        value: Linear,
    },
    /// Queries, keys and values, one below the other.
    Fused(Linear),
}

impl Attention {
    pub(super) fn load(
        weights: &Weights,
        name: &str,
        config: &Config,
        window: Option<usize>,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, bias) = (config.hidden, config.qkv_bias);
        let (wide, narrow) = (
            config.heads * config.head_dim,
            config.kv_heads * config.head_dim,
        );
        let linear = |part: &str, outputs: usize, inputs: usize, bias: bool| {
            Linear::load(weights, &format!("{name}.{part}"), outputs, inputs, bias)
        };
        let projections = match config.fused {
            true => Projections::Fused(linear("qkv_proj", wide + 2 * narrow, hidden, bias)?),
            false => Projections::Apart {
                query: linear("q_proj", wide, hidden, bias)?,
                key: linear("k_proj", narrow, hidden, bias)?,
                value: linear("v_proj", narrow, hidden, bias)?,
            },
        };
        let norm = |part: &str| {
            Norm::load(
                weights,
                &format!("{name}.{part}.weight"),
                config,
                config.head_dim,
            )
        };
        Ok(Self {
            projections,
            norms: match config.qk_norm {
                true => Some((norm("q_norm")?, norm("k_norm")?)),
                false => None,
            },
            output: linear("o_proj", hidden, wide, config.output_bias)?,
            heads: Heads {
                kv_heads: config.kv_heads,
                group: config.heads / config.kv_heads,
                head_dim: config.head_dim,
                cap: config.score_cap,
                window,
            },
            scale: config.query_scale.into(),
        })
    }

    /// `x` is `[all tokens, hidden]`; `spans` are its rows, in order.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        angles: Option<&Angles>,
        spans: &[Span<'_>],
        layer: &mut KvLayer,
    ) -> Result<Tensor> {
        let (mut query, mut key, value) = self.project(x)?;
        if let Some((for_query, for_key)) = &self.norms {
            query = for_query.forward(&query)?;
            key = for_key.forward(&key)?;
        }
        if let Some(angles) = angles {
            query = angles.rotate(&query)?;
            key = angles.rotate(&key)?;
        }
        // Scaling the queries is cheaper than scaling the scores.
        let query = (query * self.scale)?;

        let flat = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
        let (query, key, value) = (flat(&query)?, flat(&key)?, flat(&value)?);
        let narrow = self.heads.kv_heads * self.heads.head_dim;
        for span in spans {
            let range = span.start * narrow..(span.start + span.tokens) * narrow;
            let (Some(key), Some(value)) = (key.get(range.clone()), value.get(range)) else {
                candle_core::bail!("a row is beyond the matrix")
            };
            let before = Held {
                tokens: span.held.tokens - span.tokens,
                ..span.held
            };
            layer.write(before, key, value)?;
        }
        let mixed = attend(layer, self.heads, spans, &query)?;
        let wide = narrow * self.heads.group;
        self.output
            .forward(&Tensor::from_vec(mixed, (x.dim(0)?, wide), &Device::Cpu)?)
    }

    /// Queries, keys and values, each `[tokens, heads, head_dim]`.
    fn project(&self, x: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let total = x.dim(0)?;
        let Heads {
            kv_heads,
            group,
            head_dim,
            ..
        } = self.heads;
        let heads = kv_heads * group;
        let by_head = |x: Tensor, heads: usize| x.reshape((total, heads, head_dim));
        match &self.projections {
            Projections::Apart { query, key, value } => Ok((
                by_head(query.forward(x)?, heads)?,
                by_head(key.forward(x)?, kv_heads)?,
                by_head(value.forward(x)?, kv_heads)?,
            )),
            Projections::Fused(all) => {
                let all = by_head(all.forward(x)?, heads + 2 * kv_heads)?;
                let part = |start: usize, count: usize| all.narrow(1, start, count)?.contiguous();
                Ok((
                    part(0, heads)?,
                    part(heads, kv_heads)?,
                    part(heads + kv_heads, kv_heads)?,
                ))
            }
        }
    }
}
