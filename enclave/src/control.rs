//! Health, readiness and numbers for the host, in the clear and without a word of any caller; and the host's request to look for
//! newer packages, which decides nothing: what is opened is what a trusted publisher signed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use identity::Credentials;
use serde::Serialize;

use crate::Clock;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::reload::{self, Reload};

#[cfg(test)]
mod tests;

/// What readiness depends on.
pub(crate) struct Health {
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) models: Arc<Models>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) reload: Reload,
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
        if !self
            .models
            .current()
            .iter()
            .all(|model| model.engine().healthy())
        {
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
        .route("/reload", post(reload))
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

/// Answers when it is done, which takes as long as opening the models; goes on when whoever asked has gone.
async fn reload(State(health): State<Arc<Health>>) -> Response {
    let done = tokio::spawn(async move { health.reload.run().await }).await;
    let done = done.unwrap_or(Err(reload::Failed::Open(crate::Error::Internal(
        "a reload panicked",
    ))));
    match done {
        Ok(done) => axum::Json(done).into_response(),
        Err(failed) => {
            let body = serde_json::json!({"error": failed.to_string()});
            (failed.status(), axum::Json(body)).into_response()
        }
    }
}

async fn render(State(health): State<Arc<Health>>) -> Response {
    health.readiness();
    for model in health.models.current().iter() {
        health.metrics.engine(model.name(), &model.engine().stats());
    }
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        health.metrics.render(),
    )
        .into_response()
}
