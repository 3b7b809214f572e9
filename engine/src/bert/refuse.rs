//! Settings that would change the result and are not supported.

use serde_json::Value;

use super::family::Family;
use crate::{LoadError, fields::Fields};

/// Fields and the only values that change nothing; absent or null is always one.
const NEUTRAL: &[(&str, &[Neutral])] = &[
    ("is_decoder", &[Neutral::False]),
    ("add_cross_attention", &[Neutral::False]),
    ("position_embedding_type", &[Neutral::Word("absolute")]),
    ("quantization_config", &[]),
    ("pruned_heads", &[Neutral::Empty]),
    ("rope_scaling", &[]),
];

/// Of Nomic, as it publishes its models.
const NOMIC: &[(&str, &[Neutral])] = &[
    ("qkv_proj_bias", &[Neutral::False]),
    ("mlp_fc1_bias", &[Neutral::False]),
    ("mlp_fc2_bias", &[Neutral::False]),
    ("prenorm", &[Neutral::False]),
    ("parallel_block", &[Neutral::False]),
    ("use_rms_norm", &[Neutral::False]),
    ("causal", &[Neutral::False]),
    ("rotary_emb_interleaved", &[Neutral::False]),
    ("rotary_emb_fraction", &[Neutral::One]),
    ("rotary_emb_scale_base", &[]),
    ("scale_attn_weights", &[Neutral::True]),
    ("scale_attn_by_inverse_layer_idx", &[Neutral::False]),
    // Mixtures of experts share the name of the model type.
    ("moe_every_n_layers", &[Neutral::Zero]),
    ("num_experts", &[Neutral::Zero]),
];

#[derive(Clone, Copy)]
enum Neutral {
    True,
    False,
    Zero,
    One,
    Word(&'static str),
    /// An object without a field, or a list without a value.
    Empty,
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::True => value.as_bool() == Some(true),
            Self::False => value.as_bool() == Some(false),
            Self::Zero => value.as_u64() == Some(0),
            Self::One => value.as_f64() == Some(1.0),
            Self::Word(word) => value.as_str() == Some(word),
            Self::Empty => {
                value.as_object().is_some_and(serde_json::Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty)
            }
        }
    }
}

pub(super) fn refuse_others(family: Family, fields: &Fields<'_>) -> Result<(), LoadError> {
    refuse(NEUTRAL, fields)?;
    match family {
        Family::NomicBert => refuse(NOMIC, fields),
        _ => Ok(()),
    }
}

fn refuse(list: &[(&str, &[Neutral])], fields: &Fields<'_>) -> Result<(), LoadError> {
    for (field, neutral) in list {
        if let Some(value) = fields.value(field)
            && !neutral.iter().any(|neutral| neutral.is(value))
        {
            return Err(fields.error(field, "a value that is not supported"));
        }
    }
    Ok(())
}
