use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use metrics::Gauge;
use transport::{Endpoint, ServeLimits};

use crate::enclave;
use crate::meters::{Meters, PREFIX};

/// Characters of the enclave's answer that go into the log: it is on the other side of a boundary.
const MAX_SAID: usize = 1024;

/// Operators and their scrapers are few.
pub(crate) fn serve_limits(drain: Duration) -> ServeLimits {
    ServeLimits {
        max_connections: 32,
        max_streams: 8,
        drain,
        ..ServeLimits::default()
    }
}

/// `/healthz`: this process works. `/readyz`: and so does the enclave behind it. `/metrics`: of both. `POST /reload`: passed on to the
/// enclave, which decides.
pub(crate) struct Control {
    enclave: Endpoint,
    meters: Arc<Meters>,
    enclave_up: Gauge,
    draining: AtomicBool,
}

impl Control {
    pub(crate) fn new(enclave: Endpoint, meters: Arc<Meters>) -> Self {
        let enclave_up = meters.enclave_up();
        Self {
            enclave,
            meters,
            enclave_up,
            draining: AtomicBool::new(false),
        }
    }

    /// From now on not ready: load balancers look elsewhere while connections end.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        if request.uri().path() == "/reload" {
            return Ok(match *request.method() {
                Method::POST => self.reload().await,
                _ => not_allowed("POST"),
            });
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Ok(not_allowed("GET, HEAD"));
        }
        Ok(match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready().await,
            "/metrics" => self.metrics().await,
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        })
    }

    async fn ready(&self) -> Response<Full<Bytes>> {
        if self.draining.load(Ordering::Relaxed) {
            return text(StatusCode::SERVICE_UNAVAILABLE, "host is draining\n");
        }
        match self.ask("/readyz").await {
            Some((StatusCode::OK, _)) => text(StatusCode::OK, "ready\n"),
            Some(_) => text(StatusCode::SERVICE_UNAVAILABLE, "enclave is not ready\n"),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "enclave does not answer\n"),
        }
    }

    /// What the enclave says of it is for the operator, and goes into the log as well.
    pub(crate) async fn reload(&self) -> Response<Full<Bytes>> {
        tracing::info!("asking the enclave for newer models");
        let (status, body) = match enclave::reload(&self.enclave).await {
            Ok(answered) => answered,
            Err(error) => {
                tracing::warn!(%error, "the enclave did not answer");
                return text(StatusCode::SERVICE_UNAVAILABLE, "enclave does not answer\n");
            }
        };
        let said: String = String::from_utf8_lossy(&body)
            .chars()
            .take(MAX_SAID)
            .flat_map(char::escape_debug)
            .collect();
        tracing::info!(
            status = status.as_u16(),
            answer = said,
            "the enclave answered"
        );
        let mut answer = text(status, body);
        answer.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        answer
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        // Asked first, so that our own page tells whether it answered.
        let passed = match self.ask("/metrics").await {
            Some((StatusCode::OK, body)) => pass_through(&body),
            _ => String::new(),
        };
        let mut page = self.meters.render();
        page.push_str(&passed);
        let mut answer = text(StatusCode::OK, page);
        answer.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        );
        answer
    }

    async fn ask(&self, path: &'static str) -> Option<(StatusCode, Bytes)> {
        let answer = enclave::get(&self.enclave, path).await;
        self.enclave_up.set(if answer.is_ok() { 1.0 } else { 0.0 });
        answer
            .inspect_err(|e| tracing::debug!(path, error = %e, "enclave control did not answer"))
            .ok()
    }
}

/// The enclave's page without lines that speak for this process.
fn pass_through(body: &[u8]) -> String {
    let Ok(page) = std::str::from_utf8(body) else {
        return String::new();
    };
    let mut passed = String::with_capacity(page.len() + 1);
    for line in page.lines().filter(|line| !line.contains(PREFIX)) {
        passed.push_str(line);
        passed.push('\n');
    }
    passed
}

fn not_allowed(allow: &'static str) -> Response<Full<Bytes>> {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    answer
        .headers_mut()
        .insert(header::ALLOW, header::HeaderValue::from_static(allow));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}
