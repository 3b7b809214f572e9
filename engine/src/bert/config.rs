use super::{family::Family, refuse::refuse_others};
use crate::{
    LoadError, ModelFiles,
    fields::Fields,
    llama::{
        MAX_CONTEXT, MAX_HEAD_DIM, MAX_HEADS, MAX_HIDDEN, MAX_INTERMEDIATE, MAX_LAYERS, MAX_THETA,
        MAX_VOCABULARY, Rotation, Scaling, narrow,
    },
    rows::Activation,
};

/// What config.json says, checked. Tensors are compared with these numbers before they are read.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) family: Family,
    pub(crate) vocabulary: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    /// One for each layer.
    pub(crate) layers: Vec<LayerKind>,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) norm_epsilon: f32,
    pub(crate) activation: Activation,
    pub(crate) attention_bias: bool,
    pub(crate) mlp_bias: bool,
    pub(crate) norm_bias: bool,
    /// Segments that are told apart; none where all tokens are alike.
    pub(crate) token_types: Option<usize>,
    /// Rows of the table of positions, where they are numbers added to the words.
    pub(crate) positions: Option<usize>,
    /// Of queries and keys elsewhere; more than one where layers differ.
    pub(crate) rotations: Vec<Rotation>,
    pub(crate) padding: u32,
    /// Tokens of one input that the model has positions for.
    pub(crate) context: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerKind {
    /// How far a token sees to either side.
    pub(crate) window: Option<usize>,
    /// Index in [`Config::rotations`].
    pub(crate) rotation: Option<usize>,
}

/// Segments; published models have two.
const MAX_TOKEN_TYPES: usize = 64;

impl Config {
    pub(crate) fn read(family: Family, fields: &Fields<'_>) -> Result<Self, LoadError> {
        refuse_others(family, fields)?;
        let size = |names: &[&'static str]| {
            let found = names.iter().find(|name| fields.value(name).is_some());
            found.or(names.first()).copied().unwrap_or_default()
        };
        // DistilBERT has names of its own, and so has Nomic where it was not saved by transformers.
        let hidden_field = size(&["hidden_size", "dim", "n_embd"]);
        let heads_field = size(&["num_attention_heads", "n_heads", "n_head"]);
        let layers_field = size(&["num_hidden_layers", "n_layers", "n_layer"]);
        let intermediate_field = size(&["intermediate_size", "hidden_dim", "n_inner"]);
        let hidden = fields.count(hidden_field, MAX_HIDDEN)?;
        let heads = fields.count(heads_field, MAX_HEADS)?;
        if !hidden.is_multiple_of(heads) {
            return Err(fields.error(
                heads_field,
                format!("{heads} does not divide {hidden_field} {hidden}"),
            ));
        }
        let head_dim = hidden / heads;
        if head_dim > MAX_HEAD_DIM || (family.rotates() && !head_dim.is_multiple_of(2)) {
            return Err(fields.error(heads_field, format!("makes heads of {head_dim}")));
        }
        if let Some(written) = fields.optional_count("head_dim", MAX_HEAD_DIM)?
            && written != head_dim
        {
            return Err(fields.error("head_dim", format!("{written}, expected {head_dim}")));
        }
        let vocabulary = fields.count("vocab_size", MAX_VOCABULARY)?;
        let padding = fields.token_ids("pad_token_id", vocabulary)?;
        let padding = padding.first().copied().unwrap_or(family.padding());
        let (positions, context) = context(family, fields, padding)?;
        let count = fields.count(layers_field, MAX_LAYERS)?;
        let (attention_bias, mlp_bias, norm_bias) = family.biases(fields)?;
        Ok(Self {
            family,
            vocabulary,
            hidden,
            intermediate: fields.count(intermediate_field, MAX_INTERMEDIATE)?,
            layers: layer_kinds(family, fields, count)?,
            heads,
            head_dim,
            norm_epsilon: narrow(family.epsilon(fields)?),
            activation: family.activation(fields)?,
            attention_bias,
            mlp_bias,
            norm_bias,
            token_types: match family.has_token_types() {
                true => Some(fields.count("type_vocab_size", MAX_TOKEN_TYPES)?),
                false => None,
            },
            positions,
            rotations: rotations(family, fields, head_dim)?,
            padding,
            context,
        })
    }

    /// What the model was trained to embed, which is often less than it has positions for.
    pub(crate) fn max_input_tokens(&self, files: &dyn ModelFiles) -> Result<usize, LoadError> {
        let Some(sentences) = Fields::read_optional(files, "sentence_bert_config.json")? else {
            return Ok(self.context);
        };
        if sentences.flag("do_lower_case", false)? {
            return Err(sentences.error("do_lower_case", "not supported"));
        }
        Ok(sentences
            .optional_count("max_seq_length", MAX_CONTEXT)?
            .unwrap_or(self.context)
            .min(self.context))
    }
}

/// Rows of the table of positions, and tokens of an input.
fn context(
    family: Family,
    fields: &Fields<'_>,
    padding: u32,
) -> Result<(Option<usize>, usize), LoadError> {
    const FIELD: &str = "max_position_embeddings";
    // What Nomic was trained on; beyond it the rotation would change with the length of the input.
    let field = match family {
        Family::NomicBert if fields.value(FIELD).is_none() => "max_trained_positions",
        _ => FIELD,
    };
    let positions = fields.count(field, MAX_CONTEXT)?;
    let first = match family.counts_from_padding() {
        true => usize::try_from(padding).map_or(positions, |padding| padding.saturating_add(1)),
        false => 0,
    };
    let context = positions.checked_sub(first).filter(|context| *context > 0);
    let context = context
        .ok_or_else(|| fields.error(field, format!("{positions} leaves no position to a token")))?;
    Ok((family.learns_positions().then_some(positions), context))
}

fn layer_kinds(
    family: Family,
    fields: &Fields<'_>,
    count: usize,
) -> Result<Vec<LayerKind>, LoadError> {
    let plain = LayerKind {
        window: None,
        rotation: family.rotates().then_some(0),
    };
    if family != Family::ModernBert {
        return Ok(vec![plain; count]);
    }
    let local = fields
        .optional_count("local_attention", MAX_CONTEXT)?
        .unwrap_or(128);
    let narrow = LayerKind {
        window: Some(local / 2),
        rotation: Some(1),
    };
    if let Some(list) = fields.list("layer_types", MAX_LAYERS)? {
        let kind = |value: &serde_json::Value| match value.as_str() {
            Some("full_attention") => Ok(plain),
            Some("sliding_attention") => Ok(narrow),
            _ => Err(fields.error(
                "layer_types",
                "only full_attention and sliding_attention are supported",
            )),
        };
        let kinds = list.iter().map(kind).collect::<Result<Vec<_>, _>>()?;
        if kinds.len() != count {
            return Err(fields.error(
                "layer_types",
                format!("{} of them for {count} layers", kinds.len()),
            ));
        }
        return Ok(kinds);
    }
    let every = fields
        .optional_count("global_attn_every_n_layers", MAX_LAYERS)?
        .unwrap_or(3);
    Ok((0..count)
        .map(|index| match index.is_multiple_of(every) {
            true => plain,
            false => narrow,
        })
        .collect())
}

fn rotations(
    family: Family,
    fields: &Fields<'_>,
    head_dim: usize,
) -> Result<Vec<Rotation>, LoadError> {
    // Where it is in newer files, in older ones, and what it is where both are silent.
    let kinds: &[(&str, &str, f64)] = match family {
        Family::ModernBert => &[
            ("full_attention", "global_rope_theta", 160_000.0),
            ("sliding_attention", "local_rope_theta", 10_000.0),
        ],
        Family::NomicBert => &[("", "rotary_emb_base", 1000.0)],
        _ => &[],
    };
    let each = kinds.iter().map(|(kind, older, silent)| {
        let newer = fields.object("rope_parameters")?;
        let rope = match newer {
            Some(newer) if !kind.is_empty() => newer.object(kind)?,
            newer => newer,
        };
        let theta = match rope {
            Some(rope) => {
                match rope.text("rope_type")? {
                    None | Some("default") => {}
                    Some(_) => return Err(rope.error("rope_type", "only default is supported")),
                }
                rope.optional_positive("rope_theta", MAX_THETA)?
            }
            None => None,
        };
        let theta = match theta {
            Some(theta) => theta,
            None => fields
                .optional_positive(older, MAX_THETA)?
                .unwrap_or(*silent),
        };
        Ok(Rotation {
            theta: narrow(theta),
            scaling: Scaling::None,
            dim: head_dim,
        })
    });
    each.collect()
}

#[cfg(test)]
mod tests;
