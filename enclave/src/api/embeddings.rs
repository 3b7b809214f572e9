//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use engine::Embeddings;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::error::ApiError;
use super::{App, Budget, object, with_model};
use crate::tls::Connection;

mod request;
#[cfg(test)]
mod tests;

use request::{Encoding, Fields};

pub(super) async fn embed(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = app.body(request, app.limits.max_body_bytes).await?;
    let request = object::parse::<Fields>(&body)?.check(app.limits.max_batch_inputs)?;
    drop(body);
    let model = connection.model(&request.model)?;
    let permit = app
        .authorization
        .embed(&connection.caller.id, model.facts(), request.input.len())
        .map_err(|denied| app.denied(denied))?;
    if request.dimensions > model.engine().dimensions() {
        return Err(ApiError::invalid(
            "dimensions",
            "`dimensions` is more than the model has",
        ));
    }
    let mut embeddings = model
        .embed(
            permit,
            request.input,
            connection.caller.id.to_string().into(),
        )
        .await
        .map_err(|error| ApiError::model(model, &error, "input"))?;
    if let Some(dimensions) = request.dimensions {
        for vector in &mut embeddings.vectors {
            shorten(vector, dimensions);
        }
    }
    let response = respond(&app.answers, model.name(), &embeddings, request.encoding)?;
    Ok(with_model(response, model))
}

/// A request of a few bytes can have an answer of megabytes, so these are counted.
fn respond(
    answers: &Budget,
    model: &str,
    embeddings: &Embeddings,
    encoding: Encoding,
) -> Result<Response, ApiError> {
    let json = serde_json::to_vec(&answer(model, embeddings, encoding))
        .map_err(|_vectors_inside| ApiError::internal())?;
    let headers = [(CONTENT_TYPE, "application/json")];
    Ok((headers, answers.answer(json)?).into_response())
}

/// The beginning of a vector, of unit length again. One of zeros stays so.
fn shorten(vector: &mut Vec<f32>, dimensions: usize) {
    if dimensions >= vector.len() {
        return;
    }
    vector.truncate(dimensions);
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Entry<'a> {
    object: &'static str,
    index: usize,
    embedding: Vector<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector<'a> {
    Float(&'a [f32]),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u32,
    total_tokens: u32,
}

fn answer<'a>(model: &'a str, embeddings: &'a Embeddings, encoding: Encoding) -> Answer<'a> {
    let data = embeddings
        .vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| Entry {
            object: "embedding",
            index,
            embedding: match encoding {
                Encoding::Float => Vector::Float(vector),
                Encoding::Base64 => Vector::Base64(base64(vector)),
            },
        })
        .collect();
    let tokens = embeddings.prompt_tokens;
    Answer {
        object: "list",
        data,
        model,
        usage: Usage {
            prompt_tokens: tokens,
            total_tokens: tokens,
        },
    }
}

/// IEEE 754 single precision, little endian, as OpenAI's clients expect it.
fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    BASE64_STANDARD.encode(bytes)
}
