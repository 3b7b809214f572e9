use std::collections::BTreeSet;

use crate::{
    EngineOptions, LoadError, ModelFiles,
    fields::Fields,
    kv::{BLOCK, KvShape},
    vocabulary::Vocabulary,
};

pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// What the thread must know of a chat model beside its weights.
pub(crate) struct ChatSettings {
    /// Tokens of prompt and answer together.
    pub(crate) context: usize,
    /// Rows of the model's matrix of tokens.
    pub(crate) vocabulary: usize,
    /// Tokens that end a turn.
    pub(crate) end: BTreeSet<u32>,
    pub(crate) prefill_chunk: usize,
    pub(crate) max_sequences: usize,
    /// Of the memory for keys and values.
    pub(crate) blocks: usize,
}

impl ChatSettings {
    /// The end of a turn is named in up to three files, and files of chat models often disagree: the generation settings may
    /// end a document where the template ends a turn. Any of them ends the answer.
    pub(crate) fn read(
        files: &dyn ModelFiles,
        config: &Fields<'_>,
        tokenizer: Option<&Fields<'_>>,
        (context, shape): (usize, KvShape),
        vocabulary_size: usize,
        vocabulary: &Vocabulary,
        options: &EngineOptions,
    ) -> Result<Self, LoadError> {
        if context < 2 {
            return Err(config.error("max_position_embeddings", "leaves no room for an answer"));
        }
        let mut end = BTreeSet::from_iter(config.token_ids("eos_token_id", vocabulary_size)?);
        if let Some(generation) = Fields::read_optional(files, "generation_config.json")? {
            end.extend(generation.token_ids("eos_token_id", vocabulary_size)?);
        }
        if let Some(tokenizer) = tokenizer {
            end.extend(
                special_token(tokenizer, "eos_token")?.and_then(|token| vocabulary.id(&token)),
            );
        }
        if end.is_empty() {
            tracing::warn!("the model names no end of turn: answers run to max_tokens");
        }
        let blocks = blocks(context, shape, options);
        // An answer that no memory could hold is not begun.
        let context = context.min(blocks.saturating_mul(BLOCK));
        if context < 2 {
            return Err(LoadError::Option {
                field: "kv_cache_bytes",
                problem: "holds no two tokens of this model",
            });
        }
        Ok(Self {
            context,
            vocabulary: vocabulary_size,
            end,
            prefill_chunk: options.prefill_chunk,
            max_sequences: options.max_sequences,
            blocks,
        })
    }
}

/// As many as all requests can use, if the memory is enough for them.
fn blocks(context: usize, shape: KvShape, options: &EngineOptions) -> usize {
    let wanted = context
        .div_ceil(BLOCK)
        .saturating_mul(options.max_sequences);
    let affordable = options.kv_cache_bytes / shape.block_bytes().max(1);
    wanted.min(usize::try_from(affordable).unwrap_or(usize::MAX))
}

/// A special token is written as a string, or as an object with its settings.
pub(super) fn special_token(fields: &Fields<'_>, field: &str) -> Result<Option<String>, LoadError> {
    match fields.value(field) {
        Some(serde_json::Value::Object(_)) => {
            let object = fields.object(field)?;
            object.map_or(Ok(None), |object| {
                Ok(object.text("content")?.map(String::from))
            })
        }
        _ => Ok(fields.text(field)?.map(String::from)),
    }
}
