//! What sets one model type apart from another, beside the numbers in its configuration. To add one: a variant, its name, and what
//! differs below; then a case in `tests/reference.py`.

use super::rope::Scaling;
use crate::{LoadError, fields::Fields};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Phi3,
    Gemma,
    Gemma2,
    Gemma3,
    SmolLm3,
}

/// Names in the configuration, and in GGUF where that is another.
const NAMES: &[(&str, &str, Family)] = &[
    ("llama", "llama", Family::Llama),
    ("mistral", "", Family::Mistral),
    ("qwen2", "qwen2", Family::Qwen2),
    ("qwen3", "qwen3", Family::Qwen3),
    ("phi3", "phi3", Family::Phi3),
    ("gemma", "gemma", Family::Gemma),
    ("gemma2", "gemma2", Family::Gemma2),
    ("gemma3_text", "gemma3", Family::Gemma3),
    ("smollm3", "smollm3", Family::SmolLm3),
];

pub(crate) const SUPPORTED: &str =
    "llama, mistral, qwen2, qwen3, phi3, gemma, gemma2, gemma3_text and smollm3";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    /// The approximation by a hyperbolic tangent.
    Gelu,
}

/// Which layers see the last positions only.
pub(super) enum Windows {
    None,
    Everywhere,
    /// From this layer on.
    From(usize),
    /// All but each layer whose number, from one, this divides.
    AllBut(usize),
}

impl Family {
    pub(crate) fn of(model_type: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(name, ..)| *name == model_type)
            .map(|(.., family)| *family)
    }

    /// The `model_type` of what GGUF calls an architecture.
    pub(crate) fn of_gguf(architecture: &str) -> Option<&'static str> {
        let found = NAMES
            .iter()
            .find(|(_, gguf, _)| !gguf.is_empty() && *gguf == architecture);
        found.map(|(name, ..)| *name)
    }

    fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma | Self::Gemma2 | Self::Gemma3)
    }

    /// Where the configuration is silent.
    pub(super) fn tied(self) -> bool {
        self.is_gemma() || self == Self::SmolLm3
    }

    pub(super) fn rope_theta(self) -> f64 {
        match self {
            Self::Gemma3 => 1_000_000.0,
            Self::SmolLm3 => 2_000_000.0,
            _ => 10_000.0,
        }
    }

    /// Norms multiply by one more than their weight.
    pub(super) fn norm_offset(self) -> bool {
        self.is_gemma()
    }

    /// Embeddings are multiplied by the root of their length.
    pub(super) fn scales_embeddings(self) -> bool {
        self.is_gemma()
    }

    /// Norms after attention and after the feed-forward part, too.
    pub(super) fn post_norms(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    /// Queries and keys are normalised, head by head.
    pub(super) fn qk_norm(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Gemma3)
    }

    /// Queries, keys and values are one matrix, gate and up another.
    pub(super) fn fused(self) -> bool {
        self == Self::Phi3
    }

    /// Biases of queries, keys and values, then of the output.
    pub(super) fn attention_biases(self, fields: &Fields<'_>) -> Result<(bool, bool), LoadError> {
        match self {
            Self::Qwen2 => Ok((true, false)),
            Self::Phi3 | Self::Mistral => Ok((false, false)),
            _ => {
                let bias = fields.flag("attention_bias", false)?;
                Ok((bias, fields.flag("attention_output_bias", bias)?))
            }
        }
    }

    pub(super) fn activation(self, fields: &Fields<'_>) -> Result<Activation, LoadError> {
        let field = match fields.value("hidden_activation") {
            Some(_) => "hidden_activation",
            None => "hidden_act",
        };
        match fields.text(field)? {
            // The first Gemma's files say gelu and mean its approximation.
            Some("gelu") if self == Self::Gemma => Ok(Activation::Gelu),
            None if self.is_gemma() => Ok(Activation::Gelu),
            Some("gelu_pytorch_tanh") => Ok(Activation::Gelu),
            None | Some("silu") => Ok(Activation::Silu),
            Some(_) => Err(fields.error(field, "only silu and gelu_pytorch_tanh are supported")),
        }
    }

    pub(super) fn windows(self, fields: &Fields<'_>) -> Result<Windows, LoadError> {
        Ok(match self {
            Self::Mistral | Self::Phi3 => Windows::Everywhere,
            Self::Qwen2 | Self::Qwen3 if fields.flag("use_sliding_window", false)? => {
                Windows::From(
                    fields
                        .optional_count("max_window_layers", 1 << 16)?
                        .unwrap_or(28),
                )
            }
            Self::Gemma2 => Windows::AllBut(2),
            Self::Gemma3 => Windows::AllBut(
                fields
                    .optional_count("sliding_window_pattern", 1 << 16)?
                    .unwrap_or(6),
            ),
            _ => Windows::None,
        })
    }

    /// Applied to the attention scores; Gemma 3 has the setting and does not use it.
    pub(super) fn caps_scores(self) -> bool {
        self == Self::Gemma2
    }

    pub(super) fn caps_logits(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    /// Layers with a window have a rotation of their own: theta of it where the configuration is silent.
    pub(super) fn local_rope(self) -> Option<(f64, Scaling)> {
        (self == Self::Gemma3).then_some((10_000.0, Scaling::None))
    }

    /// The size under whose root scores are divided, where it is not that of a head.
    pub(super) fn query_scalar(self, fields: &Fields<'_>) -> Result<Option<f64>, LoadError> {
        match self {
            Self::Gemma2 | Self::Gemma3 => Ok(Some(
                fields
                    .optional_positive("query_pre_attn_scalar", 1e6)?
                    .unwrap_or(256.0),
            )),
            _ => Ok(None),
        }
    }
}
