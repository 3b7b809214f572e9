//! What sets one model type apart from another, beside the numbers in its configuration. To add one: a variant, its names, and what
//! differs below and in `config.rs`; then a case in `tests/encoders.py`.

use crate::{LoadError, fields::Fields, rows::Activation};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Bert,
    DistilBert,
    /// RoBERTa, and what is built like it.
    Roberta,
    ModernBert,
    NomicBert,
}

const NAMES: &[(&str, Family)] = &[
    ("bert", Family::Bert),
    ("distilbert", Family::DistilBert),
    ("roberta", Family::Roberta),
    ("xlm-roberta", Family::Roberta),
    ("camembert", Family::Roberta),
    ("modernbert", Family::ModernBert),
    ("nomic_bert", Family::NomicBert),
];

/// Where a family keeps its tensors. Those of a layer are behind `layers` and the layer's number.
#[derive(Debug)]
pub(super) struct Names {
    /// Before all others, where there is a head beside the encoder.
    pub(super) prefix: &'static str,
    pub(super) words: &'static str,
    pub(super) norm: &'static str,
    pub(super) layers: &'static str,
    pub(super) projections: Projections,
    pub(super) output: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) up: Up,
    pub(super) down: &'static str,
    pub(super) mlp_norm: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Projections {
    /// Queries, keys, values.
    Apart(&'static str, &'static str, &'static str),
    /// One below the other.
    Fused(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Up {
    Plain(&'static str),
    /// What goes through the activation, and what that is multiplied by.
    Gated(&'static str, &'static str),
    /// The same, one below the other.
    Fused(&'static str),
}

const BERT: Names = Names {
    prefix: "bert.",
    words: "embeddings.word_embeddings",
    norm: "embeddings.LayerNorm",
    layers: "encoder.layer.",
    projections: Projections::Apart(
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ),
    output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: Up::Plain("intermediate.dense"),
    down: "output.dense",
    mlp_norm: "output.LayerNorm",
};

const ROBERTA: Names = Names {
    prefix: "roberta.",
    ..BERT
};

const DISTILBERT: Names = Names {
    prefix: "distilbert.",
    layers: "transformer.layer.",
    projections: Projections::Apart("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: Up::Plain("ffn.lin1"),
    down: "ffn.lin2",
    mlp_norm: "output_layer_norm",
    ..BERT
};

const MODERNBERT: Names = Names {
    prefix: "model.",
    words: "embeddings.tok_embeddings",
    norm: "embeddings.norm",
    layers: "layers.",
    projections: Projections::Fused("attn.Wqkv"),
    output: "attn.Wo",
    attention_norm: "attn_norm",
    up: Up::Fused("mlp.Wi"),
    down: "mlp.Wo",
    mlp_norm: "mlp_norm",
};

/// As Nomic publishes it, and as transformers saves what it has read.
const NOMIC: Names = Names {
    prefix: "nomic_bert.",
    norm: "emb_ln",
    layers: "encoder.layers.",
    projections: Projections::Fused("attn.Wqkv"),
    output: "attn.out_proj",
    attention_norm: "norm1",
    up: Up::Gated("mlp.fc12", "mlp.fc11"),
    down: "mlp.fc2",
    mlp_norm: "norm2",
    ..BERT
};

/// As transformers names them itself.
const NOMIC_NATIVE: Names = Names {
    norm: "embeddings.LayerNorm",
    layers: "layers.",
    projections: Projections::Apart("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    output: "self_attn.o_proj",
    attention_norm: "post_attention_layernorm",
    up: Up::Gated("mlp.gate_proj", "mlp.up_proj"),
    down: "mlp.down_proj",
    mlp_norm: "post_mlp_layernorm",
    ..NOMIC
};

impl Family {
    pub(crate) fn of(model_type: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(name, _)| *name == model_type)
            .map(|(_, family)| *family)
    }

    /// `has` tells whether there is a tensor of a name.
    pub(super) fn names(self, has: impl Fn(&str) -> bool) -> &'static Names {
        match self {
            Self::Bert => &BERT,
            Self::DistilBert => &DISTILBERT,
            Self::Roberta => &ROBERTA,
            Self::ModernBert => &MODERNBERT,
            Self::NomicBert if has("emb_ln.weight") || has("nomic_bert.emb_ln.weight") => &NOMIC,
            Self::NomicBert => &NOMIC_NATIVE,
        }
    }

    /// Positions are numbers added to the words, and not a rotation.
    pub(super) fn learns_positions(self) -> bool {
        !self.rotates()
    }

    pub(super) fn rotates(self) -> bool {
        matches!(self, Self::ModernBert | Self::NomicBert)
    }

    /// The first token has the position behind that of padding, and padding that of its own.
    pub(super) fn counts_from_padding(self) -> bool {
        self == Self::Roberta
    }

    pub(super) fn has_token_types(self) -> bool {
        !matches!(self, Self::DistilBert | Self::ModernBert)
    }

    /// The tokenizer says which part of a pair a token belongs to, and the model listens.
    pub(super) fn marks_pairs(self) -> bool {
        matches!(self, Self::Bert | Self::NomicBert)
    }

    /// Norms come before attention and the feed-forward part: the first layer has none, and one is behind the last layer.
    pub(super) fn norms_first(self) -> bool {
        self == Self::ModernBert
    }

    /// Of attention, of the feed-forward part, and of norms.
    pub(super) fn biases(self, fields: &Fields<'_>) -> Result<(bool, bool, bool), LoadError> {
        match self {
            Self::ModernBert => Ok((
                fields.flag("attention_bias", false)?,
                fields.flag("mlp_bias", false)?,
                fields.flag("norm_bias", false)?,
            )),
            Self::NomicBert => Ok((false, false, true)),
            _ => Ok((true, true, true)),
        }
    }

    /// The token of padding, where the configuration is silent.
    pub(super) fn padding(self) -> u32 {
        match self {
            Self::Roberta => 1,
            _ => 0,
        }
    }

    pub(super) fn epsilon(self, fields: &Fields<'_>) -> Result<f64, LoadError> {
        let (field, silent) = match self {
            Self::DistilBert => return Ok(1e-12),
            Self::ModernBert => ("norm_eps", 1e-5),
            Self::NomicBert if fields.value("layer_norm_epsilon").is_some() => {
                ("layer_norm_epsilon", 1e-12)
            }
            _ => ("layer_norm_eps", 1e-12),
        };
        Ok(fields.optional_positive(field, 1.0)?.unwrap_or(silent))
    }

    pub(super) fn activation(self, fields: &Fields<'_>) -> Result<Activation, LoadError> {
        match self {
            Self::DistilBert => activation(fields, "activation", Activation::Gelu),
            Self::ModernBert => activation(fields, "hidden_activation", Activation::Gelu),
            Self::NomicBert => match fields.text("activation_function")? {
                Some("swiglu") => Ok(Activation::Silu),
                Some(_) => Err(fields.error("activation_function", "only swiglu is supported")),
                None => activation(fields, "hidden_act", Activation::Silu),
            },
            _ => activation(fields, "hidden_act", Activation::Gelu),
        }
    }
}

pub(super) fn activation(
    fields: &Fields<'_>,
    field: &str,
    silent: Activation,
) -> Result<Activation, LoadError> {
    match fields.text(field)? {
        None => Ok(silent),
        Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
        Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some("relu") => Ok(Activation::Relu),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some(_) => Err(fields.error(
            field,
            "only gelu, gelu_new, gelu_pytorch_tanh, relu and silu are supported",
        )),
    }
}
