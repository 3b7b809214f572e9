//! What an embeddings request may say.

use std::fmt;

use engine::Text;
use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::api::error::ApiError;
use crate::api::object;

/// The fields as they were sent.
#[derive(Default)]
pub(crate) struct Fields {
    model: Option<String>,
    input: Option<Input>,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

impl object::Fields for Fields {
    const NAMES: &'static [&'static str] = &["model", "input", "encoding_format", "dimensions"];

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "model" => self.model = map.next_value()?,
            "input" => self.input = map.next_value()?,
            "encoding_format" => self.encoding_format = map.next_value()?,
            _ => self.dimensions = map.next_value()?,
        }
        Ok(())
    }
}

/// The request, checked.
pub(crate) struct Request {
    pub(crate) model: String,
    pub(crate) input: Vec<Text>,
    pub(crate) encoding: Encoding,
    pub(crate) dimensions: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Float,
    Base64,
}

impl Fields {
    pub(crate) fn check(self, max_inputs: usize) -> Result<Request, ApiError> {
        let model = self.model.ok_or_else(|| ApiError::missing("model"))?;
        let input = match self.input.ok_or_else(|| ApiError::missing("input"))? {
            Input::Texts(texts) => texts,
            Input::Tokens => {
                return Err(ApiError::invalid(
                    "input",
                    "`input` must be text; token ids are not supported here",
                ));
            }
            Input::TooMany => return Err(too_many(max_inputs)),
        };
        if input.is_empty() {
            return Err(ApiError::invalid("input", "`input` is empty"));
        }
        if input.iter().any(|text| text.expose().is_empty()) {
            return Err(ApiError::invalid("input", "`input` holds an empty string"));
        }
        if input.len() > max_inputs {
            return Err(too_many(max_inputs));
        }
        let encoding = match self.encoding_format.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(_) => {
                return Err(ApiError::invalid(
                    "encoding_format",
                    "`encoding_format` is `float` or `base64`",
                ));
            }
        };
        Ok(Request {
            model,
            input,
            encoding,
            dimensions: self.dimensions,
        })
    }
}

fn too_many(limit: usize) -> ApiError {
    ApiError::invalid("input", format!("`input` holds more than {limit} texts"))
}

/// No model takes more inputs at once, whatever the configuration says.
const MOST_INPUTS: usize = 2048;

enum Input {
    Texts(Vec<Text>),
    /// Token ids, one list or several.
    Tokens,
    TooMany,
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input::Texts(vec![Text::new(text.to_owned())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Input, A::Error> {
        let mut texts = Vec::new();
        while let Some(item) = seq.next_element()? {
            let rest = match item {
                Item::Text(text) if texts.len() < MOST_INPUTS => {
                    texts.push(text);
                    continue;
                }
                Item::Text(_) => Input::TooMany,
                Item::Tokens => Input::Tokens,
            };
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(rest);
        }
        Ok(Input::Texts(texts))
    }
}

enum Item {
    Text(Text),
    Tokens,
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
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(Text::new(text.to_owned())))
    }

    fn visit_u64<E: de::Error>(self, _token: u64) -> Result<Item, E> {
        Ok(Item::Tokens)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Item, A::Error> {
        while seq.next_element::<u64>()?.is_some() {}
        Ok(Item::Tokens)
    }
}
