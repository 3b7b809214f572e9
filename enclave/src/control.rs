//! Health, readiness and numbers for the host, in the clear and without a word of any caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use identity::Credentials;
use serde::Serialize;

use crate::Clock;
use crate::metrics::Metrics;
use crate::models::Models;

#[cfg(test)]
mod tests;

/// What readiness depends on.
pub(crate) struct Health {
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) models: Arc<Models>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) draining: AtomicBool,
    pub(crate) now: Clock,
}

#[derive(Serialize, PartialEq, Eq, Debug)]
struct Readiness {
    ready: bool,
    /// What is missing; empty when ready.
    reasons: Vec<&'static str>,
}

impl Health {
    fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            reasons.push("shutting down");
        }
        let now = (self.now)();
        let identity = self.credentials.leaf();
        if identity.is_none_or(|leaf| leaf.valid_at(now).is_err()) {
            reasons.push("the identity has expired");
        }
        if !self.models.iter().all(|model| model.engine().healthy()) {
            reasons.push("a model has failed");
        }
        self.metrics.ready(reasons.is_empty());
        Readiness {
            ready: reasons.is_empty(),
            reasons,
        }
    }
}

pub(crate) fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(health)
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    let readiness = health.readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, axum::Json(readiness)).into_response()
}

async fn render(State(health): State<Arc<Health>>) -> Response {
    health.readiness();
    for model in health.models.iter() {
        health.metrics.engine(model.name(), &model.engine().stats());
    }
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        health.metrics.render(),
    )
        .into_response()
}
