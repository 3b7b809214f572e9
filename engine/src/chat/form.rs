//! What an answer is held to: a format, or calls of tools.

use serde_json::{Value, json};

use super::{
    Chat, Restraint,
    calls::{CallFilter, CallFormat},
    grammar::{Grammar, Grammars},
};
use crate::{ChatRequest, EngineError, Format, Tool, ToolChoice};

impl Chat {
    /// # Errors
    /// The schema is refused, or nothing holds this model's answers to one.
    pub(super) fn restraint(&self, request: &ChatRequest) -> Result<Restraint, EngineError> {
        let whole = |field, schema| self.compile(field, schema).map(Restraint::whole);
        match (&request.format, self.forced(request)) {
            (_, Some((format, tools))) => whole("tools", format.schema(&tools, true)),
            (Format::JsonObject, None) => whole("response_format", json!({"type": "object"})),
            (Format::JsonSchema(schema), None) => whole("response_format", schema.clone()),
            (Format::Text, None) => self.strict_calls(request),
        }
    }

    /// For calls that the model decides on, if any tool is strict.
    fn strict_calls(&self, request: &ChatRequest) -> Result<Restraint, EngineError> {
        let tools: Vec<_> = request.shown_tools().iter().collect();
        let strict = tools.iter().any(|tool| tool.strict);
        let Some(format) = self.template.calls.filter(|_| strict) else {
            return Ok(Restraint::default());
        };
        let grammar = self.compile("tools", format.schema(&tools, false))?;
        Ok(Restraint::calls(grammar, format != CallFormat::Tagged))
    }

    fn compile(&self, field: &'static str, schema: Value) -> Result<Grammar, EngineError> {
        let grammars = self.grammars.get_or_init(|| {
            let bytes = self.vocabulary.token_bytes()?;
            Grammars::new(bytes, &self.settings.end, &self.options)
        });
        let grammars = grammars.as_ref().ok_or(EngineError::Unsupported(field))?;
        grammars.compile(field, schema)
    }

    /// The beginning of a call that the model must make.
    pub(super) fn opening(&self, request: &ChatRequest) -> &'static str {
        self.forced(request)
            .map_or("", |(format, _)| format.opening())
    }

    pub(super) fn call_filter(&self, request: &ChatRequest) -> Option<CallFilter> {
        let tools = request.shown_tools();
        let format = self.template.calls.filter(|_| !tools.is_empty())?;
        let forced = self.forced(request).is_some();
        Some(CallFilter::new(
            format,
            tools,
            !request.parallel_tool_calls,
            forced,
        ))
    }

    /// Special tokens are no text, but these begin and end calls.
    pub(super) fn call_signs(&self, request: &ChatRequest) -> Vec<(u32, &'static str)> {
        let format = self
            .template
            .calls
            .filter(|_| !request.shown_tools().is_empty());
        let signs = format.map_or(&[][..], CallFormat::signs).iter();
        let special = |id: u32| {
            let bytes = self.vocabulary.token_bytes();
            bytes.and_then(|bytes| bytes.special.get(id as usize).copied()) == Some(true)
        };
        signs
            .filter_map(|sign| Some((self.vocabulary.id(sign).filter(|id| special(*id))?, *sign)))
            .collect()
    }

    /// The tools of which one must be called.
    fn forced<'a>(&self, request: &'a ChatRequest) -> Option<(CallFormat, Vec<&'a Tool>)> {
        let tools = request.shown_tools().iter();
        let tools: Vec<_> = match &request.tool_choice {
            ToolChoice::None | ToolChoice::Auto => return None,
            ToolChoice::Required => tools.collect(),
            ToolChoice::Named(name) => tools.filter(|tool| tool.name == *name).collect(),
        };
        Some((self.template.calls?, tools))
    }
}

#[cfg(test)]
mod tests;
