//! `POST /v1/chat/completions`, whole or as a stream of server-sent events.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::error::ApiError;
use super::server_sent::{Sources, begin};
use super::{App, object, random_hex, with_model};
use crate::tls::Connection;

mod answer;
mod chunk;
mod logprobs;
mod message;
mod request;
mod stream;
#[cfg(test)]
mod tests;
mod tools;
mod whole;

use answer::Completion;
pub(super) use answer::{Counts, Finish, Head};
pub(super) use message::{RawMessage, conversation};
use request::Fields;
use stream::Chunks;
pub(super) use whole::Whole;

pub(super) async fn chat(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = app.body(request, app.limits.max_body_bytes).await?;
    let request = object::parse::<Fields>(&body)?.check(&app.limits)?;
    drop(body);
    let model = connection.model(&request.model)?;
    let permit = app
        .authorization
        .chat(
            &connection.caller.id,
            model.facts(),
            app.limits.tokens(&request.chat),
            request.stream,
        )
        .map_err(|denied| app.denied(denied))?;
    let id = random_hex().ok_or_else(ApiError::internal)?;
    let mut head = Head::new(format!("chatcmpl-{id}"), app.unix_time(), model);
    head.logprobs = request.chat.logprobs.is_some();
    let failed = |error| ApiError::model(model, &error, "messages");
    let mut chat = request.chat;
    chat.caller = connection.caller.id.to_string().into();
    let choices = chat.choices;
    let mut events = model.chat(permit, chat).await.map_err(failed)?;
    if !request.stream {
        let whole = Whole::read(choices, &mut events, failed).await?;
        let answer = Completion::new(&head, &whole);
        return Ok(with_model(Json(answer).into_response(), model));
    }
    let chunks = Chunks::new(head, choices, request.include_usage);
    let response = begin(chunks, Sources::new(vec![events]), failed).await?;
    Ok(with_model(response, model))
}
