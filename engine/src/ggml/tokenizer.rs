//! A tokenizer from metadata: what tokenizer.json would say, so that one library and one set of checks reads both.

use std::collections::HashMap;

use gguf::Value;
use serde_json::json;

use super::GgufModel;
use crate::LoadError;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";

// Kinds of token (llama.cpp, `llama_token_type`).
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Words, numbers of at most so many digits, signs, white space: how Llama 3 and its relatives cut text before they merge.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The longest published tokens have some hundred characters; a longer one has no merges made from its parts.
const MAX_MERGED_CHARS: usize = 256;

impl GgufModel {
    /// The bytes of the tokenizer.json that says the same.
    ///
    /// # Errors
    /// A kind of tokenizer that is not known here, or one that contradicts itself.
    pub(crate) fn tokenizer(&self) -> Result<Vec<u8>, LoadError> {
        let tokens = self.texts(TOKENS)?;
        let mut vocabulary = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if vocabulary.insert(token.as_str(), id).is_some() {
                return Err(self.field(TOKENS, format!("token {id} is there twice")));
            }
        }
        let parts = match self.text(MODEL)? {
            "gpt2" => self.byte_level()?,
            "llama" => self.sentence_piece(&vocabulary)?,
            _ => {
                return Err(self.field(
                    MODEL,
                    "only gpt2 and llama are supported; put a tokenizer.json beside the file",
                ));
            }
        };
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "post_processor": null,
            "added_tokens": self.added(tokens)?,
            "normalizer": parts.normalizer, "pre_tokenizer": parts.pre_tokenizer, "decoder": parts.decoder,
            "model": {
                "type": "BPE", "dropout": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "unk_token": parts.unknown, "fuse_unk": parts.unknown.is_some(),
                "byte_fallback": parts.byte_fallback, "ignore_merges": parts.ignore_merges,
                "vocab": vocabulary, "merges": parts.merges,
            },
        });
        serde_json::to_vec(&tokenizer)
            .map_err(|_never| self.field(TOKENS, "cannot be written as JSON"))
    }

    /// Bytes as characters, merged by rank.
    fn byte_level(&self) -> Result<Parts<'_>, LoadError> {
        let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let split = |pattern: &str| {
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
                byte_level(false),
            ]})
        };
        let (normalizer, pre_tokenizer, ignore_merges) = match self.text(PRE)? {
            "gpt-2" => (json!(null), byte_level(true), false),
            "llama-bpe" => (json!(null), split(LLAMA3), true),
            "qwen2" => (json!({"type": "NFC"}), split(QWEN2), false),
            "smollm" => {
                let digits = json!({"type": "Digits", "individual_digits": true});
                let both = json!({"type": "Sequence", "pretokenizers": [digits, byte_level(true)]});
                (json!(null), both, false)
            }
            _ => {
                return Err(self.field(
                    PRE,
                    "only gpt-2, llama-bpe, qwen2 and smollm are supported; put a tokenizer.json beside the file",
                ));
            }
        };
        let merges = self.texts(MERGES)?.iter().enumerate().map(|(rank, merge)| {
            let parts = merge.split_once(' ');
            parts.ok_or_else(|| self.field(MERGES, format!("merge {rank} has one part")))
        });
        Ok(Parts {
            normalizer,
            pre_tokenizer,
            decoder: byte_level(true),
            merges: merges.collect::<Result<_, _>>()?,
            unknown: None,
            byte_fallback: false,
            ignore_merges,
        })
    }

    /// SentencePiece's merging, which goes by the score of what a merge makes: the same as merges in the order of those scores.
    fn sentence_piece<'a>(
        &'a self,
        vocabulary: &HashMap<&'a str, usize>,
    ) -> Result<Parts<'a>, LoadError> {
        let Some(Value::Floats(scores)) = self.values.get(SCORES) else {
            return Err(self.field(SCORES, "expected a list of numbers"));
        };
        if scores.len() != vocabulary.len() || scores.iter().any(|score| !score.is_finite()) {
            return Err(self.field(
                SCORES,
                format!("expected {} finite numbers", vocabulary.len()),
            ));
        }
        let prefix = match self.values.get("tokenizer.ggml.add_space_prefix") {
            Some(Value::Bool(prefix)) => *prefix,
            _ => true,
        };
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let back = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
        let (mut before, mut after) = (
            Vec::new(),
            vec![
                back,
                json!({"type": "ByteFallback"}),
                json!({"type": "Fuse"}),
            ],
        );
        if prefix {
            before.push(json!({"type": "Prepend", "prepend": "▁"}));
            after.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        before.push(replace);
        let unknown = self
            .values
            .get("tokenizer.ggml.unknown_token_id")
            .and_then(super::metadata::as_u64);
        let unknown = unknown.unwrap_or(0);
        Ok(Parts {
            normalizer: json!({"type": "Sequence", "normalizers": before}),
            pre_tokenizer: json!(null),
            decoder: json!({"type": "Sequence", "decoders": after}),
            merges: merges_by_score(vocabulary, scores),
            unknown: usize::try_from(unknown)
                .ok()
                .and_then(|id| self.texts(TOKENS).ok()?.get(id))
                .map(String::as_str),
            byte_fallback: true,
            ignore_merges: false,
        })
    }

    /// Tokens that are found in text before anything is merged. Those of a control kind are not shown.
    fn added(&self, tokens: &[String]) -> Result<Vec<serde_json::Value>, LoadError> {
        let kinds = match self.values.get(TYPES) {
            None => return Ok(Vec::new()),
            Some(Value::Integers(kinds)) if kinds.len() == tokens.len() => kinds,
            Some(_) => return Err(self.field(TYPES, format!("expected {} numbers", tokens.len()))),
        };
        let found = tokens.iter().zip(kinds).enumerate();
        let found = found.filter(|(_, (token, kind))| {
            matches!(**kind, CONTROL | USER_DEFINED) && !token.is_empty()
        });
        let added = found.map(|(id, (token, kind))| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": *kind == CONTROL})
        });
        Ok(added.collect())
    }

    fn texts(&self, key: &str) -> Result<&[String], LoadError> {
        match self.values.get(key) {
            Some(Value::Texts(texts)) => Ok(texts),
            None => Err(self.field(key, "missing; put a tokenizer.json beside the file")),
            Some(_) => Err(self.field(key, "expected a list of strings")),
        }
    }

    fn text(&self, key: &str) -> Result<&str, LoadError> {
        match self.values.get(key) {
            Some(Value::Text(text)) => Ok(text),
            None => Err(self.field(key, "missing; put a tokenizer.json beside the file")),
            Some(_) => Err(self.field(key, "expected a string")),
        }
    }
}

struct Parts<'a> {
    normalizer: serde_json::Value,
    pre_tokenizer: serde_json::Value,
    decoder: serde_json::Value,
    merges: Vec<(&'a str, &'a str)>,
    unknown: Option<&'a str>,
    byte_fallback: bool,
    ignore_merges: bool,
}

/// Every way to make a token from two others, best score first.
fn merges_by_score<'a>(
    vocabulary: &HashMap<&'a str, usize>,
    scores: &[f64],
) -> Vec<(&'a str, &'a str)> {
    let mut merges = Vec::new();
    for (token, id) in vocabulary {
        let score = scores.get(*id).copied().unwrap_or(f64::NEG_INFINITY);
        let splits = token.char_indices().skip(1).take(MAX_MERGED_CHARS);
        for (at, _) in splits {
            let (left, right) = token.split_at(at);
            if let (Some(left_id), Some(right_id)) = (vocabulary.get(left), vocabulary.get(right)) {
                merges.push((score, *left_id, *right_id, left, right));
            }
        }
    }
    // Of equal scores the first in the vocabulary, so that the order does not depend on a map's.
    merges.sort_by(|a, b| {
        b.0.total_cmp(&a.0)
            .then_with(|| (a.1, a.2).cmp(&(b.1, b.2)))
    });
    merges
        .into_iter()
        .map(|(.., left, right)| (left, right))
        .collect()
}
