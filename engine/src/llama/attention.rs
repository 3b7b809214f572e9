use candle_core::{Device, Result, Tensor};

use super::{Config, Norm, cache::LayerCache, rope::Angles};
use crate::{LoadError, linear::Linear, weights::Weights};

/// Grouped-query attention over packed rows.
pub(super) struct Attention {
    projections: Projections,
    /// Of queries and of keys, head by head.
    norms: Option<(Norm, Norm)>,
    output: Linear,
    kv_heads: usize,
    /// Query heads that share one key head.
    group: usize,
    head_dim: usize,
    scale: f64,
    score_cap: Option<f64>,
    /// How many positions it sees, its own among them.
    window: Option<usize>,
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

/// The place of one row in the packed matrix.
pub(super) struct Span {
    start: usize,
    tokens: usize,
    /// One for each window that layers have: `[tokens, past + tokens]`, 0 where a token may look, minus infinity elsewhere. None
    /// where a single token sees everything.
    masks: Vec<(Option<usize>, Option<Tensor>)>,
}

impl Span {
    pub(super) fn new(
        start: usize,
        tokens: usize,
        past: usize,
        windows: &[Option<usize>],
    ) -> Result<Self> {
        if tokens == 0 {
            candle_core::bail!("a row has no tokens");
        }
        let width = past + tokens;
        let mask = |window: Option<usize>| {
            let size = window.filter(|size| *size < width).unwrap_or(width);
            if tokens == 1 && size == width {
                return Ok(None);
            }
            let values = (past..width).flat_map(|query| {
                (0..width).map(move |key| {
                    if key <= query && key + size > query {
                        0.0
                    } else {
                        f32::NEG_INFINITY
                    }
                })
            });
            Tensor::from_vec(values.collect::<Vec<f32>>(), (tokens, width), &Device::Cpu).map(Some)
        };
        let masks = windows.iter().map(|window| Ok((*window, mask(*window)?)));
        Ok(Self {
            start,
            tokens,
            masks: masks.collect::<Result<_>>()?,
        })
    }

    /// Where the row's last token lies.
    pub(super) fn last(&self) -> Result<u32> {
        u32::try_from(self.start + self.tokens - 1).map_err(candle_core::Error::wrap)
    }

    fn mask(&self, window: Option<usize>) -> Option<&Tensor> {
        let found = self.masks.iter().find(|(each, _)| *each == window);
        found.and_then(|(_, mask)| mask.as_ref())
    }
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
            kv_heads: config.kv_heads,
            group: config.heads / config.kv_heads,
            head_dim: config.head_dim,
            scale: config.query_scale.into(),
            score_cap: config.score_cap.map(f64::from),
            window,
        })
    }

    /// `x` is `[all tokens, hidden]`; `spans` and `caches` are its rows, in order.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        angles: Option<&Angles>,
        spans: &[Span],
        caches: &[LayerCache<'_>],
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

        let mut rows = Vec::with_capacity(spans.len());
        for (span, cache) in spans.iter().zip(caches) {
            let part = |x: &Tensor| x.narrow(0, span.start, span.tokens);
            let by_head = |x: Tensor| x.transpose(0, 1)?.contiguous();
            let (keys, values) = cache.append(&by_head(part(&key)?)?, &by_head(part(&value)?)?)?;
            rows.push(self.attend(&part(&query)?, span, &keys, &values)?);
        }
        let rows = match rows.as_slice() {
            [row] => row.clone(),
            rows => Tensor::cat(rows, 0)?,
        };
        self.output.forward(&rows)
    }

    /// Queries, keys and values, each `[tokens, heads, head_dim]`.
    fn project(&self, x: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let total = x.dim(0)?;
        let heads = self.kv_heads * self.group;
        let by_head = |x: Tensor, heads: usize| x.reshape((total, heads, self.head_dim));
        match &self.projections {
            Projections::Apart { query, key, value } => Ok((
                by_head(query.forward(x)?, heads)?,
                by_head(key.forward(x)?, self.kv_heads)?,
                by_head(value.forward(x)?, self.kv_heads)?,
            )),
            Projections::Fused(all) => {
                let all = by_head(all.forward(x)?, heads + 2 * self.kv_heads)?;
                let part = |start: usize, count: usize| all.narrow(1, start, count)?.contiguous();
                Ok((
                    part(0, heads)?,
                    part(heads, self.kv_heads)?,
                    part(heads + self.kv_heads, self.kv_heads)?,
                ))
            }
        }
    }

    /// One row: `query` is `[tokens, heads, head_dim]`, keys and values `[kv_heads, past + tokens, head_dim]`.
    fn attend(
        &self,
        query: &Tensor,
        span: &Span,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<Tensor> {
        let (kv_heads, group, tokens, dim) =
            (self.kv_heads, self.group, span.tokens, self.head_dim);
        // The queries of a group are rows of one product with their shared keys, which need not be repeated.
        let query = query
            .reshape((tokens, kv_heads, group, dim))?
            .permute((1, 2, 0, 3))?
            .contiguous()?;
        let mut scores = query
            .reshape((kv_heads, group * tokens, dim))?
            .matmul(&keys.t()?)?;
        if let Some(cap) = self.score_cap {
            scores = ((scores * (1.0 / cap))?.tanh()? * cap)?;
        }
        if let Some(mask) = span.mask(self.window) {
            let width = scores.dim(2)?;
            let masked = scores
                .reshape((kv_heads, group, tokens, width))?
                .broadcast_add(mask)?;
            scores = masked.reshape((kv_heads, group * tokens, width))?;
        }
        let mixed = candle_nn::ops::softmax_last_dim(&scores)?.matmul(values)?;
        let mixed = mixed
            .reshape((kv_heads, group, tokens, dim))?
            .permute((2, 0, 1, 3))?;
        mixed
            .contiguous()?
            .reshape((tokens, kv_heads * group * dim))
    }
}
