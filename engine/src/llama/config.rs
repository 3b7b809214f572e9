use super::rope::Scaling;
use crate::{LoadError, fields::Fields};

/// What config.json says, checked: no field can make an allocation that the weights do not back, since tensors are compared
/// with these numbers before they are read.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) vocabulary: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) norm_epsilon: f32,
    pub(crate) rope_theta: f32,
    pub(crate) rope_scaling: Scaling,
    /// Positions the model was made for.
    pub(crate) context: usize,
    pub(crate) tied: bool,
    pub(crate) attention_bias: bool,
    pub(crate) mlp_bias: bool,
}

// Each is a few times the largest published model.
pub(crate) const MAX_VOCABULARY: usize = 1 << 21;
pub(crate) const MAX_HIDDEN: usize = 1 << 16;
pub(crate) const MAX_INTERMEDIATE: usize = 1 << 18;
pub(crate) const MAX_LAYERS: usize = 512;
pub(crate) const MAX_HEADS: usize = 1024;
const MAX_HEAD_DIM: usize = 1024;
pub(crate) const MAX_CONTEXT: usize = 1 << 24;

impl Config {
    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, LoadError> {
        let hidden = fields.count("hidden_size", MAX_HIDDEN)?;
        let heads = fields.count("num_attention_heads", MAX_HEADS)?;
        let kv_heads = fields
            .optional_count("num_key_value_heads", MAX_HEADS)?
            .unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(fields.error(
                "num_key_value_heads",
                format!("{kv_heads} does not divide {heads} attention heads"),
            ));
        }
        let head_dim = match fields.optional_count("head_dim", MAX_HEAD_DIM)? {
            Some(size) => size,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(fields.error(
                    "num_attention_heads",
                    format!("{heads} does not divide hidden_size {hidden}"),
                ));
            }
        };
        if !head_dim.is_multiple_of(2) || head_dim > MAX_HEAD_DIM {
            return Err(fields.error(
                "head_dim",
                format!("{head_dim} is not an even number up to {MAX_HEAD_DIM}"),
            ));
        }
        match fields.text("hidden_act")? {
            None | Some("silu") => {}
            Some(_) => return Err(fields.error("hidden_act", "only silu is supported")),
        }
        if fields.value("quantization_config").is_some() {
            return Err(fields.error("quantization_config", "quantized weights are not supported"));
        }

        // Newer files hold both settings in one object.
        let rope = match fields.object("rope_parameters")? {
            Some(parameters) => Some(parameters),
            None => fields.object("rope_scaling")?,
        };
        let theta = match &rope {
            Some(rope) if rope.value("rope_theta").is_some() => {
                rope.optional_positive("rope_theta", MAX_THETA)?
            }
            _ => fields.optional_positive("rope_theta", MAX_THETA)?,
        };
        Ok(Self {
            vocabulary: fields.count("vocab_size", MAX_VOCABULARY)?,
            hidden,
            intermediate: fields.count("intermediate_size", MAX_INTERMEDIATE)?,
            layers: fields.count("num_hidden_layers", MAX_LAYERS)?,
            heads,
            kv_heads,
            head_dim,
            norm_epsilon: narrow(
                fields
                    .optional_positive("rms_norm_eps", 1.0)?
                    .unwrap_or(1e-6),
            ),
            rope_theta: narrow(theta.unwrap_or(10_000.0)),
            rope_scaling: rope.as_ref().map_or(Ok(Scaling::None), Scaling::read)?,
            context: fields.count("max_position_embeddings", MAX_CONTEXT)?,
            tied: fields.flag("tie_word_embeddings", false)?,
            attention_bias: fields.flag("attention_bias", false)?,
            mlp_bias: fields.flag("mlp_bias", false)?,
        })
    }
}

/// Above any in use (10 million); keeps the powers of it finite.
const MAX_THETA: f64 = 1e12;

#[expect(
    clippy::cast_possible_truncation,
    reason = "f32 is the precision that models compute in"
)]
pub(super) fn narrow(number: f64) -> f32 {
    number as f32
}
