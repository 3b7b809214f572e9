//! BERT and its relatives: one encoder, with what sets them apart as data ([`Config`]).
//!
//! The forward pass is over *packed rows*, as that of the decoder is: the tokens of all inputs lie one after another in one matrix,
//! so nothing is padded. Only attention looks at an input alone.

mod attention;
mod config;
mod family;
mod head;
mod layer;
mod pooling;
mod refuse;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use crate::{
    LoadError, ModelFiles,
    embedding::{Batch, Encoder, Input},
    fields::Fields,
    linear::Matrix,
    llama::Rope,
    rows::{self, LayerNorm},
    weights::Weights,
};
use config::Config;
pub(crate) use family::Family;
use family::Names;
use head::Head;
use layer::Layer;
use pooling::Pooling;

pub(crate) struct Bert {
    body: Body,
    finish: Finish,
    /// Numbers of an answer: of a vector, or one for a score.
    pub(crate) dimensions: usize,
    pub(crate) vocabulary: usize,
    /// Tokens of one input, special tokens included.
    pub(crate) max_input_tokens: usize,
    /// The second part of a pair is marked as such.
    pub(crate) marks_pairs: bool,
}

/// What an input becomes in the end.
enum Finish {
    /// A vector of unit length.
    Vector(Pooling),
    /// How relevant the second part of the input is for the first.
    Score(Head),
}

/// From tokens to one vector for each of them.
pub(crate) struct Body {
    words: Matrix,
    /// Tables, `[rows, hidden]`.
    positions: Option<Tensor>,
    token_types: Option<Tensor>,
    norm: LayerNorm,
    layers: Vec<Layer>,
    final_norm: Option<LayerNorm>,
    ropes: Vec<Rope>,
    config: Config,
}

/// Where an input lies in the packed matrix.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) tokens: usize,
}

impl Bert {
    pub(crate) fn load(
        family: Family,
        files: &dyn ModelFiles,
        fields: &Fields<'_>,
        weights: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let config = Config::read(family, fields)?;
        let max_input_tokens = config.max_input_tokens(files)?;
        let (finish, dimensions) = match head::is_there(fields)? {
            true => (Finish::Score(Head::load(&config, fields, weights)?), 1),
            false => (
                Finish::Vector(Pooling::read(files, config.hidden)?),
                config.hidden,
            ),
        };
        Ok(Self {
            dimensions,
            vocabulary: config.vocabulary,
            max_input_tokens,
            marks_pairs: family.marks_pairs() && config.token_types.is_some_and(|types| types > 1),
            finish,
            body: Body::load(weights, config)?,
        })
    }

    pub(crate) fn ranks(&self) -> bool {
        matches!(self.finish, Finish::Score(_))
    }
}

impl Encoder for Bert {
    fn encode(&self, batch: &Batch<'_>) -> Result<Vec<Vec<f32>>> {
        let spans = spans(&batch.inputs);
        let hidden = self.body.forward(&batch.inputs, &spans)?;
        match &self.finish {
            Finish::Vector(pooling) => rows::view(&hidden, |hidden| {
                let width = self.body.config.hidden;
                pooling.apply(hidden, width, &spans)
            }),
            Finish::Score(head) => head.scores(&hidden, &spans),
        }
    }
}

fn spans(inputs: &[&Input]) -> Vec<Span> {
    let mut start = 0;
    let each = inputs.iter().map(|input| {
        let span = Span {
            start,
            tokens: input.tokens.len(),
        };
        start += span.tokens;
        span
    });
    each.collect()
}

impl Body {
    fn load(weights: &Weights, config: Config) -> std::result::Result<Self, LoadError> {
        let names = config.family.names(|name| weights.contains(name));
        let prefix = match weights.contains(&format!("{}{}.weight", names.prefix, names.words)) {
            true => names.prefix,
            false => "",
        };
        let table = |rows: Option<usize>, name: &str| {
            let name = format!("{prefix}{name}.weight");
            rows.map(|rows| weights.get(&name, &[rows, config.hidden]))
                .transpose()
        };
        let words = format!("{prefix}{}.weight", names.words);
        // Several layers at a time: their matrices are too small to keep all threads at work alone.
        let layers = (0..config.layers.len())
            .into_par_iter()
            .map(|index| Layer::load(weights, names, prefix, &config, index))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            words: weights.table(&words, config.vocabulary, config.hidden)?,
            positions: table(config.positions, "embeddings.position_embeddings")?,
            token_types: table(config.token_types, "embeddings.token_type_embeddings")?,
            norm: norm(weights, &format!("{prefix}{}", names.norm), &config)?,
            layers,
            final_norm: match config.family.norms_first() {
                true => Some(norm(weights, &format!("{prefix}final_norm"), &config)?),
                false => None,
            },
            ropes: config
                .rotations
                .iter()
                .map(|rotation| Rope::load(weights, rotation))
                .collect::<std::result::Result<_, _>>()?,
            config,
        })
    }

    /// `[all tokens, hidden]`.
    pub(crate) fn forward(&self, inputs: &[&Input], spans: &[Span]) -> Result<Tensor> {
        let mut x = self.embed(inputs)?;
        let places: Vec<_> = spans
            .iter()
            .flat_map(|span| (0..span.tokens).map(|position| (position, span.tokens)))
            .collect();
        let angles = self.ropes.iter().map(|rope| rope.at(&places));
        let angles = angles.collect::<Result<Vec<_>>>()?;
        for layer in &self.layers {
            x = layer.forward(x, &angles, spans)?;
        }
        if let Some(norm) = &self.final_norm {
            norm.apply(&x)?;
        }
        Ok(x)
    }

    fn embed(&self, inputs: &[&Input]) -> Result<Tensor> {
        let tokens: Vec<u32> = inputs
            .iter()
            .flat_map(|input| &*input.tokens)
            .copied()
            .collect();
        let x = self.words.rows(&tokens)?;
        if let Some(table) = &self.positions {
            let places: Vec<u32> = inputs
                .iter()
                .flat_map(|input| self.places(&input.tokens))
                .collect();
            rows::add_matrix(&x, &look_up(table, places)?)?;
        }
        if let Some(table) = &self.token_types {
            let second = |input: &Input| input.second.unwrap_or(input.tokens.len());
            let types = inputs
                .iter()
                .flat_map(|input| (0..input.tokens.len()).map(|at| u32::from(at >= second(input))));
            rows::add_matrix(&x, &look_up(table, types.collect())?)?;
        }
        self.norm.apply(&x)?;
        Ok(x)
    }

    /// Rows of the table of positions for the tokens of one input.
    fn places(&self, tokens: &[u32]) -> Vec<u32> {
        let padding = self.config.padding;
        if !self.config.family.counts_from_padding() {
            return (0..).take(tokens.len()).collect();
        }
        let mut last = padding;
        let place = |token: &u32| match *token == padding {
            true => padding,
            false => {
                last = last.saturating_add(1);
                last
            }
        };
        tokens.iter().map(place).collect()
    }
}

fn look_up(table: &Tensor, rows: Vec<u32>) -> Result<Tensor> {
    let count = rows.len();
    table.index_select(&Tensor::from_vec(rows, count, &Device::Cpu)?, 0)
}

fn norm(
    weights: &Weights,
    name: &str,
    config: &Config,
) -> std::result::Result<LayerNorm, LoadError> {
    let size = config.hidden;
    Ok(LayerNorm {
        weight: weights.vector(&format!("{name}.weight"), size)?,
        bias: match config.norm_bias {
            true => weights.vector(&format!("{name}.bias"), size)?,
            false => vec![0.0; size],
        },
        epsilon: config.norm_epsilon,
    })
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
