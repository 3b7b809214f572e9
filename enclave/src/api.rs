//! The HTTP interface for callers. Every request came over a [`Connection`]: its caller is authenticated before any
//! line here runs.

use std::sync::Arc;

use attestation::{Attester, BootId, Sha256Digest};
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use http::{HeaderName, HeaderValue};
use identity::SpiffeId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::Clock;
use crate::authz::{Authorization, Denied};
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::models::Model;
use crate::rate::Rate;
use crate::tls::Connection;

mod attestation_route;
mod body;
mod chat;
mod completions;
mod embeddings;
mod error;
mod generation;
mod inputs;
mod json;
mod models_route;
mod object;
mod rerank;
mod server_sent;
#[cfg(test)]
mod tests;
mod tokenize;

pub(crate) use body::Budget;
use error::ApiError;

/// Which sealed model answered: the SHA-256 of its manifest.
const MODEL_DIGEST: HeaderName = HeaderName::from_static("x-cloister-model-digest");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all requests share.
pub(crate) struct App {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) config_digest: Sha256Digest,
    pub(crate) boot_id: BootId,
    pub(crate) authorization: Authorization,
    pub(crate) attester: Arc<dyn Attester>,
    pub(crate) evidence_slots: Arc<Semaphore>,
    pub(crate) bodies: Budget,
    /// As much again, for what callers have not taken yet.
    pub(crate) answers: Budget,
    pub(crate) rate: Rate,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    pub(crate) now: Clock,
}

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/attestation", only_post(attestation_route::attest))
        .route("/v1/models", only_get(models_route::list))
        .route("/v1/models/{id}", only_get(models_route::one))
        .route("/v1/embeddings", only_post(embeddings::embed))
        .route("/v1/rerank", only_post(rerank::rerank))
        .route("/v1/chat/completions", only_post(chat::chat))
        .route("/v1/completions", only_post(completions::complete))
        .route("/v1/tokenize", only_post(tokenize::tokenize))
        .route("/v1/detokenize", only_post(tokenize::detokenize))
        .fallback(async || ApiError::unknown_path())
        // Inside the observation, so that a refusal is counted; outside the routes, so that nothing is free.
        .layer(middleware::from_fn_with_state(Arc::clone(&app), limit_rate))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

fn only_get<H, T>(handler: H) -> MethodRouter<Arc<App>>
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    get(handler).fallback(async || ApiError::method_not_allowed("GET"))
}

fn only_post<H, T>(handler: H) -> MethodRouter<Arc<App>>
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    post(handler).fallback(async || ApiError::method_not_allowed("POST"))
}

/// Names each request, counts it and takes its time.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = route_label(request.uri().path());
    let begun = Instant::now();
    let mut response = next.run(request).await;
    let status = response.status();
    app.metrics.request(route, status, begun.elapsed());
    if let Some(id) = random_hex().and_then(|id| HeaderValue::from_str(&format!("req_{id}")).ok()) {
        if status.is_server_error() {
            tracing::warn!(route, status = status.as_u16(), request = ?id, "request failed");
        }
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn limit_rate(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
    next: Next,
) -> Response {
    match app.rate.check(&connection.caller.id) {
        Ok(allowance) => {
            let mut response = next.run(request).await;
            allowance.write(response.headers_mut());
            response
        }
        Err(exceeded) => {
            app.metrics.rate_limited();
            let mut response = ApiError::rate_limited(exceeded.seconds()).into_response();
            exceeded.write(response.headers_mut());
            response
        }
    }
}

/// A fixed word per route; a caller's path never becomes a label.
fn route_label(path: &str) -> &'static str {
    match path {
        "/v1/attestation" => "attestation",
        "/v1/models" => "models",
        "/v1/embeddings" => "embeddings",
        "/v1/rerank" => "rerank",
        "/v1/chat/completions" => "chat",
        "/v1/completions" => "completions",
        "/v1/tokenize" => "tokenize",
        "/v1/detokenize" => "detokenize",
        _ if path.starts_with("/v1/models/") => "model",
        _ => "unknown",
    }
}

impl App {
    async fn body(&self, request: Request, limit: usize) -> Result<body::Bytes, ApiError> {
        body::read(request, limit, self.limits.body_timeout(), &self.bodies).await
    }

    fn denied(&self, denied: Denied) -> ApiError {
        self.metrics.denied(denied.action);
        denied.into()
    }

    /// Seconds since 1970.
    fn unix_time(&self) -> u64 {
        (self.now)()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }
}

impl Connection {
    fn model(&self, name: &str) -> Result<&Model, ApiError> {
        self.models.find(name).ok_or_else(ApiError::model_not_found)
    }
}

/// 12 random bytes; `None` only if the system has no randomness left to give.
fn random_hex() -> Option<String> {
    let mut bytes = [0; 12];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(hex::encode(bytes))
}

fn with_model(mut response: Response, model: &Model) -> Response {
    response.headers_mut().insert(MODEL_DIGEST, model.digest());
    response
}
