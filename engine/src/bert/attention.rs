use std::ops::Range;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::{Config, Names, Span, config::LayerKind, family::Projections as ProjectionNames};
use crate::{
    LoadError,
    linear::Linear,
    llama::Angles,
    product::{Product, panel_width, turn},
    rows,
    weights::Weights,
};

/// Every token of an input looks at every other, or at those in its window.
pub(super) struct Attention {
    projections: Projections,
    output: Linear,
    heads: usize,
    head_dim: usize,
    kind: LayerKind,
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

/// Queries that are scored together: their scores, and what they are computed from, fit a processor's caches.
const QUERIES: usize = 64;

impl Attention {
    /// `name` is what the names of the layer's tensors begin with.
    pub(super) fn load(
        weights: &Weights,
        names: &Names,
        name: &str,
        config: &Config,
        kind: LayerKind,
    ) -> std::result::Result<Self, LoadError> {
        let hidden = config.hidden;
        let linear = |part: &str, outputs: usize| {
            let name = format!("{name}{part}");
            Linear::load(weights, &name, outputs, hidden, config.attention_bias)
        };
        Ok(Self {
            projections: match names.projections {
                ProjectionNames::Apart(query, key, value) => Projections::Apart {
                    query: linear(query, hidden)?,
                    key: linear(key, hidden)?,
                    value: linear(value, hidden)?,
                },
                ProjectionNames::Fused(all) => Projections::Fused(linear(all, 3 * hidden)?),
            },
            output: linear(names.output, hidden)?,
            heads: config.heads,
            head_dim: config.head_dim,
            kind,
        })
    }

    /// `x` is `[all tokens, hidden]`; `spans` are its inputs, in order.
    /// `then` is done to each row of the result.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        angles: &[Angles],
        spans: &[Span],
        then: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Tensor> {
        let (total, hidden) = x.dims2()?;
        let (mut query, mut key, value) = match &self.projections {
            Projections::Apart { query, key, value } => {
                (query.forward(x)?, key.forward(x)?, value.forward(x)?)
            }
            Projections::Fused(all) => {
                let all = all.forward(x)?;
                let part = |index: usize| all.narrow(1, index * hidden, hidden);
                (part(0)?, part(1)?, part(2)?)
            }
        };
        if let Some(angles) = self.kind.rotation.and_then(|index| angles.get(index)) {
            let rotate = |x: Tensor| {
                let by_head = x
                    .contiguous()?
                    .reshape((total, self.heads, self.head_dim))?;
                angles.rotate(&by_head)?.reshape((total, hidden))
            };
            (query, key) = (rotate(query)?, rotate(key)?);
        }
        let mut mixed = vec![0f32; total * hidden];
        let mut work = Vec::new();
        let mut rest = mixed.as_mut_slice();
        for span in spans {
            for first in (0..span.tokens).step_by(QUERIES) {
                let count = QUERIES.min(span.tokens - first);
                let Some((part, after)) = rest.split_at_mut_checked(count * hidden) else {
                    candle_core::bail!("an input is beyond the matrix")
                };
                rest = after;
                work.push((*span, first, part));
            }
        }
        let (query, key, value) = (query.contiguous()?, key.contiguous()?, value.contiguous()?);
        rows::view(&query, |query| {
            rows::view(&key, |key| {
                rows::view(&value, |value| {
                    work.into_par_iter().for_each(|(span, first, out)| {
                        self.mix([query, key, value], span, first, out);
                    });
                    Ok(())
                })
            })
        })?;
        let mixed = Tensor::from_vec(mixed, (total, hidden), &Device::Cpu)?;
        self.output.forward_then(&mixed, then)
    }

    /// What the tokens of an input from the `first` on see; `out` has their rows.
    fn mix(&self, [query, key, value]: [&[f32]; 3], span: Span, first: usize, out: &mut [f32]) {
        let (dim, hidden) = (self.head_dim, self.heads * self.head_dim);
        let count = out.len() / hidden;
        // The keys that any of them sees.
        let (from, to) = match self.kind.window {
            Some(window) => (
                first.saturating_sub(window),
                (first + count + window).min(span.tokens),
            ),
            None => (0, span.tokens),
        };
        let keys = to - from;
        let width = panel_width();
        let scale = 1.0 / (dim as f32).sqrt();
        let mut scores = vec![0f32; count * keys];
        let mut key_panels = vec![0f32; keys.next_multiple_of(width) * dim];
        let mut value_panels = vec![0f32; dim.next_multiple_of(width) * keys];
        for head in 0..self.heads {
            let columns = head * dim..(head + 1) * dim;
            let part = |x, first, count| parts(x, hidden, span.start + first, count, &columns);
            let seen = part(key, from, keys);
            let panels = key_panels.chunks_exact_mut(width * dim);
            for (rows, panel) in seen.chunks(width).zip(panels) {
                turn(rows, width, panel);
            }
            Product {
                rows: &part(query, first, count),
                panels: &key_panels,
                bias: &[],
                sums: &mut scores,
                stride: keys,
                columns: 0..keys,
            }
            .run();
            rows::each_of(
                0,
                &mut scores,
                keys,
                #[inline(always)]
                |row, scores| {
                    let (low, high) = match self.kind.window {
                        Some(window) => {
                            let place = first + row;
                            (
                                place.saturating_sub(window).saturating_sub(from),
                                (place + window + 1 - from).min(scores.len()),
                            )
                        }
                        None => (0, scores.len()),
                    };
                    soften(scores, low, high, scale);
                },
            );
            let seen = part(value, from, keys);
            for (index, panel) in value_panels.chunks_exact_mut(width * keys).enumerate() {
                for (row, place) in seen.iter().zip(panel.chunks_exact_mut(width)) {
                    let values = row.iter().skip(index * width);
                    place
                        .iter_mut()
                        .zip(values)
                        .for_each(|(place, value)| *place = *value);
                }
            }
            Product {
                rows: &scores.chunks_exact(keys).collect::<Vec<_>>(),
                panels: &value_panels,
                bias: &[],
                sums: out,
                stride: hidden,
                columns,
            }
            .run();
        }
    }
}

/// The columns of a head, of so many rows.
fn parts<'a>(
    x: &'a [f32],
    width: usize,
    first: usize,
    count: usize,
    columns: &Range<usize>,
) -> Vec<&'a [f32]> {
    let rows = x.chunks_exact(width).skip(first).take(count);
    rows.filter_map(|row| row.get(columns.clone())).collect()
}

/// Scores from `low` to `high` become weights that add up to one, the others nothing.
#[inline(always)]
fn soften(scores: &mut [f32], low: usize, high: usize, scale: f32) {
    let Some(seen) = scores.get_mut(low..high) else {
        return;
    };
    let highest = rows::highest(seen);
    for score in seen.iter_mut() {
        *score = rows::exp((*score - highest) * scale);
    }
    let share = 1.0 / rows::sum(seen, rows::itself);
    for score in seen {
        *score *= share;
    }
    if let Some(before) = scores.get_mut(..low) {
        before.fill(0.0);
    }
    if let Some(after) = scores.get_mut(high..) {
        after.fill(0.0);
    }
}
