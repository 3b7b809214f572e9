//! The messages of a conversation: from JSON to the engine's types, the text never anywhere else.

use std::collections::HashSet;
use std::fmt;

use engine::{Message, Role, Text, ToolCall};
use serde::de::{self, IgnoredAny, SeqAccess, Visitor};
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
    tool_calls: Option<Vec<RawCall>>,
    #[serde(default)]
    tool_call_id: Option<String>,
    #[serde(default)]
    function_call: Asked,
    #[serde(default)]
    audio: Asked,
}

/// One call, as an earlier answer had it.
#[derive(Deserialize)]
struct RawCall {
    id: String,
    #[serde(rename = "type", default = "Word::absent")]
    kind: Word,
    function: RawFunction,
}

#[derive(Deserialize)]
struct RawFunction {
    name: String,
    arguments: Prompt,
}

/// # Errors
/// What is wrong, by the place of the message.
pub(crate) fn conversation(
    messages: Vec<RawMessage>,
    most: usize,
) -> Result<Vec<Message>, ApiError> {
    if messages.is_empty() || messages.len() > most {
        return Err(ApiError::invalid(
            "messages",
            format!("`messages` holds 1 to {most} messages"),
        ));
    }
    let mut calls = HashSet::new();
    let mut read = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let message = message.check(index)?;
        calls.extend(message.tool_calls.iter().map(|call| call.id.clone()));
        let answered = message.tool_call_id.as_ref().map(Text::expose);
        if answered.is_some_and(|id| !calls.contains(id)) {
            let field = format!("messages[{index}].tool_call_id");
            let message = format!("`{field}` is no call of an earlier message");
            return Err(ApiError::invalid(field, message));
        }
        read.push(message);
    }
    Ok(read)
}

impl RawMessage {
    /// `index` is its place in `messages`, for the error.
    fn check(self, index: usize) -> Result<Message, ApiError> {
        let field = |name: &str| format!("messages[{index}].{name}");
        let role = if self.role.is_word("system") || self.role.is_word("developer") {
            Role::System
        } else if self.role.is_word("user") {
            Role::User
        } else if self.role.is_word("assistant") {
            Role::Assistant
        } else if self.role.is_word("tool") {
            Role::Tool
        } else {
            return Err(ApiError::unsupported(field("role")));
        };
        for (name, asked) in [("function_call", self.function_call), ("audio", self.audio)] {
            if asked.0 {
                return Err(ApiError::unsupported(field(name)));
            }
        }
        let calls = self.tool_calls.unwrap_or_default();
        if role != Role::Assistant && !calls.is_empty() {
            return Err(ApiError::unsupported(field("tool_calls")));
        }
        let missing = |name: &str| {
            let message = format!("`{}` is required", field(name));
            ApiError::invalid(field(name), message)
        };
        let content = match self.content {
            Content::Text(text) => text,
            Content::Absent if !calls.is_empty() => Text::new(String::new()),
            Content::Absent => return Err(missing("content")),
            Content::OtherPart(part) => {
                return Err(ApiError::unsupported(field(&format!(
                    "content[{part}].type"
                ))));
            }
        };
        let tool_call_id = match (role, self.tool_call_id) {
            (Role::Tool, None) => return Err(missing("tool_call_id")),
            (Role::Tool, Some(id)) => Some(Text::new(id)),
            _ => None,
        };
        let call =
            |(place, call): (usize, RawCall)| call.check(&field(&format!("tool_calls[{place}]")));
        let tool_calls = calls.into_iter().enumerate().map(call);
        Ok(Message {
            tool_calls: tool_calls.collect::<Result<_, _>>()?,
            tool_call_id,
            ..Message::new(role, content)
        })
    }
}

impl RawCall {
    fn check(self, field: &str) -> Result<ToolCall, ApiError> {
        if !self.kind.is_one_of(&["function"]) {
            return Err(ApiError::unsupported(format!("{field}.type")));
        }
        let Prompt(arguments) = self.function.arguments;
        let json = arguments.expose();
        let object = json.trim_start().starts_with('{');
        if !object || serde_json::from_str::<IgnoredAny>(json).is_err() {
            let field = format!("{field}.function.arguments");
            let message = format!("`{field}` is a JSON object in a string");
            return Err(ApiError::invalid(field, message));
        }
        Ok(ToolCall {
            id: self.id,
            name: self.function.name,
            arguments,
        })
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
