//! One message of a conversation: from JSON to the engine's type, the text never anywhere else.

use std::fmt;

use engine::{Message, Role, Text};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::api::error::ApiError;
use crate::api::generation::Word;
use crate::api::object::{Asked, Prompt};

#[derive(Deserialize)]
pub(crate) struct RawMessage {
    role: Word,
    #[serde(default)]
    content: Content,
    #[serde(default)]
    tool_calls: Asked,
    #[serde(default)]
    function_call: Asked,
    #[serde(default)]
    audio: Asked,
}

impl RawMessage {
    /// `index` is its place in `messages`, for the error.
    pub(crate) fn check(self, index: usize) -> Result<Message, ApiError> {
        let field = |name: &str| format!("messages[{index}].{name}");
        let role = if self.role.is_word("system") || self.role.is_word("developer") {
            Role::System
        } else if self.role.is_word("user") {
            Role::User
        } else if self.role.is_word("assistant") {
            Role::Assistant
        } else {
            return Err(ApiError::unsupported(field("role")));
        };
        for (name, asked) in [
            ("tool_calls", self.tool_calls),
            ("function_call", self.function_call),
            ("audio", self.audio),
        ] {
            if asked.0 {
                return Err(ApiError::unsupported(field(name)));
            }
        }
        let content = match self.content {
            Content::Text(text) => text,
            Content::Absent => {
                let message = format!("`{}` is required", field("content"));
                return Err(ApiError::invalid(field("content"), message));
            }
            Content::OtherPart(part) => {
                return Err(ApiError::unsupported(field(&format!(
                    "content[{part}].type"
                ))));
            }
        };
        Ok(Message::new(role, content))
    }
}

/// A string, or a list of text parts, which are joined.
#[derive(Default)]
enum Content {
    #[default]
    Absent,
    Text(Text),
    /// The first part that is not text: an image, audio, a file.
    OtherPart(usize),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of parts")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Absent)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(Text::new(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut texts: Vec<Text> = Vec::new();
        let mut other = None;
        let mut index = 0;
        while let Some(part) = seq.next_element::<Part>()? {
            match part.text {
                Some(Prompt(text)) if part.kind.is_word("text") => texts.push(text),
                _ => other = other.or(Some(index)),
            }
            index += 1;
        }
        Ok(match other {
            Some(part) => Content::OtherPart(part),
            None if texts.is_empty() => Content::Absent,
            None => Content::Text(joined(texts)),
        })
    }
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: Word,
    #[serde(default)]
    text: Option<Prompt>,
}

fn joined(mut texts: Vec<Text>) -> Text {
    if texts.len() == 1
        && let Some(text) = texts.pop()
    {
        return text;
    }
    let length = texts.iter().map(|text| text.expose().len()).sum();
    // Allocated once, so that no unwiped copy is left behind by growing.
    let mut whole = Zeroizing::new(String::with_capacity(length));
    for text in &texts {
        whole.push_str(text.expose());
    }
    Text::new(std::mem::take(&mut *whole))
}
