//! Text, or token ids, or a list of either.

use std::fmt;

use engine::{Input, Text};
use serde::de::{self, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::error::ApiError;

/// Nothing takes more inputs at once, whatever the configuration says.
const MOST_INPUTS: usize = 2048;

pub(crate) enum Inputs {
    Texts(Vec<Text>),
    /// One input.
    Tokens(Zeroizing<Vec<u32>>),
    Lists(Vec<Zeroizing<Vec<u32>>>),
    TooMany,
    /// Texts and tokens in one list.
    Mixed,
}

impl Inputs {
    /// `field` is where they came in. At most `most`, each with something in it.
    pub(crate) fn check(self, field: &'static str, most: usize) -> Result<Vec<Input>, ApiError> {
        let refused = |problem: &str| ApiError::invalid(field, format!("`{field}` {problem}"));
        let inputs: Vec<Input> = match self {
            Self::Texts(texts) => texts.into_iter().map(Input::Text).collect(),
            Self::Tokens(tokens) => vec![Input::Tokens(tokens)],
            Self::Lists(lists) => lists.into_iter().map(Input::Tokens).collect(),
            Self::TooMany => return Err(refused(&format!("holds more than {most} inputs"))),
            Self::Mixed => return Err(refused("holds texts and token ids; send one or the other")),
        };
        if inputs.is_empty() {
            return Err(refused("is empty"));
        }
        if inputs.len() > most {
            return Err(refused(&format!("holds more than {most} inputs")));
        }
        let empty = |input: &Input| match input {
            Input::Text(text) => text.expose().is_empty(),
            Input::Tokens(tokens) => tokens.is_empty(),
            Input::Messages(messages) => messages.is_empty(),
        };
        if inputs.iter().any(empty) {
            return Err(refused("holds an empty input"));
        }
        Ok(inputs)
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputsVisitor)
    }
}

struct InputsVisitor;

impl<'de> Visitor<'de> for InputsVisitor {
    type Value = Inputs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, token ids, or a list of either")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Inputs, E> {
        Ok(Inputs::Texts(vec![Text::new(text.to_owned())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Inputs, A::Error> {
        let mut inputs = match seq.next_element()? {
            None => return Ok(Inputs::Texts(Vec::new())),
            Some(Item::Text(text)) => Inputs::Texts(vec![text]),
            Some(Item::Token(token)) => Inputs::Tokens(Zeroizing::new(vec![token])),
            Some(Item::Tokens(tokens)) => Inputs::Lists(vec![tokens]),
        };
        while let Some(item) = seq.next_element()? {
            match (&mut inputs, item) {
                (Inputs::Tokens(tokens), Item::Token(token)) => push(tokens, token),
                (Inputs::Texts(texts), Item::Text(text)) if texts.len() < MOST_INPUTS => {
                    texts.push(text);
                }
                (Inputs::Lists(lists), Item::Tokens(tokens)) if lists.len() < MOST_INPUTS => {
                    lists.push(tokens);
                }
                (Inputs::Texts(_), Item::Text(_)) | (Inputs::Lists(_), Item::Tokens(_)) => {
                    inputs = Inputs::TooMany;
                    break;
                }
                _ => {
                    inputs = Inputs::Mixed;
                    break;
                }
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(inputs)
    }
}

/// By hand: growing in place would leave an unwiped copy behind.
fn push(tokens: &mut Zeroizing<Vec<u32>>, token: u32) {
    if tokens.len() == tokens.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(tokens.len().saturating_mul(2).max(64)));
        larger.extend_from_slice(tokens);
        *tokens = larger;
    }
    tokens.push(token);
}

enum Item {
    Text(Text),
    Token(u32),
    Tokens(Zeroizing<Vec<u32>>),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(Text::new(text.to_owned())))
    }

    fn visit_u64<E: de::Error>(self, token: u64) -> Result<Item, E> {
        u32::try_from(token)
            .map(Item::Token)
            .map_err(|_wide| E::custom("no token id"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Item, A::Error> {
        let mut tokens = Zeroizing::default();
        while let Some(token) = seq.next_element()? {
            push(&mut tokens, token);
        }
        Ok(Item::Tokens(tokens))
    }
}
