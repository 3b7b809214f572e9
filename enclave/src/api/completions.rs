//! `POST /v1/completions`: text as it is, without a chat template.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::chat::{Head, Whole};
use super::error::ApiError;
use super::server_sent::{Sources, begin};
use super::{App, object, random_hex, with_model};
use crate::tls::Connection;

mod answer;
mod logprobs;
mod request;
#[cfg(test)]
mod tests;

use answer::{Chunks, Completion};
use request::Fields;

/// The field that holds the text.
const PARAM: &str = "prompt";

pub(super) async fn complete(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = app.body(request, app.limits.max_body_bytes).await?;
    let request = object::parse::<Fields>(&body)?.check(&app.limits)?;
    drop(body);
    let model = connection.model(&request.model)?;
    // The policy is asked about all prompts together, and then permits each.
    let tokens = request
        .prompts
        .iter()
        .map(|chat| app.limits.tokens(chat))
        .fold(0, u32::saturating_add);
    let permit = || {
        app.authorization
            .chat(&connection.caller.id, model.facts(), tokens, request.stream)
            .map_err(|denied| app.denied(denied))
    };
    let caller: Arc<str> = connection.caller.id.to_string().into();
    let failed = |error| ApiError::model(model, &error, PARAM);
    let mut receivers = Vec::new();
    for mut chat in request.prompts {
        chat.caller = Arc::clone(&caller);
        receivers.push(model.chat(permit()?, chat).await.map_err(failed)?);
    }
    let id = random_hex().ok_or_else(ApiError::internal)?;
    let mut head = Head::new(format!("cmpl-{id}"), app.unix_time(), model);
    head.logprobs = request.logprobs;
    if !request.stream {
        let mut wholes = Vec::new();
        for events in &mut receivers {
            wholes.push(Whole::read(request.choices, events, failed).await?);
        }
        let answer = Completion::new(&head, &wholes);
        return Ok(with_model(Json(answer).into_response(), model));
    }
    let chunks = Chunks::new(head, request.choices, request.include_usage);
    let response = begin(chunks, Sources::new(receivers), failed).await?;
    Ok(with_model(response, model))
}
