//! `GET /v1/models` and `GET /v1/models/{id}`: the models this caller may see.

use std::sync::Arc;

use attestation::Sha256Digest;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;

use super::error::ApiError;
use super::{App, with_model};
use crate::models::Model;
use crate::tls::Connection;

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

/// OpenAI's model object, and what this enclave can say about it beyond.
#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    kind: &'static str,
    context_length: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
    epoch: u64,
    manifest_sha256: Sha256Digest,
    publisher_sha256: Sha256Digest,
}

impl<'a> From<&'a Model> for Entry<'a> {
    fn from(model: &'a Model) -> Self {
        let engine = model.engine();
        Self {
            id: model.name(),
            object: "model",
            created: model.created(),
            owned_by: "cloister",
            kind: engine.kind(),
            context_length: engine.context_length(),
            dimensions: engine.dimensions(),
            epoch: model.identity().epoch,
            manifest_sha256: model.identity().manifest_sha256,
            publisher_sha256: model.identity().publisher_sha256,
        }
    }
}

/// A caller who may see some models gets those; one who may see none is refused, as everywhere else.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Arc<Connection>>,
) -> Result<Response, ApiError> {
    let mut data = Vec::new();
    let mut refused = None;
    for model in connection.models.iter() {
        match app.authorization.list(&connection.caller.id, model.facts()) {
            Ok(_permit) => data.push(Entry::from(model)),
            Err(denied) => refused = Some(denied),
        }
    }
    match refused {
        Some(denied) if data.is_empty() => Err(app.denied(denied)),
        _ => Ok(Json(List {
            object: "list",
            data,
        })
        .into_response()),
    }
}

pub(super) async fn one(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Arc<Connection>>,
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Response, ApiError> {
    let Path(name) = path.map_err(|_not_utf8| ApiError::model_not_found())?;
    let model = connection.model(&name)?;
    app.authorization
        .list(&connection.caller.id, model.facts())
        .map_err(|denied| app.denied(denied))?;
    Ok(with_model(Json(Entry::from(model)).into_response(), model))
}
