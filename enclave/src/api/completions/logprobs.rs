//! How likely each token was, in the words of OpenAI's older interface: four lists of one length.

use engine::{TokenChance, TokenLogprob};
use serde::Serialize;
use serde_json::{Map, Value};

#[derive(Serialize)]
pub(crate) struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// By the token's text; of several with the same text, the likeliest.
    top_logprobs: Vec<Map<String, Value>>,
    /// Where the token begins, in characters of the whole text.
    text_offset: Vec<usize>,
}

impl Logprobs {
    /// `before` are characters of earlier pieces.
    pub(crate) fn of(tokens: &[TokenLogprob], mut before: usize) -> Self {
        let offset = |token: &TokenLogprob| {
            let at = before;
            before += text(&token.token).chars().count();
            at
        };
        let text_offset = tokens.iter().map(offset).collect();
        Self {
            tokens: tokens.iter().map(|token| text(&token.token)).collect(),
            token_logprobs: tokens.iter().map(|token| token.token.logprob).collect(),
            top_logprobs: tokens.iter().map(top).collect(),
            text_offset,
        }
    }
}

fn top(token: &TokenLogprob) -> Map<String, Value> {
    let mut top = Map::new();
    for chance in token.top.iter().chain([&token.token]) {
        top.entry(text(chance))
            .or_insert_with(|| chance.logprob.into());
    }
    top
}

/// A part of a character by its bytes, as OpenAI writes it.
fn text(chance: &TokenChance) -> String {
    match std::str::from_utf8(&chance.bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let bytes = chance.bytes.iter().map(|byte| format!("\\x{byte:02x}"));
            format!("bytes:{}", bytes.collect::<String>())
        }
    }
}
