//! What a peer is told when it does not get what it asked for: a type, a shallow sentence, never the reason.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

/// Types live below this in the protocol, whoever answers.
const TYPE_BASE: &str = "https://github.com/confidential-containers/kbs/errors/";
/// Seconds, for a peer that came while we were full.
const RETRY_AFTER_S: u16 = 2;

/// The protocol's error types that this broker uses, and two of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No valid admin token, on a resource. (The stock broker's name for it.)
    AdminAuthInitialization,
    /// No valid admin token, on the policy.
    AdminAuthAccess,
    /// The handshake failed: request, nonce, session or evidence.
    AttestationError,
    /// Below the prefix, but no endpoint.
    InvalidRequestPath,
    /// The answer could not be sealed to the recipient key.
    JweError,
    /// No such endpoint or method.
    PluginNotFound,
    /// No such resource, or a path that cannot be one.
    PluginInternalError,
    /// The policy did not say yes.
    PolicyDeny,
    /// The policy was not taken: it does not parse.
    ParsePolicyError,
    /// The policy failed or ran out of time.
    PolicyEngineError,
    /// A reference value message that is not one.
    RvpsError,
    /// The body is not what this endpoint takes.
    SerdeError,
    /// No attested session and no token.
    TokenNotFound,
    /// The token is expired or not ours.
    TokenVerifierError,
    /// Ours: the body is over the limit. Answered as stock brokers do, in plain text.
    PayloadTooLarge,
    /// Ours: too much at once, too slow, or the store does not answer. Try again.
    Unavailable,
}

impl Kind {
    /// The last segment of the type URI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AdminAuthInitialization => "AdminAuthInitialization",
            Self::AdminAuthAccess => "AdminAuthAccess",
            Self::AttestationError => "AttestationError",
            Self::InvalidRequestPath => "InvalidRequestPath",
            Self::JweError => "JweError",
            Self::PluginNotFound => "PluginNotFound",
            Self::PluginInternalError => "PluginInternalError",
            Self::PolicyDeny => "PolicyDeny",
            Self::ParsePolicyError => "ParsePolicyError",
            Self::PolicyEngineError => "PolicyEngineError",
            Self::RvpsError => "RvpsError",
            Self::SerdeError => "SerdeError",
            Self::TokenNotFound => "TokenNotFound",
            Self::TokenVerifierError => "TokenVerifierError",
            Self::PayloadTooLarge => "PayloadTooLarge",
            Self::Unavailable => "Unavailable",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequestPath | Self::PluginNotFound => StatusCode::NOT_FOUND,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::AdminAuthInitialization | Self::AdminAuthAccess => "Admin authentication failed",
            Self::AttestationError => "Attestation error: RCAR handshake Attest failed",
            Self::InvalidRequestPath => "Invalid request path",
            Self::JweError => "JWE failed",
            Self::PluginNotFound => "Plugin not found",
            Self::PluginInternalError => "Plugin internal error",
            Self::PolicyDeny => "Access denied by policy",
            Self::ParsePolicyError => "Policy does not parse",
            Self::PolicyEngineError => "Policy engine error",
            Self::RvpsError => "Reference value message is malformed",
            Self::SerdeError => "Request body is malformed",
            Self::TokenNotFound => "Attestation token not found",
            Self::TokenVerifierError => "Token verifier error",
            Self::PayloadTooLarge => "payload too large",
            Self::Unavailable => "Try again later",
        }
    }
}

/// A decision against the peer.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    /// Told to the peer in place of the kind's own sentence.
    detail: Option<String>,
    /// For the release log and the operator only.
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(kind: Kind, reason: impl std::fmt::Display) -> Self {
        Self {
            kind,
            detail: None,
            reason: reason.to_string(),
        }
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn into_response(self) -> Response {
        let Self { kind, detail, .. } = self;
        let detail = detail.unwrap_or_else(|| kind.detail().to_owned());
        // Stock brokers set no content type on errors, and their clients expect none.
        let mut response = if kind == Kind::PayloadTooLarge {
            let mut response = Response::new(Body::from(detail));
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, plain);
            response
        } else {
            Response::new(Body::from(error_body(kind, &detail)))
        };
        if kind == Kind::Unavailable {
            response
                .headers_mut()
                .insert(RETRY_AFTER, RETRY_AFTER_S.into());
        }
        *response.status_mut() = kind.status();
        response
    }
}

fn error_body(kind: Kind, detail: &str) -> String {
    #[derive(Serialize)]
    struct ErrorBody<'a> {
        r#type: String,
        detail: &'a str,
    }
    let body = ErrorBody {
        r#type: format!("{TYPE_BASE}{}", kind.as_str()),
        detail,
    };
    serde_json::to_string(&body).unwrap_or_default()
}
