use candle_core::{Device, Result, Tensor};

use super::{Config, cache::LayerCache};
use crate::{LoadError, linear::Linear, weights::Weights};

/// Grouped-query attention over packed rows.
pub(super) struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    kv_heads: usize,
    /// Query heads that share one key head.
    group: usize,
    head_dim: usize,
}

/// The place of one row in the packed matrix.
pub(super) struct Span {
    start: usize,
    tokens: usize,
    /// `[tokens, past + tokens]`: 0 where a token may look, minus infinity on its future. A single token sees everything.
    mask: Option<Tensor>,
}

impl Span {
    pub(super) fn new(start: usize, tokens: usize, past: usize) -> Result<Self> {
        if tokens == 0 {
            candle_core::bail!("a row has no tokens");
        }
        let mask = (tokens > 1).then(|| {
            let width = past + tokens;
            let values = (0..tokens).flat_map(|query| {
                (0..width).map(move |key| {
                    if key <= past + query {
                        0.0
                    } else {
                        f32::NEG_INFINITY
                    }
                })
            });
            Tensor::from_vec(values.collect::<Vec<f32>>(), (tokens, width), &Device::Cpu)
        });
        Ok(Self {
            start,
            tokens,
            mask: mask.transpose()?,
        })
    }

    /// Where the row's last token lies.
    pub(super) fn last(&self) -> Result<u32> {
        u32::try_from(self.start + self.tokens - 1).map_err(candle_core::Error::wrap)
    }
}

impl Attention {
    pub(super) fn load(
        weights: &Weights,
        name: &str,
        config: &Config,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, bias) = (config.hidden, config.attention_bias);
        let (wide, narrow) = (
            config.heads * config.head_dim,
            config.kv_heads * config.head_dim,
        );
        Ok(Self {
            query: Linear::load(weights, &format!("{name}.q_proj"), wide, hidden, bias)?,
            key: Linear::load(weights, &format!("{name}.k_proj"), narrow, hidden, bias)?,
            value: Linear::load(weights, &format!("{name}.v_proj"), narrow, hidden, bias)?,
            output: Linear::load(weights, &format!("{name}.o_proj"), hidden, wide, bias)?,
            kv_heads: config.kv_heads,
            group: config.heads / config.kv_heads,
            head_dim: config.head_dim,
        })
    }

    /// `x` is `[all tokens, hidden]`; `spans` and `caches` are its rows, in order.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        cos: &Tensor,
        sin: &Tensor,
        spans: &[Span],
        caches: &[LayerCache<'_>],
    ) -> Result<Tensor> {
        let total = x.dim(0)?;
        let rotate = |x: Tensor, heads: usize| {
            let x = x.reshape((1, total, heads, self.head_dim))?;
            candle_nn::rotary_emb::rope_thd(&x, cos, sin)?.squeeze(0)
        };
        let query = rotate(self.query.forward(x)?, self.kv_heads * self.group)?;
        // Scaling the queries is cheaper than scaling the scores.
        let query = (query * (1.0 / (self.head_dim as f64).sqrt()))?;
        let key = rotate(self.key.forward(x)?, self.kv_heads)?;
        let value = self
            .value
            .forward(x)?
            .reshape((total, self.kv_heads, self.head_dim))?;

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
        let scores = query
            .reshape((kv_heads, group * tokens, dim))?
            .matmul(&keys.t()?)?;
        let scores = match &span.mask {
            Some(mask) => {
                let width = scores.dim(2)?;
                let masked = scores
                    .reshape((kv_heads, group, tokens, width))?
                    .broadcast_add(mask)?;
                masked.reshape((kv_heads, group * tokens, width))?
            }
            None => scores,
        };
        let mixed = candle_nn::ops::softmax_last_dim(&scores)?.matmul(values)?;
        let mixed = mixed
            .reshape((kv_heads, group, tokens, dim))?
            .permute((2, 0, 1, 3))?;
        mixed
            .contiguous()?
            .reshape((tokens, kv_heads * group * dim))
    }
}
