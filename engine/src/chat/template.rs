//! Chat templates as Hugging Face writes them: Jinja with Python's methods, two block settings and a few functions.

use std::{collections::BTreeMap, io, time::SystemTime};

use minijinja::{
    Environment, Error, ErrorKind, UndefinedBehavior, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde},
};
use serde::Serialize as _;
use serde_json::{
    Serializer,
    ser::{Formatter, PrettyFormatter},
};
use time::{OffsetDateTime, format_description};
use zeroize::Zeroizing;

use super::{
    calls::CallFormat,
    settings::{TOKENIZER_CONFIG, special_token},
};
use crate::{
    Clock, EngineError, LoadError, Message, ModelFiles, Text, Tool, ToolCall, fields::Fields, files,
};

const TEMPLATE_FILE: &str = "chat_template.jinja";
const TEMPLATE: &str = "chat";
/// The longest published templates (with tools and documents) have about 30 KiB.
const MAX_TEMPLATE_BYTES: u64 = 256 << 10;
/// Instructions of one rendering. A long conversation takes some fifty per message; a template comes with the model and must
/// not be able to loop for ever.
const FUEL: u64 = 2_000_000;
const RECURSION_LIMIT: usize = 64;

pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    special: BTreeMap<&'static str, Value>,
    /// How the model writes calls, if the template shows it tools.
    pub(crate) calls: Option<CallFormat>,
}

impl ChatTemplate {
    /// `config` is what tokenizer_config.json says, or the metadata of a GGUF file.
    pub(crate) fn read(
        files: &dyn ModelFiles,
        config: Option<&Fields<'_>>,
        clock: Option<Clock>,
    ) -> Result<Self, LoadError> {
        let mut special = BTreeMap::new();
        if let Some(config) = config {
            for name in ["bos_token", "eos_token", "unk_token", "pad_token"] {
                if let Some(token) = special_token(config, name)? {
                    special.insert(name, Value::from(token));
                }
            }
        }
        let (file, source) = source(files, config)?;
        let malformed = |problem: &str| LoadError::Malformed {
            file: file.clone(),
            problem: problem.into(),
        };

        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|_fixed| malformed("template syntax"))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_LIMIT);
        // Errors must not carry the values that a template was rendered with.
        environment.set_debug(false);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        if let Some(clock) = clock {
            environment.add_function("strftime_now", move |format: String| {
                format_time(clock(), &format)
            });
        }
        let calls = CallFormat::of(&source);
        environment
            .add_template_owned(TEMPLATE, source)
            .map_err(|error| {
                malformed(&match error.line() {
                    Some(line) => {
                        format!("the chat template does not compile, see its line {line}")
                    }
                    None => "the chat template does not compile".into(),
                })
            })?;
        Ok(Self {
            environment,
            special,
            calls,
        })
    }

    /// The conversation as the model was trained to read it, up to where the answer begins.
    ///
    /// The copies that minijinja makes of the text are freed, not cleared.
    pub(crate) fn render(
        &self,
        messages: &[Message],
        tools: &[Tool],
        max_bytes: usize,
    ) -> Result<Text, EngineError> {
        let messages: Vec<_> = messages.iter().map(message).collect::<Result<_, _>>()?;
        let definition = |tool: &Tool| Value::from(Serde(&tool.definition));
        let mut context = self.special.clone();
        context.insert("messages", Value::from(messages));
        context.insert("add_generation_prompt", Value::from(true));
        // Templates ask `is not none`, which holds for an undefined name.
        context.insert(
            "tools",
            match tools {
                [] => Value::from(()),
                tools => tools.iter().map(definition).collect(),
            },
        );
        context.insert("documents", Value::from(()));

        let template = self
            .environment
            .get_template(TEMPLATE)
            .map_err(|_added_above| EngineError::Internal)?;
        let mut prompt = Prompt::new(max_bytes.saturating_mul(2));
        let rendered = template.render_captured_to(Value::from(context), &mut prompt);
        if prompt.full {
            return Err(EngineError::Invalid("messages are too long"));
        }
        rendered.map_err(|_text_inside| EngineError::Template)?;
        String::from_utf8(std::mem::take(&mut *prompt.bytes))
            .map(Text::new)
            .map_err(|_text_inside| EngineError::Template)
    }
}

/// In the order that a template which prints the message shows. What there is not, is not defined.
fn message(message: &Message) -> Result<Value, EngineError> {
    let mut pairs = vec![
        ("role", Value::from(message.role.as_str())),
        ("content", Value::from(message.content.expose())),
    ];
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(call);
        let calls: Vec<_> = calls.collect::<Result<_, _>>()?;
        pairs.push(("tool_calls", Value::from(calls)));
    }
    if let Some(id) = &message.tool_call_id {
        pairs.push(("tool_call_id", Value::from(id.expose())));
    }
    Ok(Value::from_pairs(pairs))
}

/// The arguments as an object: templates print it as JSON themselves.
fn call(call: &ToolCall) -> Result<Value, EngineError> {
    let arguments = serde_json::from_str::<serde_json::Value>(call.arguments.expose())
        .ok()
        .filter(serde_json::Value::is_object)
        .ok_or(EngineError::Invalid(
            "the arguments of a tool call must be a JSON object",
        ))?;
    let function = [
        ("name", Value::from(call.name.as_str())),
        ("arguments", Value::from(Serde(&arguments))),
    ];
    Ok(Value::from_pairs([
        ("id", Value::from(call.id.as_str())),
        ("type", Value::from("function")),
        ("function", Value::from_pairs(function)),
    ]))
}

/// What a template has written so far. It stops at its limit: a template that repeats the messages would otherwise make
/// any amount of text within its budget of instructions.
struct Prompt {
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
    full: bool,
}

impl Prompt {
    fn new(limit: usize) -> Self {
        Self {
            bytes: Zeroizing::default(),
            limit,
            full: false,
        }
    }
}

impl io::Write for Prompt {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if piece.len() > self.limit.saturating_sub(self.bytes.len()) {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file of its own wins over the field, as in the Python library.
fn source(
    files: &dyn ModelFiles,
    config: Option<&Fields<'_>>,
) -> Result<(String, String), LoadError> {
    if let Some(bytes) = files::read_optional(files, TEMPLATE_FILE, MAX_TEMPLATE_BYTES)? {
        let not_text = |_| LoadError::Malformed {
            file: TEMPLATE_FILE.into(),
            problem: "not UTF-8".into(),
        };
        return Ok((
            TEMPLATE_FILE.into(),
            String::from_utf8(bytes).map_err(not_text)?,
        ));
    }
    let missing = || LoadError::Field {
        file: TOKENIZER_CONFIG.into(),
        field: "chat_template".into(),
        problem: format!("missing, and there is no {TEMPLATE_FILE}: the model cannot chat"),
    };
    let config = config.ok_or_else(missing)?;
    let text = match config.value("chat_template") {
        // Several templates by name; the one for conversations is called "default".
        Some(serde_json::Value::Array(named)) => {
            let default = named
                .iter()
                .find(|entry| entry.get("name").is_some_and(|name| name == "default"));
            default
                .and_then(|entry| entry.get("template"))
                .and_then(serde_json::Value::as_str)
        }
        _ => config.text("chat_template")?,
    };
    let text = text.ok_or_else(missing)?;
    match u64::try_from(text.len()) {
        Ok(bytes) if bytes <= MAX_TEMPLATE_BYTES => Ok((config.file().into(), text.into())),
        _ => Err(config.error(
            "chat_template",
            format!("longer than {MAX_TEMPLATE_BYTES} bytes"),
        )),
    }
}

fn raise_exception(_message: String) -> Result<String, Error> {
    Err(Error::new(
        ErrorKind::InvalidOperation,
        "raised by the template",
    ))
}

/// As Python writes it: a space behind each comma and colon, or lines with `indent`; no escapes for HTML, which minijinja's own
/// filter makes.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let not_json = || Error::new(ErrorKind::BadSerialization, "not JSON");
    let indent = options.get::<Option<usize>>("indent")?;
    options.assert_all_used()?;
    let mut text = Vec::new();
    let written = match indent {
        Some(indent) if indent <= MAX_INDENT => {
            let indent = vec![b' '; indent];
            let style = PrettyFormatter::with_indent(&indent);
            value.serialize(&mut Serializer::with_formatter(&mut text, style))
        }
        Some(_) => return Err(not_json()),
        None => value.serialize(&mut Serializer::with_formatter(&mut text, OneLine)),
    };
    written.map_err(|_text_inside| not_json())?;
    String::from_utf8(text).map_err(|_text_inside| not_json())
}

const MAX_INDENT: usize = 16;

/// `json.dumps` without further arguments.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.begin_array_value(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

fn format_time(now: SystemTime, format: &str) -> Result<String, Error> {
    let refuse = || Error::new(ErrorKind::InvalidOperation, "strftime format");
    let format = format_description::parse_strftime_owned(format).map_err(|_fixed| refuse())?;
    OffsetDateTime::from(now)
        .format(&format)
        .map_err(|_fixed| refuse())
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
