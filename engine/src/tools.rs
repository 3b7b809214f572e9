//! Functions that a model may ask its caller to run.

use serde_json::Value;

use crate::Text;

/// What the model may call.
#[derive(Default)]
pub struct Tools(pub Vec<Tool>);

/// One function. Written by a caller: it has no `Debug`, as [`Text`] has none.
pub struct Tool {
    pub name: String,
    /// A JSON schema of its arguments; an object.
    pub parameters: Value,
    /// The arguments fit the schema when the model itself decides to call, too.
    pub strict: bool,
    /// The definition as it was sent, which is what templates print.
    pub definition: Value,
}

/// Whether a tool is called.
pub enum ToolChoice {
    /// The tools are not shown to the model.
    None,
    /// As the model likes.
    Auto,
    /// Any one of them, with arguments that fit its schema.
    Required,
    /// The one of this name, with arguments that fit its schema.
    Named(String),
}

/// One call, with arguments in JSON.
pub struct ToolCall {
    /// Empty for a call that the model just made: whoever passes it on gives it an id.
    pub id: String,
    pub name: String,
    pub arguments: Text,
}

impl ToolCall {
    pub(crate) fn bytes(&self) -> usize {
        self.id.len() + self.name.len() + self.arguments.expose().len()
    }
}
