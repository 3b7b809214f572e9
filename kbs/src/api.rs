//! What is served over TLS: the handshake and the resources of RCAR 0.4.0, and SVIDs beside it.
//!
//! | | who may | answer |
//! |---|---|---|
//! | `POST /kbs/v0/auth` | anybody | challenge, cookie |
//! | `POST /kbs/v0/attest`, `…/token` | cookie | token; passport |
//! | `GET /kbs/v0/resource/<repository>/<type>/<tag>` | attested cookie or token, then policy | JWE |
//! | `POST`, `DELETE` of the same | administrator | empty |
//! | `POST`, `GET /kbs/v0/resource-policy` | administrator | empty; list of policies |
//! | `POST /kbs/v0/attestation-policy` | administrator | empty |
//! | `POST /kbs/v0/reference-value`, `GET …/<id>` | administrator | empty; the value |
//! | `GET /.well-known/jwks.json` | anybody | keys of tokens |
//! | `POST /cloister/v0/challenge`, `…/svid` | anybody; evidence | nonce; chain |

mod attest;
mod policy;
mod reference;
mod resource;
mod svid;

pub(crate) use reference::is_reference_id;
pub(crate) use resource::is_resource_path;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{any, get, post};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use tokio::time::timeout;

use crate::admin::AdminError;
use crate::desk::{Case, Desk};
use crate::refusal::{Kind, Refusal};
use crate::store::Change;

/// For a request's body to arrive; none is large.
const BODY_TIME: Duration = Duration::from_secs(10);
/// For a decision: five signatures, a policy of at most a second, one wait for the disk, and a queue before all that.
const DECISION_TIME: Duration = Duration::from_secs(10);
const COOKIE_NAME: &str = "kbs-session-id";
/// Ours: the second administrator's approval, where the two-person rule asks for one.
const APPROVAL: &str = "cloister-approval";

pub(crate) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/kbs/v0/auth", post(attest::auth).fallback(no_plugin))
        .route("/kbs/v0/attest", post(attest::attest).fallback(no_plugin))
        .route("/kbs/v0/token", post(attest::passport).fallback(no_plugin))
        .route(
            "/kbs/v0/resource/{*path}",
            // A HEAD that ran GET would release a key to nobody.
            get(resource::read)
                .head(no_plugin)
                .post(resource::write)
                .delete(resource::delete)
                .fallback(no_plugin),
        )
        .route(
            "/kbs/v0/resource-policy",
            get(policy::list)
                .head(no_plugin)
                .post(policy::replace)
                .fallback(no_plugin),
        )
        .route(
            "/kbs/v0/attestation-policy",
            post(reference::replace_policy).fallback(no_plugin),
        )
        .route(
            "/kbs/v0/reference-value",
            post(reference::register).fallback(no_plugin),
        )
        .route(
            "/kbs/v0/reference-value/{*id}",
            get(reference::read).head(no_plugin).fallback(no_plugin),
        )
        .route("/.well-known/jwks.json", get(jwks))
        .route("/kbs/v0/{*rest}", any(no_plugin))
        .route("/kbs/v0", any(no_path))
        .route("/kbs/v0/", any(no_path))
        .route("/cloister/v0/challenge", post(svid::challenge))
        .route("/cloister/v0/svid", post(svid::issue))
        .route("/healthz", get(async || StatusCode::OK))
        .with_state(desk)
}

/// Public, and read by many: no decision, no entry.
async fn jwks(State(desk): State<Arc<Desk>>) -> Response {
    let mut response = json(desk.tokens.jwks());
    let fresh = HeaderValue::from_static("max-age=300");
    response.headers_mut().insert(CACHE_CONTROL, fresh);
    response
}

async fn no_plugin(State(desk): State<Arc<Desk>>, uri: Uri) -> Response {
    refuse(
        desk,
        uri.path().to_owned(),
        Refusal::new(Kind::PluginNotFound, "no such endpoint"),
    )
    .await
}

async fn no_path(State(desk): State<Arc<Desk>>, uri: Uri) -> Response {
    refuse(
        desk,
        uri.path().to_owned(),
        Refusal::new(Kind::InvalidRequestPath, "no endpoint named"),
    )
    .await
}

/// A refusal that needs no thought still goes over the desk, into the log.
async fn refuse(desk: Arc<Desk>, path: String, refusal: Refusal) -> Response {
    desk.handle(path, DECISION_TIME, move |_, _| Err(refusal))
        .await
}

/// The whole body, or the answer that it was too much, too slow or cut off.
async fn body(desk: &Arc<Desk>, path: &str, body: Body, max: usize) -> Result<Bytes, Response> {
    match timeout(BODY_TIME, Limited::new(body, max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => {
            let refusal = if error.is::<LengthLimitError>() {
                Refusal::new(Kind::PayloadTooLarge, format!("body is over {max} bytes"))
            } else {
                Refusal::new(Kind::SerdeError, "body was cut off")
            };
            Err(refuse(Arc::clone(desk), path.to_owned(), refusal).await)
        }
        Err(_) => Err(desk.timed_out()),
    }
}

fn session_id(headers: &HeaderMap) -> Option<String> {
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|value| value.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE_NAME).then(|| value.to_owned())
    })
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

/// What an administrator sent to show that a change is allowed.
struct AdminTokens {
    first: Option<String>,
    second: Option<String>,
}

impl AdminTokens {
    fn of(headers: &HeaderMap) -> Self {
        let second = headers.get(APPROVAL).and_then(|value| value.to_str().ok());
        Self {
            first: bearer(headers),
            second: second.map(|token| token.trim().to_owned()),
        }
    }

    /// The change with what it uses up, and who asked for it in `case`.
    fn authorize(
        &self,
        desk: &Desk,
        case: &mut Case,
        change: Change,
        kind: Kind,
    ) -> Result<Change, Refusal> {
        let (first, second) = (self.first.as_deref(), self.second.as_deref());
        let digest = change.digest();
        let authorized = desk.admins.authorize(first, second, digest, case.now);
        let authorized = authorized.map_err(|error| admin_refusal(kind, error))?;
        case.facts.admin = Some(authorized.names);
        Ok(change.approved(authorized.approvals))
    }
}

/// An administrator who is one is told what is missing.
fn admin_refusal(kind: Kind, error: AdminError) -> Refusal {
    let refusal = Refusal::new(kind, error);
    match error {
        AdminError::Second | AdminError::TooMany | AdminError::OtherChange => {
            refusal.with_detail(format!("Admin authentication failed: {error}"))
        }
        _ => refusal,
    }
}

fn json(value: &impl Serialize) -> Response {
    json_bytes(serde_json::to_vec(value).unwrap_or_default())
}

fn json_bytes(body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Stock brokers call their empty answers XML.
fn empty() -> Response {
    let mut response = Response::new(Body::empty());
    let xml = HeaderValue::from_static("text/xml");
    response.headers_mut().insert(CONTENT_TYPE, xml);
    response
}
