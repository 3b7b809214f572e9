//! The errors a caller sees: an HTTP status and the OpenAI error body. Texts are fixed here or name a field; nothing
//! that a caller sent is ever part of one.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use engine::EngineError;
use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::authz::Denied;
use crate::models::Model;

/// How long a caller should wait when the engine's queue is full: about one answer's time.
const OVERLOAD_RETRY_S: u64 = 1;

/// One refusal, ready to be sent.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<Cow<'static, str>>,
    message: Cow<'static, str>,
    retry_after_s: Option<u64>,
    allow: Option<&'static str>,
}

const INVALID: &str = "invalid_request_error";
const PERMISSION: &str = "permission_error";
const RATE: &str = "rate_limit_error";
const SERVER: &str = "server_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            kind,
            code: None,
            param: None,
            message: message.into(),
            retry_after_s: None,
            allow: None,
        }
    }

    fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    fn param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    #[cfg(test)]
    pub(crate) fn named(&self) -> (u16, Option<&'static str>, Option<&str>) {
        (self.status.as_u16(), self.code, self.param.as_deref())
    }

    /// The field is there but its value cannot be used.
    pub(crate) fn invalid(
        param: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, message)
            .code("invalid_value")
            .param(param)
    }

    /// The field asks for something this server does not do, and ignoring it would change the answer.
    pub(crate) fn unsupported(param: impl Into<Cow<'static, str>>) -> Self {
        let param = param.into();
        let message = format!("`{param}` is not supported here with this value; leave it out");
        Self::new(StatusCode::BAD_REQUEST, INVALID, message)
            .code("unsupported_parameter")
            .param(param)
    }

    pub(crate) fn missing(param: &'static str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            INVALID,
            format!("`{param}` is required"),
        )
        .code("missing_required_parameter")
        .param(param)
    }

    /// The body is not the JSON it should be. `field` is the top-level field in which reading stopped, or empty.
    pub(crate) fn unreadable(field: &'static str, line: usize, column: usize) -> Self {
        let place = format!("line {line}, column {column}");
        if field.is_empty() {
            let message = format!("the body is not a JSON object ({place})");
            Self::new(StatusCode::BAD_REQUEST, INVALID, message).code("invalid_json")
        } else {
            let message =
                format!("`{field}` is malformed, of the wrong type or out of range ({place})");
            Self::new(StatusCode::BAD_REQUEST, INVALID, message)
                .code("invalid_value")
                .param(field)
        }
    }

    pub(crate) fn model_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID,
            "this enclave does not serve that model; see GET /v1/models",
        )
        .code("model_not_found")
        .param("model")
    }

    pub(crate) fn unknown_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID, "there is no such endpoint").code("unknown_url")
    }

    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("this endpoint takes {allow} only");
        let mut error =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, message).code("method_not_allowed");
        error.allow = Some(allow);
        error
    }

    pub(crate) fn not_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            INVALID,
            "send `content-type: application/json`",
        )
        .code("unsupported_media_type")
    }

    pub(crate) fn encoded_body() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            INVALID,
            "send the body without a content-encoding",
        )
        .code("unsupported_media_type")
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            INVALID,
            format!("the body is larger than {limit} bytes"),
        )
        .code("request_too_large")
    }

    pub(crate) fn body_too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            INVALID,
            "the body did not arrive in time",
        )
        .code("timeout")
    }

    pub(crate) fn body_cut() -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, "the body ended early").code("incomplete_body")
    }

    pub(crate) fn rate_limited(seconds: u64) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            RATE,
            "this caller sends requests faster than it may",
        )
        .code("rate_limit_exceeded")
        .retry_after(seconds)
    }

    pub(crate) fn evidence_in_flight() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            RATE,
            "evidence for this connection is already being made",
        )
        .code("evidence_in_flight")
        .retry_after(1)
    }

    pub(crate) fn overloaded() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            SERVER,
            "the enclave is busy; try again",
        )
        .code("overloaded")
        .retry_after(OVERLOAD_RETRY_S)
    }

    /// The model's queue is full; it should be shorter after so long.
    fn engine_busy(after: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            SERVER,
            "the model has as many requests as it may hold; try again",
        )
        .code("overloaded")
        .retry_after(after.as_secs().max(1))
    }

    pub(crate) fn evidence_unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            SERVER,
            "the platform gave no evidence; try again",
        )
        .code("evidence_unavailable")
        .retry_after(1)
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            SERVER,
            "an error inside the enclave",
        )
        .code("internal_error")
    }

    /// As [`Self::engine`], with when this model expects to have room again.
    pub(crate) fn model(model: &Model, error: &EngineError, param: &'static str) -> Self {
        match error {
            EngineError::Overloaded => Self::engine_busy(model.engine().retry_after()),
            error => Self::engine(error, param),
        }
    }

    /// What to tell the caller about an engine's refusal; `param` is the field that holds the text.
    pub(crate) fn engine(error: &EngineError, param: &'static str) -> Self {
        match error {
            EngineError::Overloaded => Self::engine_busy(Duration::from_secs(OVERLOAD_RETRY_S)),
            EngineError::ContextLength { limit, requested } => {
                let message = format!(
                    "the request needs {requested} tokens, this model takes at most {limit}"
                );
                Self::new(StatusCode::BAD_REQUEST, INVALID, message)
                    .code("context_length_exceeded")
                    .param(param)
            }
            EngineError::TextTooLong { limit } => {
                let message =
                    format!("the text is too long, this model takes at most {limit} tokens");
                Self::new(StatusCode::BAD_REQUEST, INVALID, message)
                    .code("context_length_exceeded")
                    .param(param)
            }
            EngineError::TooManyInputs { .. } => {
                Self::invalid(param, format!("`{param}` holds too many items"))
            }
            EngineError::WrongKind => Self::invalid(
                "model",
                "this model does not do that; see `kind` in GET /v1/models",
            ),
            EngineError::Template => Self::invalid(
                param,
                "the model's chat template does not take these messages in this order",
            ),
            EngineError::Invalid(what) => Self::invalid(param, *what),
            EngineError::Unsupported(field) => Self::unsupported(*field),
            EngineError::Schema { field, problem } => Self::invalid(*field, *problem),
            EngineError::Deadline => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                SERVER,
                "the answer took longer than this enclave lets a request take",
            )
            .code("deadline_exceeded"),
            EngineError::Stopped => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                SERVER,
                "the enclave is shutting down",
            )
            .code("shutting_down")
            .retry_after(5),
            _ => Self::internal(),
        }
    }

    /// The JSON text of the body, as it is also sent inside an event stream that fails half way.
    pub(crate) fn body(&self) -> Body<'_> {
        Body {
            error: Detail {
                message: &self.message,
                kind: self.kind,
                param: self.param.as_deref(),
                code: self.code,
            },
        }
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let message = format!(
            "the enclave's policy does not permit this caller to `{}` this",
            denied.action
        );
        Self::new(StatusCode::FORBIDDEN, PERMISSION, message).code("not_permitted")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// OpenAI's error body.
#[derive(Serialize)]
pub(crate) struct Body<'a> {
    error: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}
