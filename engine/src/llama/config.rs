use super::{
    family::{Activation, Family, SUPPORTED, Windows},
    rope::Rotation,
};
use crate::{LoadError, fields::Fields, kv::KvShape};

/// What config.json says, checked: no field can make an allocation that the weights do not back, since tensors are compared
/// with these numbers before they are read.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) vocabulary: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    /// One for each layer.
    pub(crate) layers: Vec<LayerKind>,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) norm_epsilon: f32,
    /// Norms multiply by one more than what is stored.
    pub(crate) norm_offset: bool,
    /// Norms behind attention and the feed-forward part.
    pub(crate) post_norms: bool,
    pub(crate) qk_norm: bool,
    pub(crate) activation: Activation,
    /// Of a layer's queries and keys; more than one where layers differ.
    pub(crate) rotations: Vec<Rotation>,
    /// What scores are multiplied by.
    pub(crate) query_scale: f32,
    pub(crate) score_cap: Option<f32>,
    pub(crate) logit_cap: Option<f32>,
    pub(crate) embedding_scale: Option<f32>,
    /// Positions the model was made for.
    pub(crate) context: usize,
    pub(crate) tied: bool,
    /// Queries, keys and values are stored as one matrix, gate and up as another.
    pub(crate) fused: bool,
    pub(crate) qkv_bias: bool,
    pub(crate) output_bias: bool,
    pub(crate) mlp_bias: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerKind {
    /// How many positions it sees, its own among them.
    pub(crate) window: Option<usize>,
    /// Index in [`Config::rotations`]; none where positions are not encoded.
    pub(crate) rotation: Option<usize>,
}

// Each is a few times the largest published model.
pub(crate) const MAX_VOCABULARY: usize = 1 << 21;
pub(crate) const MAX_HIDDEN: usize = 1 << 16;
pub(crate) const MAX_INTERMEDIATE: usize = 1 << 18;
pub(crate) const MAX_LAYERS: usize = 512;
pub(crate) const MAX_HEADS: usize = 1024;
pub(crate) const MAX_HEAD_DIM: usize = 1024;
pub(crate) const MAX_CONTEXT: usize = 1 << 24;

impl Config {
    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, LoadError> {
        let family = fields.text("model_type")?.and_then(Family::of);
        let family = family.ok_or_else(|| {
            fields.error(
                "model_type",
                format!("only bert, {SUPPORTED} are supported"),
            )
        })?;
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
        if fields.value("quantization_config").is_some() {
            return Err(fields.error("quantization_config", "quantized weights are not supported"));
        }
        if fields.flag("use_bidirectional_attention", false)? {
            return Err(fields.error("use_bidirectional_attention", "not supported"));
        }
        let cap = |field: &str, used: bool| match used {
            true => Ok(fields.optional_positive(field, 1e6)?.map(narrow)),
            false => Ok(None),
        };
        let (qkv_bias, output_bias) = family.attention_biases(fields)?;
        let scalar = family.query_scalar(fields)?.unwrap_or(head_dim as f64);
        let context = fields.count("max_position_embeddings", MAX_CONTEXT)?;
        let rotations = Rotation::read_all(family, fields, head_dim, context)?;
        Ok(Self {
            vocabulary: fields.count("vocab_size", MAX_VOCABULARY)?,
            hidden,
            intermediate: fields.count("intermediate_size", MAX_INTERMEDIATE)?,
            layers: layer_kinds(family, fields, rotations.len())?,
            heads,
            kv_heads,
            head_dim,
            norm_epsilon: narrow(
                fields
                    .optional_positive("rms_norm_eps", 1.0)?
                    .unwrap_or(1e-6),
            ),
            norm_offset: family.norm_offset() && !fields.flag("norms_are_whole", false)?,
            post_norms: family.post_norms(),
            qk_norm: family.qk_norm(),
            activation: family.activation(fields)?,
            rotations,
            query_scale: narrow(1.0 / scalar.sqrt()),
            score_cap: cap("attn_logit_softcapping", family.caps_scores())?,
            logit_cap: cap("final_logit_softcapping", family.caps_logits())?,
            embedding_scale: family
                .scales_embeddings()
                .then(|| narrow((hidden as f64).sqrt())),
            context,
            tied: fields.flag("tie_word_embeddings", family.tied())?,
            fused: family.fused(),
            qkv_bias,
            output_bias,
            mlp_bias: fields.flag("mlp_bias", false)?,
        })
    }
}

impl Config {
    /// What a token of a sequence takes.
    pub(crate) fn kv_shape(&self) -> KvShape {
        KvShape {
            layers: self.layers.len(),
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
        }
    }
}

fn layer_kinds(
    family: Family,
    fields: &Fields<'_>,
    rotations: usize,
) -> Result<Vec<LayerKind>, LoadError> {
    let count = fields.count("num_hidden_layers", MAX_LAYERS)?;
    let size = fields.optional_count("sliding_window", MAX_CONTEXT)?;
    let sliding: Vec<bool> = match (
        family.windows(fields)?,
        size,
        fields.list("layer_types", MAX_LAYERS)?,
    ) {
        (Windows::None, ..) | (_, None, _) => vec![false; count],
        (Windows::Everywhere, ..) => vec![true; count],
        // A list says the same, layer by layer.
        (_, _, Some(types)) => {
            let kind = |value: &serde_json::Value| match value.as_str() {
                Some("sliding_attention") => Ok(true),
                Some("full_attention") => Ok(false),
                _ => Err(fields.error(
                    "layer_types",
                    "only sliding_attention and full_attention are supported",
                )),
            };
            types.iter().map(kind).collect::<Result<_, _>>()?
        }
        (Windows::From(first), ..) => (0..count).map(|layer| layer >= first).collect(),
        (Windows::AllBut(every), ..) => (1..=count)
            .map(|number| !number.is_multiple_of(every))
            .collect(),
    };
    if sliding.len() != count {
        return Err(fields.error(
            "layer_types",
            format!("{} of them for {count} layers", sliding.len()),
        ));
    }
    let encoded = positions_encoded(family, fields, count)?;
    let kinds = sliding
        .into_iter()
        .zip(encoded)
        .map(|(sliding, encoded)| LayerKind {
            window: size.filter(|_| sliding),
            // The second rotation, if there is one, is that of layers with a window.
            rotation: encoded.then_some(usize::from(sliding && rotations > 1)),
        });
    Ok(kinds.collect())
}

/// SmolLM3 leaves out the rotation in each fourth layer.
fn positions_encoded(
    family: Family,
    fields: &Fields<'_>,
    count: usize,
) -> Result<Vec<bool>, LoadError> {
    if family != Family::SmolLm3 {
        return Ok(vec![true; count]);
    }
    let Some(list) = fields.list("no_rope_layers", MAX_LAYERS)? else {
        let every = fields
            .optional_count("no_rope_layer_interval", MAX_LAYERS)?
            .unwrap_or(4);
        return Ok((1..=count)
            .map(|number| !number.is_multiple_of(every))
            .collect());
    };
    let flag = |value: &serde_json::Value| match value.as_u64() {
        Some(flag @ (0 | 1)) => Ok(flag == 1),
        _ => Err(fields.error("no_rope_layers", "expected 0 or 1 for each layer")),
    };
    let flags = list.iter().map(flag).collect::<Result<Vec<_>, _>>()?;
    if flags.len() != count {
        return Err(fields.error(
            "no_rope_layers",
            format!("{} of them for {count} layers", flags.len()),
        ));
    }
    Ok(flags)
}

/// Above any in use (10 million); keeps the powers of it finite.
pub(crate) const MAX_THETA: f64 = 1e12;

#[expect(
    clippy::cast_possible_truncation,
    reason = "f32 is the precision that models compute in"
)]
pub(crate) fn narrow(number: f64) -> f32 {
    number as f32
}
