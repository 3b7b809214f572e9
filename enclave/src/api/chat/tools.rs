//! Tools, and the format of an answer: from JSON to the engine's types.

use engine::{Format, Tool, ToolChoice, Tools};
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::json::Json;

/// OpenAI's own limit.
const MAX_NAME: usize = 64;

pub(crate) fn tools(tools: Option<Json>) -> Result<Tools, ApiError> {
    let tools = match tools.map(|tools| tools.0) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err(ApiError::invalid("tools", "`tools` is a list")),
    };
    let mut read: Vec<Tool> = Vec::new();
    for (index, definition) in tools.into_iter().enumerate() {
        let tool = tool(index, definition)?;
        if read.iter().any(|other| other.name == tool.name) {
            let field = format!("tools[{index}].function.name");
            let message = format!("`{field}` is the name of an earlier tool");
            return Err(ApiError::invalid(field, message));
        }
        read.push(tool);
    }
    Ok(Tools(read))
}

fn tool(index: usize, definition: Value) -> Result<Tool, ApiError> {
    let field = |name: &str| format!("tools[{index}]{name}");
    if definition.get("type").is_none_or(|kind| kind != "function") {
        return Err(ApiError::unsupported(field(".type")));
    }
    let function = definition.get("function");
    let of = |name: &str| function.and_then(|function| function.get(name));
    let name = of("name").and_then(Value::as_str).unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
        let field = field(".function.name");
        let message = format!("`{field}` has 1 to {MAX_NAME} letters, digits, `_` and `-`");
        return Err(ApiError::invalid(field, message));
    }
    let parameters = match of("parameters") {
        None | Some(Value::Null) => {
            json!({"type": "object", "properties": {}, "additionalProperties": false})
        }
        Some(schema) => schema.clone(),
    };
    let strict = match of("strict") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(strict)) => *strict,
        Some(_) => {
            let field = field(".function.strict");
            let message = format!("`{field}` is true or false");
            return Err(ApiError::invalid(field, message));
        }
    };
    Ok(Tool {
        name: name.to_owned(),
        parameters,
        strict,
        definition,
    })
}

pub(crate) fn tool_choice(choice: Option<Json>) -> Result<ToolChoice, ApiError> {
    match choice.map(|choice| choice.0) {
        None | Some(Value::Null) => Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "none" => Ok(ToolChoice::None),
            "auto" => Ok(ToolChoice::Auto),
            "required" => Ok(ToolChoice::Required),
            _ => Err(ApiError::unsupported("tool_choice")),
        },
        Some(choice) => {
            let function = choice
                .get("type")
                .filter(|kind| *kind == "function")
                .and_then(|_| choice.get("function"));
            let name = function.and_then(|function| function.get("name"));
            match name.and_then(Value::as_str) {
                Some(name) => Ok(ToolChoice::Named(name.to_owned())),
                None => Err(ApiError::unsupported("tool_choice")),
            }
        }
    }
}

pub(crate) fn format(format: Option<Json>) -> Result<Format, ApiError> {
    const FIELD: &str = "response_format.json_schema.schema";
    let Some(Json(mut format)) = format.filter(|format| !format.0.is_null()) else {
        return Ok(Format::Text);
    };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::JsonObject),
        Some("json_schema") => {
            let schema = format
                .get_mut("json_schema")
                .and_then(|of| of.get_mut("schema"));
            schema
                .map(|schema| Format::JsonSchema(schema.take()))
                .ok_or_else(|| ApiError::missing(FIELD))
        }
        _ => Err(ApiError::unsupported("response_format")),
    }
}
