//! `POST /v1/chat/completions`, whole or as a stream of server-sent events.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use engine::{ChatEvent, FinishReason, Text, Usage};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::mpsc::Receiver;
use zeroize::Zeroizing;

use super::error::ApiError;
use super::{App, object, random_hex, with_model};
use crate::tls::Connection;

mod answer;
mod message;
mod request;
mod stream;
#[cfg(test)]
mod tests;
mod values;

use answer::{Completion, Head};
use request::Fields;

pub(super) async fn chat(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = app.body(request, app.limits.max_body_bytes).await?;
    let request = object::parse::<Fields>(&body)?.check()?;
    drop(body);
    let model = connection.model(&request.model)?;
    let most = app.limits.max_new_tokens;
    let max_tokens = request
        .chat
        .max_tokens
        .map_or(most, |wanted| wanted.min(most));
    let permit = app
        .authorization
        .chat(
            &connection.caller.id,
            model.facts(),
            max_tokens,
            request.stream,
        )
        .map_err(|denied| app.denied(denied))?;
    let id = random_hex().ok_or_else(ApiError::internal)?;
    let head = Head::new(id, app.unix_time(), model);
    let failed = |error| ApiError::model(model, &error, "messages");
    let mut chat = request.chat;
    chat.caller = connection.caller.id.to_string().into();
    let mut events = model.chat(permit, chat).await.map_err(failed)?;
    if !request.stream {
        let (text, finish, usage) = whole(&mut events).await?;
        let answer = Completion::new(&head, &text, finish, usage);
        return Ok(with_model(Json(answer).into_response(), model));
    }
    // The first event decides the status: a request that fails before its first token is an error like any other.
    let first = match events.recv().await {
        Some(ChatEvent::Failed(error)) => return Err(failed(error)),
        None => return Err(ApiError::internal()),
        Some(event) => event,
    };
    let stream = stream::chunks(head, first, events, request.include_usage);
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok(with_model(
        (headers, Body::from_stream(stream)).into_response(),
        model,
    ))
}

/// All of an answer.
async fn whole(
    events: &mut Receiver<ChatEvent>,
) -> Result<(Zeroizing<String>, FinishReason, Usage), ApiError> {
    let mut parts: Vec<Text> = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            ChatEvent::Delta(text) => parts.push(text),
            ChatEvent::Done {
                finish_reason,
                usage,
            } => {
                let length = parts.iter().map(|part| part.expose().len()).sum();
                // Allocated once, so that no unwiped copy is left behind by growing.
                let mut text = Zeroizing::new(String::with_capacity(length));
                for part in &parts {
                    text.push_str(part.expose());
                }
                return Ok((text, finish_reason, usage));
            }
            ChatEvent::Failed(error) => return Err(ApiError::engine(&error, "messages")),
        }
    }
    Err(ApiError::internal())
}
