use candle_transformers::models::bert::{self, HiddenAct, PositionEmbeddingType};

use crate::{
    LoadError, ModelFiles,
    fields::Fields,
    llama::{MAX_CONTEXT, MAX_HEADS, MAX_HIDDEN, MAX_INTERMEDIATE, MAX_LAYERS, MAX_VOCABULARY},
};

pub(super) struct Config {
    pub(super) model: bert::Config,
    pub(super) padding: u32,
}

/// Segments; published models have two.
const MAX_TOKEN_TYPES: usize = 64;

impl Config {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, LoadError> {
        let hidden_size = fields.count("hidden_size", MAX_HIDDEN)?;
        let heads = fields.count("num_attention_heads", MAX_HEADS)?;
        if !hidden_size.is_multiple_of(heads) {
            return Err(fields.error(
                "num_attention_heads",
                format!("{heads} does not divide hidden_size {hidden_size}"),
            ));
        }
        let hidden_act = match fields.text("hidden_act")? {
            None | Some("gelu") => HiddenAct::Gelu,
            Some("gelu_new" | "gelu_pytorch_tanh") => HiddenAct::GeluApproximate,
            Some("relu") => HiddenAct::Relu,
            Some(_) => {
                return Err(
                    fields.error("hidden_act", "only gelu, gelu_new and relu are supported")
                );
            }
        };
        match fields.text("position_embedding_type")? {
            None | Some("absolute") => {}
            Some(_) => {
                return Err(fields.error("position_embedding_type", "only absolute is supported"));
            }
        }
        let vocab_size = fields.count("vocab_size", MAX_VOCABULARY)?;
        let padding = fields
            .token_ids("pad_token_id", vocab_size)?
            .first()
            .copied()
            .unwrap_or(0);
        let model = bert::Config {
            vocab_size,
            hidden_size,
            num_hidden_layers: fields.count("num_hidden_layers", MAX_LAYERS)?,
            num_attention_heads: heads,
            intermediate_size: fields.count("intermediate_size", MAX_INTERMEDIATE)?,
            hidden_act,
            hidden_dropout_prob: 0.0,
            max_position_embeddings: fields.count("max_position_embeddings", MAX_CONTEXT)?,
            type_vocab_size: fields.count("type_vocab_size", MAX_TOKEN_TYPES)?,
            initializer_range: 0.02,
            layer_norm_eps: fields
                .optional_positive("layer_norm_eps", 1.0)?
                .unwrap_or(1e-12),
            pad_token_id: 0,
            position_embedding_type: PositionEmbeddingType::Absolute,
            use_cache: false,
            classifier_dropout: None,
            // With a type, candle would try every tensor again under another name and report the wrong one as missing.
            model_type: None,
        };
        Ok(Self { model, padding })
    }

    /// What the model was trained to embed, which is often less than it has positions for.
    pub(super) fn max_input_tokens(&self, files: &dyn ModelFiles) -> Result<usize, LoadError> {
        let positions = self.model.max_position_embeddings;
        let Some(sentences) = Fields::read_optional(files, "sentence_bert_config.json")? else {
            return Ok(positions);
        };
        Ok(sentences
            .optional_count("max_seq_length", MAX_CONTEXT)?
            .unwrap_or(positions)
            .min(positions))
    }
}
