//! Calls as JSON, written by a model: nothing is taken for granted.

use serde_json::{Deserializer, Value};

use crate::{Text, ToolCall};

/// One call of one of these tools, and nothing else.
pub(super) fn one(text: &str, names: &[String]) -> Option<ToolCall> {
    call(serde_json::from_str(text).ok()?, names)
}

/// A list of calls, or calls one after the other, maybe with semicolons between them. All must be calls.
pub(super) fn several(text: &str, names: &[String]) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let mut values = Deserializer::from_str(rest).into_iter::<Value>();
        match values.next()?.ok()? {
            Value::Array(items) => {
                for item in items {
                    calls.push(call(item, names)?);
                }
            }
            item => calls.push(call(item, names)?),
        }
        rest = rest.get(values.byte_offset()..)?.trim_start();
        rest = rest.strip_prefix(';').unwrap_or(rest).trim_start();
    }
    (!calls.is_empty()).then_some(calls)
}

fn call(value: Value, names: &[String]) -> Option<ToolCall> {
    let Value::Object(mut fields) = value else {
        return None;
    };
    let Value::String(name) = fields.remove("name")? else {
        return None;
    };
    if !names.contains(&name) {
        return None;
    }
    let arguments = fields
        .remove("arguments")
        .or_else(|| fields.remove("parameters"));
    let arguments = match arguments {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(Value::Object(arguments)) => Value::Object(arguments).to_string(),
        // Some models write the object into a string, as the API does.
        Some(Value::String(text)) => {
            serde_json::from_str::<Value>(&text).ok()?.as_object()?;
            text
        }
        Some(_) => return None,
    };
    Some(ToolCall {
        id: String::new(),
        name,
        arguments: Text::new(arguments),
    })
}
