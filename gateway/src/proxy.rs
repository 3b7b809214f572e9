//! The local OpenAI-compatible endpoint: a request comes in, is stripped, goes out on a verified session, and its answer
//! comes back piece by piece.

mod answer;
mod capped;
mod headers;
mod replay;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tower::util::{BoxCloneSyncService, service_fn};

use answer::{Answer, Refusal};
use replay::Replay;
use stream::Tethered;

use crate::body::{SessionBody, boxed};
use crate::metrics::{Metrics, Outcome};
use crate::pool::Pool;
use crate::{AttestedSession, Limits, challenge, local, report};

/// A request that raced with the end of its session is sent once more, on the next one; only if it was never sent, or never acted on.
const ATTEMPTS: usize = 2;

pub(crate) type Service = BoxCloneSyncService<Request<Incoming>, Response<SessionBody>, Infallible>;

#[derive(Clone)]
pub(crate) struct Proxy(Arc<Inner>);

struct Inner {
    pool: Pool,
    metrics: Arc<Metrics>,
    limits: Limits,
    slots: Arc<Semaphore>,
}

impl Proxy {
    pub(crate) fn new(pool: Pool, metrics: Arc<Metrics>, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            pool,
            metrics,
            limits,
            slots: Arc::new(Semaphore::new(limits.in_flight)),
        }))
    }

    /// For clients on this machine.
    pub(crate) fn local(&self) -> Service {
        let inner = Arc::clone(&self.0);
        BoxCloneSyncService::new(service_fn(move |request| {
            let inner = Arc::clone(&inner);
            async move { Ok(inner.answer(request).await) }
        }))
    }

    /// For operators: no prompt passes here.
    pub(crate) fn control(&self) -> Service {
        let inner = Arc::clone(&self.0);
        BoxCloneSyncService::new(service_fn(move |request: Request<Incoming>| {
            let answer = match (request.method(), request.uri().path()) {
                (&Method::GET, "/metrics") => {
                    let used = inner.limits.in_flight - inner.slots.available_permits();
                    let ready = report::report(&inner.pool.state()).0;
                    answer::text(inner.metrics.render(used, ready))
                }
                (&Method::GET, path) => inner
                    .state(path)
                    .unwrap_or_else(|| Refusal::NotFound.into()),
                _ => Refusal::Method.into(),
            };
            std::future::ready(Ok(answer))
        }))
    }
}

impl Inner {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if let Err(foreign) = local::check(&request) {
            self.metrics.request(Outcome::Refused);
            return Refusal::Foreign(foreign).into();
        }
        if request.method() == Method::GET
            && let Some(answer) = self.state(request.uri().path())
        {
            return answer;
        }
        let begun = Instant::now();
        let route = Route::of(request.uri());
        let method = request.method().clone();
        let answer = match self.forward(request, route).await {
            Ok(answer) => {
                self.metrics.request(Outcome::Answered);
                answer
            }
            Err(refusal) => {
                self.metrics.request(refusal.outcome());
                refusal.into()
            }
        };
        tracing::info!(
            %method,
            route = route.map_or("none", Route::label),
            status = answer.status().as_u16(),
            head_ms = begun.elapsed().as_millis(),
            "request"
        );
        answer
    }

    /// The gateway's own answers.
    fn state(&self, path: &str) -> Option<Answer> {
        let report = || report::report(&self.pool.state());
        match path {
            "/healthz" => Some(answer::text("ok\n".to_owned())),
            "/readyz" | "/cloister/evidence" => {
                let (ready, report) = report();
                let status = if ready {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                if path == "/readyz" {
                    let report =
                        serde_json::json!({"ready": ready, "reason": report.get("reason")});
                    return Some(answer::json(status, &report));
                }
                Some(answer::json(status, &report))
            }
            _ => None,
        }
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        route: Option<Route>,
    ) -> Result<Answer, Refusal> {
        route.ok_or(Refusal::NotFound)?;
        if !matches!(*request.method(), Method::GET | Method::POST) {
            return Err(Refusal::Method);
        }
        let cap = self.limits.body_bytes;
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > cap))
        {
            return Err(Refusal::TooLarge { cap });
        }
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_full| Refusal::Busy)?;
        let (request, exceeded) = headers::outgoing(request, cap);
        let limit = Duration::from_secs(self.limits.response_s);
        let answer = timeout(limit, self.send(request, slot))
            .await
            .map_err(|_elapsed| Refusal::TooSlow)?;
        match answer {
            Err(Refusal::Broken(_)) if exceeded.load(Ordering::Acquire) => {
                Err(Refusal::TooLarge { cap })
            }
            answer => answer,
        }
    }

    async fn send(
        &self,
        request: Request<SessionBody>,
        slot: OwnedSemaphorePermit,
    ) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let (replay, mut body) = Replay::new(body);
        let mut attempt = 0;
        loop {
            let session = self.pool.session().await.map_err(Refusal::Unready)?;
            let request = Request::from_parts(head.clone(), body);
            match session.try_send(request).await {
                Ok(response) => return Ok(answered(response, session, slot)),
                Err(unsent) => {
                    attempt += 1;
                    let harmless = unsent.request.is_some() || unsent.unprocessed;
                    match replay.again() {
                        Some(again) if harmless && attempt < ATTEMPTS => body = again,
                        _ => return Err(Refusal::Broken(unsent.error)),
                    }
                }
            }
        }
    }
}

/// The body keeps the session alive, and its slot taken, until it has been passed on or the client has gone.
fn answered(
    response: Response<Incoming>,
    session: Arc<AttestedSession>,
    slot: OwnedSemaphorePermit,
) -> Answer {
    let (mut parts, body) = response.into_parts();
    parts.headers = headers::incoming(&parts.headers);
    parts.extensions.clear();
    parts.version = http::Version::HTTP_11;
    Response::from_parts(parts, boxed(Tethered::new(body, session, slot)))
}

/// What a request is for, as a fixed word for the log: paths can carry a user's words.
#[derive(Clone, Copy)]
enum Route {
    Chat,
    Completions,
    Embeddings,
    Models,
    Other,
}

impl Route {
    /// `None` for what is not forwarded: other paths, spellings that two parsers could read differently, and the
    /// challenge, which belongs to the session alone.
    fn of(uri: &Uri) -> Option<Self> {
        let path = uri.path();
        let rest = path.strip_prefix("/v1/")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
        let segment = |segment: &str| !segment.is_empty() && segment != "." && segment != "..";
        if !rest.bytes().all(plain) || !rest.split('/').all(segment) {
            return None;
        }
        let challenge = path.get(..challenge::PATH.len());
        if challenge.is_some_and(|start| start.eq_ignore_ascii_case(challenge::PATH)) {
            return None;
        }
        Some(match rest {
            "chat/completions" => Self::Chat,
            "completions" => Self::Completions,
            "embeddings" => Self::Embeddings,
            "models" => Self::Models,
            _ => Self::Other,
        })
    }

    fn label(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Models => "models",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_paths_are_forwarded_and_nothing_else() {
        for path in [
            "/v1/models",
            "/v1/models/all-MiniLM-L6-v2",
            "/v1/chat/completions",
            "/v1/embeddings?x=1",
        ] {
            assert!(Route::of(&path.parse().unwrap()).is_some(), "{path}");
        }
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v2/models",
            "/metrics",
            "/v1/attestation",
            "/v1/Attestation",
            "/v1/attestation/",
            "/v1/attestation?x",
            "/v1//attestation",
            "/v1/./attestation",
            "/v1/x/../attestation",
            "/v1/%61ttestation",
            "/v1/models/",
            "//v1/models",
        ] {
            assert!(Route::of(&path.parse().unwrap()).is_none(), "{path}");
        }
    }
}
