//! Answers that the gateway gives itself, in the shape of OpenAI's errors.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::body::{SessionBody, boxed};
use crate::local::Foreign;
use crate::metrics::Outcome;
use crate::pool::Unready;
use crate::{Error, error, report};

pub(super) type Answer = Response<SessionBody>;

/// Why a request was not forwarded, or not answered.
pub(super) enum Refusal {
    Foreign(Foreign),
    NotFound,
    Method,
    TooLarge { cap: usize },
    Busy,
    Unready(Unready),
    Broken(Error),
    TooSlow,
}

impl Refusal {
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Foreign(_) | Self::NotFound | Self::Method | Self::TooLarge { .. } => {
                Outcome::Refused
            }
            Self::Busy => Outcome::Busy,
            Self::Unready(_) => Outcome::Unverified,
            Self::Broken(_) | Self::TooSlow => Outcome::Failed,
        }
    }

    fn parts(&self) -> (StatusCode, &'static str, String) {
        match self {
            Self::Foreign(Foreign::Host) => (
                StatusCode::FORBIDDEN,
                "invalid_request_error",
                "the host header does not name this machine; use http://127.0.0.1 or http://localhost".to_owned(),
            ),
            Self::Foreign(Foreign::Origin) => (
                StatusCode::FORBIDDEN,
                "invalid_request_error",
                "requests from web pages are not answered".to_owned(),
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "invalid_request_error",
                "no such path here".to_owned(),
            ),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request_error",
                "only GET and POST are answered".to_owned(),
            ),
            Self::TooLarge { cap } => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_request_error",
                format!("the request body is larger than {cap} bytes"),
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded_error",
                "too many requests at a time through this gateway".to_owned(),
            ),
            Self::Unready(Unready::Connecting) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "enclave_unavailable",
                "no attested session yet; nothing was sent".to_owned(),
            ),
            Self::Unready(Unready::Failed(reason)) => {
                let (status, kind) = kind(reason);
                let reason = error::chain(&**reason);
                (status, kind, format!("no attested session, nothing was sent: {reason}"))
            }
            Self::Broken(reason) => {
                let (status, kind) = kind(reason);
                let reason = error::chain(reason);
                (status, kind, format!("the session ended before the answer: {reason}"))
            }
            Self::TooSlow => (
                StatusCode::GATEWAY_TIMEOUT,
                "enclave_unavailable",
                "the enclave took too long to answer".to_owned(),
            ),
        }
    }

    /// The step that refused, with what it compared: this is the user's own machine, and the values are public.
    fn detail(&self) -> Option<Value> {
        let reason = match self {
            Self::Unready(Unready::Failed(reason)) => reason,
            Self::Broken(reason) => reason,
            _ => return None,
        };
        reason.step().map(|_| report::unverified(Some(reason)))
    }
}

/// 502 when what answers is not what the policy asks for, 503 when trying again can help.
fn kind(reason: &Error) -> (StatusCode, &'static str) {
    match reason {
        reason if reason.step().is_some() => (StatusCode::BAD_GATEWAY, "enclave_unverified"),
        Error::CallerRefused { .. } | Error::ChallengeRefused { .. } => {
            (StatusCode::BAD_GATEWAY, "enclave_refused")
        }
        Error::NoIdentity | Error::Policy(_) | Error::TlsConfig(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "identity_unavailable")
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, "enclave_unavailable"),
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let (status, kind, message) = refusal.parts();
        let detail = refusal.detail();
        let step = detail.as_ref().and_then(|detail| detail.get("step"));
        let mut error = json!({
            "message": message,
            "type": kind,
            "param": null,
            "code": step.cloned().unwrap_or_else(|| kind.into()),
        });
        if let (Some(detail), Some(error)) = (detail, error.as_object_mut()) {
            error.insert("verification".to_owned(), detail);
        }
        let mut answer = json(status, &json!({ "error": error }));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let second = HeaderValue::from_static("1");
            answer.headers_mut().insert(RETRY_AFTER, second);
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let methods = HeaderValue::from_static("GET, POST");
            answer.headers_mut().insert(ALLOW, methods);
        }
        answer
    }
}

pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    whole(status, "application/json", format!("{value}\n"))
}

pub(super) fn text(text: String) -> Answer {
    whole(StatusCode::OK, "text/plain; charset=utf-8", text)
}

fn whole(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(boxed(Full::new(Bytes::from(text))));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
