//! The bytes that each token stands for.

use std::collections::HashMap;

use serde_json::Value;
use tokenizers::Tokenizer;

/// How a vocabulary writes bytes.
#[derive(Debug, PartialEq, Eq)]
enum Spelling {
    /// Each byte is one printable character (GPT-2).
    ByteLevel,
    /// A mark for spaces, and `<0xNN>` for what is in no other token (SentencePiece).
    Fallback { space: String },
}

/// One entry per id; empty where there is no token.
pub(crate) struct TokenBytes {
    pub(crate) of: Vec<Vec<u8>>,
    /// Tokens that the model reads as signs, not as text.
    pub(crate) special: Vec<bool>,
}

impl TokenBytes {
    /// `None` for a tokenizer whose tokens are no bytes.
    pub(crate) fn read(tokenizer: &Tokenizer) -> Option<Self> {
        let spelling = Spelling::read(tokenizer)?;
        let bytes = byte_level();
        let vocabulary = tokenizer.get_vocab(true);
        let last = vocabulary.values().max()?;
        let count = usize::try_from(*last).ok()?.checked_add(1)?;
        let mut all = Self {
            of: vec![Vec::new(); count],
            special: vec![false; count],
        };
        for (text, id) in vocabulary {
            if let Some(slot) = all.of.get_mut(id as usize) {
                *slot = spelling.bytes(&text, &bytes);
            }
        }
        // Added tokens are written as they are.
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            let place = id as usize;
            if let (Some(slot), Some(special)) = (all.of.get_mut(place), all.special.get_mut(place))
            {
                *slot = token.content.into_bytes();
                *special = token.special;
            }
        }
        Some(all)
    }
}

impl Spelling {
    fn read(tokenizer: &Tokenizer) -> Option<Self> {
        let decoder = serde_json::to_value(tokenizer.get_decoder()?).ok()?;
        let all = match decoder.get("decoders") {
            Some(Value::Array(all)) => all.clone(),
            _ => vec![decoder],
        };
        let is = |each: &Value, kind: &str| each.get("type").is_some_and(|name| name == kind);
        if all.iter().any(|each| is(each, "ByteLevel")) {
            return Some(Self::ByteLevel);
        }
        if !all.iter().any(|each| is(each, "ByteFallback")) {
            return None;
        }
        let replaced = |each: &Value| {
            let to_space = is(each, "Replace") && each.get("content").is_some_and(|to| to == " ");
            let from = each.get("pattern")?.get("String")?.as_str()?;
            to_space.then(|| from.to_owned())
        };
        let space = all.iter().find_map(replaced);
        Some(Self::Fallback {
            space: space.unwrap_or_else(|| "\u{2581}".into()),
        })
    }

    fn bytes(&self, token: &str, byte_level: &HashMap<char, u8>) -> Vec<u8> {
        match self {
            Self::ByteLevel => {
                let bytes = token.chars().map(|shown| byte_level.get(&shown).copied());
                let bytes: Option<Vec<u8>> = bytes.collect();
                bytes.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Self::Fallback { space } => {
                let hex = token
                    .strip_prefix("<0x")
                    .and_then(|rest| rest.strip_suffix('>'))
                    .filter(|hex| hex.len() == 2);
                match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => vec![byte],
                    None => token.replace(space.as_str(), " ").into_bytes(),
                }
            }
        }
    }
}

/// GPT-2's alphabet: printable bytes are themselves, the others follow from U+0100 on.
fn byte_level() -> HashMap<char, u8> {
    let mut next = 0x100;
    let mut shown = |byte: u8| {
        if matches!(byte, 33..=126 | 161..=172 | 174..=255) {
            return char::from(byte);
        }
        let shown = char::from_u32(next).unwrap_or_default();
        next += 1;
        shown
    };
    (0..=u8::MAX).map(|byte| (shown(byte), byte)).collect()
}

#[cfg(test)]
mod tests;
