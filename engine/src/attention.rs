//! Attention of rows over what they hold. Kernels are exchanged here, and no model notices.

use candle_core::{Device, Result, Tensor};

use crate::{
    kv::{Held, KvLayer},
    parallel,
    rows::with_widest_vectors,
};

/// How a layer attends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) kv_heads: usize,
    /// Query heads that share one key head.
    pub(crate) group: usize,
    pub(crate) head_dim: usize,
    /// Scores are held below it by a hyperbolic tangent.
    pub(crate) cap: Option<f32>,
    /// How many positions a token sees, its own among them.
    pub(crate) window: Option<usize>,
}

/// The place of one row in the packed matrix, and what it holds once its tokens are written.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a> {
    pub(crate) start: usize,
    pub(crate) tokens: usize,
    pub(crate) held: Held<'a>,
}

/// Rows of this many tokens or fewer go token by token over the blocks; longer ones are products of matrices.
const FEW: usize = 4;

/// `query` is `[all tokens, heads, head_dim]`, scaled; the result has its shape.
pub(crate) fn attend(
    layer: &KvLayer,
    heads: Heads,
    spans: &[Span<'_>],
    query: &[f32],
) -> Result<Vec<f32>> {
    let part = heads.group * heads.head_dim;
    let width = heads.kv_heads * part;
    let mut out = vec![0.0; query.len()];

    // What each token sees, if it is one of few in its row.
    let mut seen: Vec<Option<Held<'_>>> = vec![None; query.len() / width];
    for span in spans.iter().filter(|span| span.tokens <= FEW) {
        let first = span.held.tokens - span.tokens;
        for (index, slot) in seen
            .iter_mut()
            .skip(span.start)
            .take(span.tokens)
            .enumerate()
        {
            *slot = Some(Held {
                blocks: span.held.blocks,
                tokens: first + index + 1,
            });
        }
    }
    let few = out
        .chunks_exact_mut(part)
        .zip(query.chunks_exact(part))
        .enumerate()
        .filter_map(|(index, (out, query))| {
            let held = (*seen.get(index / heads.kv_heads)?)?;
            Some((index % heads.kv_heads, held, query, out))
        });
    parallel::try_for_each(few.collect(), |(head, held, query, out)| {
        one(layer, heads, head, held, query, out)
    })?;

    for span in spans.iter().filter(|span| span.tokens > FEW) {
        let range = span.start * width..(span.start + span.tokens) * width;
        match (query.get(range.clone()), out.get_mut(range)) {
            (Some(query), Some(out)) => many(layer, heads, span, query, out)?,
            _ => candle_core::bail!("a row is beyond the matrix"),
        }
    }
    Ok(out)
}

/// One token, the query heads of one key head: `query` and `out` are `[group, head_dim]`.
fn one(
    layer: &KvLayer,
    heads: Heads,
    head: usize,
    held: Held<'_>,
    query: &[f32],
    out: &mut [f32],
) -> Result<()> {
    let blocks = layer.head(held, head).collect::<Result<Vec<_>>>()?;
    let first = heads
        .window
        .map_or(0, |window| held.tokens.saturating_sub(window));
    with_widest_vectors(|| weigh(&blocks, heads, held.tokens, first, query, out));
    Ok(())
}

#[inline(always)]
fn weigh(
    blocks: &[(&[f32], &[f32])],
    heads: Heads,
    tokens: usize,
    first: usize,
    query: &[f32],
    out: &mut [f32],
) {
    let dim = heads.head_dim;
    let mut scores = vec![0f32; heads.group * tokens];
    let keys = blocks
        .iter()
        .flat_map(|(keys, _)| keys.chunks_exact(dim))
        .enumerate()
        .skip(first);
    for (position, key) in keys {
        for (query, scores) in query.chunks_exact(dim).zip(scores.chunks_exact_mut(tokens)) {
            if let Some(score) = scores.get_mut(position) {
                *score = dot(query, key);
            }
        }
    }
    for scores in scores.chunks_exact_mut(tokens) {
        if let Some(seen) = scores.get_mut(first..) {
            soften(seen, heads.cap);
        }
    }
    let values = blocks
        .iter()
        .flat_map(|(_, values)| values.chunks_exact(dim))
        .enumerate()
        .skip(first);
    for (position, value) in values {
        for (scores, out) in scores.chunks_exact(tokens).zip(out.chunks_exact_mut(dim)) {
            let weight = scores.get(position).copied().unwrap_or(0.0);
            for (out, value) in out.iter_mut().zip(value) {
                *out += weight * value;
            }
        }
    }
}

/// In lanes, which the compiler makes vectors of; the order of additions is the same on every processor.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.0.iter().zip(b.0) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a.1.iter().zip(b.1).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Scores become weights that add up to one.
#[inline(always)]
fn soften(scores: &mut [f32], cap: Option<f32>) {
    if let Some(cap) = cap {
        for score in scores.iter_mut() {
            *score = (*score / cap).tanh() * cap;
        }
    }
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - highest).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}

/// A part of a prompt: `query` and `out` are `[tokens, heads, head_dim]`.
fn many(
    layer: &KvLayer,
    heads: Heads,
    span: &Span<'_>,
    query: &[f32],
    out: &mut [f32],
) -> Result<()> {
    let (kv_heads, group, dim) = (heads.kv_heads, heads.group, heads.head_dim);
    let (tokens, width) = (span.tokens, span.held.tokens);
    let (keys, values) = layer.gather(span.held)?;
    let keys = Tensor::from_vec(keys, (kv_heads, width, dim), &Device::Cpu)?;
    let values = Tensor::from_vec(values, (kv_heads, width, dim), &Device::Cpu)?;
    // The queries of a group are rows of one product with their shared keys, which need not be repeated.
    let query = Tensor::from_slice(query, (tokens, kv_heads, group, dim), &Device::Cpu)?
        .permute((1, 2, 0, 3))?
        .contiguous()?;
    let mut scores = query
        .reshape((kv_heads, group * tokens, dim))?
        .matmul(&keys.t()?)?;
    if let Some(cap) = heads.cap.map(f64::from) {
        scores = ((scores * (1.0 / cap))?.tanh()? * cap)?;
    }
    let mask = mask(tokens, width, heads.window)?;
    let scores = scores
        .reshape((kv_heads, group, tokens, width))?
        .broadcast_add(&mask)?;
    let scores = scores.reshape((kv_heads, group * tokens, width))?;
    let mixed = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&values)?;
    let mixed = mixed
        .reshape((kv_heads, group, tokens, dim))?
        .permute((2, 0, 1, 3))?;
    out.copy_from_slice(&mixed.flatten_all()?.to_vec1::<f32>()?);
    Ok(())
}

/// `[tokens, width]`: 0 where a token may look, minus infinity elsewhere.
fn mask(tokens: usize, width: usize, window: Option<usize>) -> Result<Tensor> {
    let size = window.unwrap_or(width);
    let values = (width - tokens..width).flat_map(|query| {
        (0..width).map(move |key| {
            if key <= query && key + size > query {
                0.0
            } else {
                f32::NEG_INFINITY
            }
        })
    });
    Tensor::from_vec(values.collect::<Vec<f32>>(), (tokens, width), &Device::Cpu)
}
