//! `POST /v1/tokenize` and `POST /v1/detokenize`: what a model's tokenizer makes of text, and of tokens. As in vLLM.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use engine::Input;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use serde::de::MapAccess;
use zeroize::Zeroizing;

use super::chat::{RawMessage, conversation};
use super::error::ApiError;
use super::object::{self, Asked, Prompt};
use super::{App, with_model};
use crate::models::{Model, Tokenize};
use crate::tls::Connection;

#[cfg(test)]
mod tests;

pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = app.body(request, app.limits.max_body_bytes).await?;
    let asked = object::parse::<TextFields>(&body)?.check(app.limits.max_messages)?;
    drop(body);
    let model = connection.model(&asked.model)?;
    let param = match asked.input {
        Input::Messages(_) => "messages",
        _ => "prompt",
    };
    let permit = permit(&app, &connection, model)?;
    let tokens = model
        .tokenize(permit, asked.input, asked.special)
        .await
        .map_err(|error| ApiError::model(model, &error, param))?;
    let answer = Tokens {
        count: tokens.len(),
        max_model_len: model.engine().context_length(),
        tokens: &tokens,
    };
    respond(&app, model, &answer)
}

pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = app.body(request, app.limits.max_body_bytes).await?;
    let fields = object::parse::<TokenFields>(&body)?;
    drop(body);
    let name = fields.model.ok_or_else(|| ApiError::missing("model"))?;
    let tokens = fields.tokens.ok_or_else(|| ApiError::missing("tokens"))?;
    let model = connection.model(&name)?;
    let permit = permit(&app, &connection, model)?;
    let text = model
        .detokenize(permit, Zeroizing::new(tokens))
        .await
        .map_err(|error| ApiError::model(model, &error, "tokens"))?;
    let answer = Detokenized {
        prompt: text.expose(),
    };
    respond(&app, model, &answer)
}

/// Whoever may use a model may know its tokens: nothing is generated.
fn permit(app: &App, connection: &Connection, model: &Model) -> Result<Tokenize, ApiError> {
    let (caller, facts) = (&connection.caller.id, model.facts());
    let permit = match facts.kind {
        "chat" => app
            .authorization
            .chat(caller, facts, 0, false)
            .map(Tokenize::from),
        _ => app
            .authorization
            .embed(caller, facts, 1)
            .map(Tokenize::from),
    };
    permit.map_err(|denied| app.denied(denied))
}

/// A list of tokens is longer than its text, so these are counted as embeddings are.
fn respond(app: &App, model: &Model, answer: &impl Serialize) -> Result<Response, ApiError> {
    let json = serde_json::to_vec(answer).map_err(|_text_inside| ApiError::internal())?;
    let headers = [(CONTENT_TYPE, "application/json")];
    let response = (headers, app.answers.answer(json)?).into_response();
    Ok(with_model(response, model))
}

#[derive(Serialize)]
struct Tokens<'a> {
    count: usize,
    max_model_len: usize,
    tokens: &'a [u32],
}

#[derive(Serialize)]
struct Detokenized<'a> {
    prompt: &'a str,
}

/// The fields of `/v1/tokenize` as they were sent.
#[derive(Default)]
struct TextFields {
    model: Option<String>,
    prompt: Option<Prompt>,
    messages: Option<Vec<RawMessage>>,
    add_special_tokens: Option<bool>,
    add_generation_prompt: Option<bool>,
    refused: Option<&'static str>,
}

impl object::Fields for TextFields {
    const NAMES: &'static [&'static str] = &[
        "model",
        "prompt",
        "messages",
        "add_special_tokens",
        "add_generation_prompt",
        // Refused unless null, false, zero or empty.
        "tools",
        "return_token_strs",
        "continue_final_message",
        "chat_template",
        "chat_template_kwargs",
    ];

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "model" => self.model = map.next_value()?,
            "prompt" => self.prompt = map.next_value()?,
            "messages" => self.messages = map.next_value()?,
            "add_special_tokens" => self.add_special_tokens = map.next_value()?,
            "add_generation_prompt" => self.add_generation_prompt = map.next_value()?,
            _ => {
                if map.next_value::<Asked>()?.0 {
                    self.refused.get_or_insert(name);
                }
            }
        }
        Ok(())
    }
}

struct TextRequest {
    model: String,
    input: Input,
    /// With what the tokenizer itself puts around a text; a template writes its own.
    special: bool,
}

impl TextFields {
    fn check(self, max_messages: usize) -> Result<TextRequest, ApiError> {
        if let Some(name) = self.refused {
            return Err(ApiError::unsupported(name));
        }
        if self.add_generation_prompt == Some(false) {
            return Err(ApiError::unsupported("add_generation_prompt"));
        }
        let model = self.model.ok_or_else(|| ApiError::missing("model"))?;
        let input = match (self.prompt, self.messages) {
            (Some(Prompt(text)), None) => Input::Text(text),
            (None, Some(messages)) => Input::Messages(conversation(messages, max_messages)?),
            (None, None) => return Err(ApiError::missing("prompt")),
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid(
                    "messages",
                    "send `prompt` or `messages`, not both",
                ));
            }
        };
        Ok(TextRequest {
            model,
            input,
            special: self.add_special_tokens.unwrap_or(true),
        })
    }
}

/// The fields of `/v1/detokenize` as they were sent.
#[derive(Default)]
struct TokenFields {
    model: Option<String>,
    tokens: Option<Vec<u32>>,
}

impl object::Fields for TokenFields {
    const NAMES: &'static [&'static str] = &["model", "tokens"];

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "model" => self.model = map.next_value()?,
            _ => self.tokens = map.next_value()?,
        }
        Ok(())
    }
}
