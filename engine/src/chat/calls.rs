//! How models write calls of tools. Each family has its own way, which its chat template shows; what is no call is text.

mod filter;
mod parse;

use serde_json::{Map, Value, json};

use crate::Tool;
pub(crate) use filter::{CallFilter, Passed};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, any number of them, text around (Hermes, Qwen).
    Tagged,
    /// The whole answer is `{"name": …, "parameters": {…}}` (Llama 3.1).
    Bare,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]` at the end (Mistral).
    Listed,
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const LIST: &str = "[TOOL_CALLS]";
/// Mistral's later way, `[TOOL_CALLS]name[ARGS]{…}`, is none that is known here; taken for the list its calls would be lost as text.
const ARGUMENTS: &str = "[ARGS]";
/// Calls that a model may list by itself.
const MAX_LISTED: usize = 16;

impl CallFormat {
    /// What a template shows its model. `None` if it takes no tools, or in a way that is not known here.
    pub(crate) fn of(template: &str) -> Option<Self> {
        if !template.contains("tools") || template.contains(ARGUMENTS) {
            return None;
        }
        if template.contains(LIST) {
            Some(Self::Listed)
        } else if template.contains(OPEN) {
            Some(Self::Tagged)
        } else if template.contains(r#""parameters": "#) && template.contains(r#"{"name": "#) {
            Some(Self::Bare)
        } else {
            None
        }
    }

    /// What an answer that must call begins with; the model reads it with the prompt.
    pub(crate) fn opening(self) -> &'static str {
        match self {
            Self::Tagged => "<tool_call>\n",
            Self::Bare => "",
            Self::Listed => LIST,
        }
    }

    /// Signs that a tokenizer may leave out of text.
    pub(crate) fn signs(self) -> &'static [&'static str] {
        match self {
            Self::Tagged => &[OPEN, CLOSE],
            Self::Bare => &[],
            Self::Listed => &[LIST],
        }
    }

    /// What follows the opening: a call of one of these tools, with arguments that fit the tool's schema if it is strict, or if all are
    /// `held` to theirs.
    pub(crate) fn schema(self, tools: &[&Tool], held: bool) -> Value {
        let arguments = match self {
            Self::Bare => "parameters",
            _ => "arguments",
        };
        let mut definitions = Map::new();
        let mut calls = Vec::new();
        for (index, tool) in tools.iter().enumerate() {
            let place = format!("tool{index}");
            let reference = format!("#/$defs/{place}");
            let mut parameters = match held || tool.strict {
                true => tool.parameters.clone(),
                false => json!({"type": "object"}),
            };
            rebase(&mut parameters, &reference);
            definitions.insert(place, parameters);
            calls.push(json!({
                "type": "object",
                "properties": {"name": {"const": tool.name}, arguments: {"$ref": reference}},
                "required": ["name", arguments],
                "additionalProperties": false,
            }));
        }
        match self {
            Self::Listed => json!({
                "$defs": definitions, "type": "array", "items": {"anyOf": calls}, "minItems": 1,
                "maxItems": if held { 1 } else { MAX_LISTED },
            }),
            _ => json!({"$defs": definitions, "anyOf": calls}),
        }
    }
}

/// References of a schema that stands inside another one.
fn rebase(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(reference) if name == "$ref" => {
                        if let Some(rest) = reference.strip_prefix('#') {
                            *reference = format!("{place}{}", rest.trim_end_matches('/'));
                        }
                    }
                    field => rebase(field, place),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rebase(item, place)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
