//! The service's error bodies.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

pub(super) const JSON: &str = "application/x-amz-json-1.1";

/// One error of the service: its type and its sentence.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) kind: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        // The policy engine's errors spell it with a capital, the others do not.
        let body = match self.kind {
            "AccessDeniedException" => json!({"__type": self.kind, "Message": self.message}),
            kind => json!({"__type": kind, "message": self.message}),
        };
        let status = match self.kind {
            "KMSInternalException" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        answer(status, body.to_string())
    }
}

pub(super) fn answer(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}
