//! What a cross-encoder makes of the vectors of a pair of texts: one score.

use candle_core::{Device, Result, Tensor};

use super::{Config, Span, family::activation};
use crate::{
    LoadError,
    bert::Family,
    fields::Fields,
    linear::Linear,
    rows::{Activation, LayerNorm},
    weights::Weights,
};

const SUFFIX: &str = "ForSequenceClassification";
const MAX_ARCHITECTURES: usize = 16;

pub(super) struct Head {
    mean: bool,
    dense: Linear,
    activation: Activation,
    norm: Option<LayerNorm>,
    output: Linear,
}

/// Whether config.json names an architecture with a head for whole inputs.
pub(super) fn is_there(fields: &Fields<'_>) -> std::result::Result<bool, LoadError> {
    let names = fields.list("architectures", MAX_ARCHITECTURES)?;
    let mut names = names.into_iter().flatten().filter_map(|name| name.as_str());
    if !names.any(|name| name.ends_with(SUFFIX)) {
        return Ok(false);
    }
    // As transformers counts them: by their names, two where there are none.
    let labels = match fields
        .value("id2label")
        .and_then(|labels| labels.as_object())
    {
        Some(labels) => labels.len(),
        None => fields.optional_count("num_labels", 1 << 20)?.unwrap_or(2),
    };
    match labels {
        1 => Ok(true),
        _ => Err(fields.error(
            "id2label",
            format!("{labels} labels; only models with one are supported, which rank"),
        )),
    }
}

impl Head {
    pub(super) fn load(
        config: &Config,
        fields: &Fields<'_>,
        weights: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let hidden = config.hidden;
        let dense = |name: &str, bias: bool| Linear::load(weights, name, hidden, hidden, bias);
        let output = |name: &str| Linear::load(weights, name, 1, hidden, true);
        let of = |name: &str, activation, last: &str| {
            Ok(Self {
                mean: false,
                dense: dense(name, true)?,
                activation,
                norm: None,
                output: output(last)?,
            })
        };
        match config.family {
            Family::Bert => of("bert.pooler.dense", Activation::Tanh, "classifier"),
            Family::NomicBert => of("nomic_bert.pooler.dense", Activation::Tanh, "classifier"),
            Family::DistilBert => of("pre_classifier", Activation::Relu, "classifier"),
            Family::Roberta => of("classifier.dense", Activation::Tanh, "classifier.out_proj"),
            Family::ModernBert => Ok(Self {
                mean: match fields.text("classifier_pooling")? {
                    None | Some("cls") => false,
                    Some("mean") => true,
                    Some(_) => {
                        return Err(
                            fields.error("classifier_pooling", "only cls and mean are supported")
                        );
                    }
                },
                dense: dense("head.dense", fields.flag("classifier_bias", false)?)?,
                activation: activation(fields, "classifier_activation", Activation::Gelu)?,
                norm: Some(super::norm(weights, "head.norm", config)?),
                output: output("classifier")?,
            }),
        }
    }

    /// One number for each input; `hidden` is `[all tokens, hidden]`.
    pub(super) fn scores(&self, hidden: &Tensor, spans: &[Span]) -> Result<Vec<Vec<f32>>> {
        let x = match self.mean {
            true => {
                let mean = |span: &Span| hidden.narrow(0, span.start, span.tokens)?.mean_keepdim(0);
                Tensor::cat(&spans.iter().map(mean).collect::<Result<Vec<_>>>()?, 0)?
            }
            false => {
                let first =
                    |span: &Span| u32::try_from(span.start).map_err(candle_core::Error::wrap);
                let first = spans.iter().map(first).collect::<Result<Vec<u32>>>()?;
                hidden.index_select(&Tensor::from_vec(first, spans.len(), &Device::Cpu)?, 0)?
            }
        };
        let activation = self.activation;
        let x = self.dense.forward_then(
            &x,
            #[inline(always)]
            |_, row| {
                activation.apply(row);
                if let Some(norm) = &self.norm {
                    norm.row(row);
                }
            },
        )?;
        self.output.forward(&x)?.to_vec2()
    }
}
