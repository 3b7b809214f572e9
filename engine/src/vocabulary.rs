mod bytes;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
};

use tokenizers::Tokenizer;
use zeroize::Zeroizing;

use crate::{EngineError, LoadError, ModelFiles, files, ggml::GgufModel};
pub(crate) use bytes::TokenBytes;

pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// The largest vocabularies in use (256 k entries with merges) take about 35 MiB.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;

/// Text has some four bytes a token, deeply indented code some ten. More than this many, over a whole text, is an
/// attempt to make the tokenizer work for a prompt that is refused in the end.
const MAX_BYTES_PER_TOKEN: usize = 64;

/// Refuses a text of `bytes` that cannot reasonably fit `limit` tokens, before the tokenizer spends time and memory on it.
pub(crate) fn check_length(bytes: usize, limit: usize) -> Result<(), EngineError> {
    if bytes > limit.saturating_mul(MAX_BYTES_PER_TOKEN) {
        return Err(EngineError::TextTooLong { limit });
    }
    Ok(())
}

/// The tokenizer of a model: no padding and no truncation of its own, and every id below the model's vocabulary.
pub(crate) struct Vocabulary {
    tokenizer: Tokenizer,
    /// Made when somebody first asks: most requests need none.
    bytes: OnceLock<Option<TokenBytes>>,
}

impl Vocabulary {
    /// `size` is the number of rows of the model's embedding table. A GGUF file has a tokenizer in it, which a file of its own
    /// replaces.
    pub(crate) fn read(
        files: &dyn ModelFiles,
        gguf: Option<&GgufModel>,
        size: usize,
    ) -> Result<Self, LoadError> {
        let file = match gguf {
            Some(model) if files.len(TOKENIZER).is_none() => model.file.as_str(),
            _ => TOKENIZER,
        };
        let malformed = |problem: String| LoadError::Malformed {
            file: file.into(),
            problem,
        };
        let bytes = match gguf {
            Some(model) if file != TOKENIZER => model.tokenizer()?,
            _ => files::read(files, TOKENIZER, MAX_TOKENIZER_BYTES)?,
        };
        // The library is large and its input is not ours: a panic in it must not end the process.
        let parsed = catch_unwind(AssertUnwindSafe(|| Tokenizer::from_bytes(&bytes)))
            .map_err(|_panic| malformed("the tokenizers library cannot read it".into()))?;
        let mut tokenizer = parsed.map_err(|error| {
            malformed(match error.downcast_ref::<serde_json::Error>() {
                Some(error) => format!(
                    "not a tokenizer at line {} column {}",
                    error.line(),
                    error.column()
                ),
                None => "the tokenizers library cannot read it".into(),
            })
        })?;
        // Files carry the padding and truncation of the last training run. Batches pad to their longest row, and a text
        // that is too long is refused, not cut.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|_refused| malformed("truncation cannot be turned off".into()))?;
        let largest = tokenizer.get_vocab(true).into_values().max();
        match largest.map(usize::try_from) {
            Some(Ok(largest)) if largest < size => Ok(Self {
                tokenizer,
                bytes: OnceLock::new(),
            }),
            None => Err(malformed("the vocabulary is empty".into())),
            _ => Err(LoadError::Field {
                file: gguf.map_or("config.json", |model| &model.file).into(),
                field: "vocab_size".into(),
                problem: format!(
                    "{size}, but {file} has token ids up to {}",
                    largest.unwrap_or(u32::MAX)
                ),
            }),
        }
    }

    /// Special tokens that the tokenizer adds itself are added only if `with_special` is set; a chat template writes its own.
    pub(crate) fn encode(
        &self,
        text: &str,
        with_special: bool,
    ) -> Result<Zeroizing<Vec<u32>>, EngineError> {
        // A panic inside a slice of text would carry that text; here it becomes an error without any.
        catch_unwind(AssertUnwindSafe(|| {
            self.tokenizer.encode_fast(text, with_special)
        }))
        .map_err(|_panic| EngineError::Internal)?
        .map(|encoding| Zeroizing::new(encoding.get_ids().to_vec()))
        .map_err(|_text_inside| EngineError::Invalid("the tokenizer cannot encode the text"))
    }

    /// Two texts as one input, and where the second begins if the tokenizer says so.
    pub(crate) fn encode_pair(
        &self,
        first: &str,
        second: &str,
    ) -> Result<(Zeroizing<Vec<u32>>, Option<usize>), EngineError> {
        let encoding = catch_unwind(AssertUnwindSafe(|| {
            self.tokenizer.encode_fast((first, second), true)
        }))
        .map_err(|_panic| EngineError::Internal)?
        .map_err(|_text_inside| EngineError::Invalid("the tokenizer cannot encode the text"))?;
        let types = encoding.get_type_ids();
        let begins = types.iter().position(|part| *part != 0);
        Ok((Zeroizing::new(encoding.get_ids().to_vec()), begins))
    }

    /// Special tokens are left out; what is not valid UTF-8 becomes U+FFFD.
    pub(crate) fn decode(&self, ids: &[u32]) -> Result<Zeroizing<String>, EngineError> {
        self.tokenizer
            .decode(ids, true)
            .map(Zeroizing::new)
            .map_err(|_text_inside| EngineError::Internal)
    }

    /// `None` for a tokenizer whose tokens are no bytes.
    pub(crate) fn token_bytes(&self) -> Option<&TokenBytes> {
        self.bytes
            .get_or_init(|| TokenBytes::read(&self.tokenizer))
            .as_ref()
    }

    /// What one token stands for, a special one by its name; empty if there is none.
    pub(crate) fn bytes(&self, id: u32) -> Result<Vec<u8>, EngineError> {
        match self.token_bytes() {
            Some(bytes) => Ok(bytes.of.get(id as usize).cloned().unwrap_or_default()),
            None => Ok(self.decode(&[id])?.as_bytes().to_vec()),
        }
    }

    pub(crate) fn has(&self, id: u32) -> bool {
        self.tokenizer.id_to_token(id).is_some()
    }

    pub(crate) fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }
}
