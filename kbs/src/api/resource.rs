//! Resources: released to attested peers by policy, stored and deleted by administrators.

use std::collections::HashMap;
use std::sync::Arc;

use attestation::Sha256Digest;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, Uri};

use super::{AdminTokens, DECISION_TIME, bearer, empty, json_bytes, session_id};
use crate::desk::{Case, Desk, Granted, store_failed};
use crate::jwe;
use crate::policy::{Decision, Question};
use crate::refusal::{Kind, Refusal};
use crate::session::SessionId;
use crate::store::{Change, Outcome};
use crate::token::Claims;

/// As stock brokers.
const MAX_RESOURCE: usize = 2 * 1024 * 1024;
/// Segments that a policy is shown; three can name a resource.
const MAX_SEGMENTS: usize = 16;
const MAX_PATH: usize = 512;
const PREFIX: &str = "/kbs/v0/resource/";

/// Whether this is `<repository>/<type>/<tag>`, each of `[a-zA-Z0-9_-][a-zA-Z0-9_.-]*`.
pub(crate) fn is_resource_path(path: &str) -> bool {
    let segment = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    path.len() <= MAX_PATH && path.split('/').count() == 3 && path.split('/').all(segment)
}

pub(super) async fn read(State(desk): State<Arc<Desk>>, uri: Uri, headers: HeaderMap) -> Response {
    let (session, bearer) = (session_id(&headers), bearer(&headers));
    let path = path_of(&uri);
    let decide = move |desk: &Desk, case: &mut Case| {
        let claims = claims(desk, case, session.as_ref(), bearer.as_deref())?;
        case.facts.pcrs = Some(
            claims
                .nitro
                .pcrs
                .iter()
                .filter_map(|(i, pcr)| Some((i.parse().ok()?, *pcr)))
                .collect(),
        );
        case.facts.fresh = true;
        case.facts.config_digest = Some(claims.nitro.config_digest);
        case.facts.tee_key = Some(claims.tee_pubkey.thumbprint());

        // The policy comes before the path's form and before existence: who is denied learns neither.
        let no_plugin = |reason: &str| Refusal::new(Kind::PluginInternalError, reason);
        let segments: Vec<&str> = case.path.split('/').take(MAX_SEGMENTS).collect();
        let Ok(Query(query)) = Query::<HashMap<String, String>>::try_from_uri(&uri) else {
            return Err(no_plugin("the query cannot be read"));
        };
        let policy = desk.store.policy().map_err(|error| store_failed(&error))?;
        let policy = policy.as_deref().unwrap_or(crate::policy::DENY_ALL);
        case.facts.policy_sha256 = Some(Sha256Digest::of(policy.as_bytes()));
        let question = Question {
            path: &segments,
            query: &query,
        };
        match desk.policy.decide(policy, &claims, &question) {
            Ok(Decision::Allowed) => {}
            Ok(Decision::Denied(reasons)) => {
                let reason = match reasons.as_slice() {
                    [] => "the policy does not allow it".to_owned(),
                    reasons => format!("the policy does not allow it: {}", reasons.join("; ")),
                };
                return Err(Refusal::new(Kind::PolicyDeny, reason));
            }
            Err(error) => return Err(Refusal::new(Kind::PolicyEngineError, error)),
        }
        if !is_resource_path(&case.path) {
            return Err(no_plugin("not a resource path"));
        }
        let resource = desk
            .store
            .resource(&case.path)
            .map_err(|error| store_failed(&error))?;
        let resource = resource.ok_or_else(|| no_plugin("no such resource"))?;

        let recipient = claims
            .tee_pubkey
            .recipient()
            .map_err(|error| Refusal::new(Kind::JweError, error))?;
        let jwe = jwe::seal(&resource, &recipient)
            .map_err(|_unspecified| Refusal::new(Kind::JweError, "sealing failed"))?;
        Ok(Granted::logged(Outcome::Released, json_bytes(jwe)))
    };
    desk.handle(path, DECISION_TIME, decide).await
}

pub(super) async fn write(
    State(desk): State<Arc<Desk>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (path, tokens) = (path_of(&uri), AdminTokens::of(&headers));
    // Before two megabytes are taken from a stranger.
    if let Err(error) = desk.admins.check(tokens.first.as_deref(), (desk.now)()) {
        return super::refuse(
            desk,
            path,
            Refusal::new(Kind::AdminAuthInitialization, error),
        )
        .await;
    }
    let body = match super::body(&desk, &path, body, MAX_RESOURCE).await {
        Ok(body) => zeroize::Zeroizing::new(Vec::from(body)),
        Err(response) => return response,
    };
    let decide = move |desk: &Desk, case: &mut Case| {
        if !is_resource_path(&case.path) {
            return Err(Refusal::new(
                Kind::PluginInternalError,
                "not a resource path",
            ));
        }
        let change = Change::put_resource(&case.path, &body);
        Ok(Granted::Changed {
            change: tokens.authorize(desk, case, change, Kind::AdminAuthInitialization)?,
            outcome: Outcome::Stored,
            reason: None,
            response: empty(),
        })
    };
    desk.handle(path, DECISION_TIME, decide).await
}

pub(super) async fn delete(
    State(desk): State<Arc<Desk>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let tokens = AdminTokens::of(&headers);
    let decide = move |desk: &Desk, case: &mut Case| {
        let change = Change::delete_resource(&case.path);
        Ok(Granted::Changed {
            change: tokens.authorize(desk, case, change, Kind::AdminAuthInitialization)?,
            outcome: Outcome::Deleted,
            reason: None,
            response: empty(),
        })
    };
    desk.handle(path_of(&uri), DECISION_TIME, decide).await
}

/// A valid attested session first, a bearer token only if there is none; either is verified anew on every request.
fn claims(
    desk: &Desk,
    case: &Case,
    session: Option<&SessionId>,
    bearer: Option<&str>,
) -> Result<Claims, Refusal> {
    let of_session = session
        .and_then(|id| desk.sessions.token(id, case.now))
        .and_then(|token| desk.tokens.verify(&token, case.now).ok());
    match (of_session, bearer) {
        (Some(claims), _) => Ok(claims),
        (None, Some(token)) => desk
            .tokens
            .verify(token, case.now)
            .map_err(|error| Refusal::new(Kind::TokenVerifierError, error)),
        (None, None) => Err(Refusal::new(
            Kind::TokenNotFound,
            "no attested session, no token",
        )),
    }
}

/// Taken from the URI as it came: nothing is decoded, so nothing can mean two paths.
fn path_of(uri: &Uri) -> String {
    let path = uri.path();
    path.strip_prefix(PREFIX).unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_path_has_three_plain_segments() {
        for path in ["models/cloister-demo/epoch-1", "a/b/c", "a.b/_c/-d.e"] {
            assert!(is_resource_path(path), "{path}");
        }
        for path in [
            "", "a", "a/b", "a/b/c/d", "a//c", "/a/b", "a/b/", ".a/b/c", "a/../c", "a/b/c%2e",
            "a/b/c d", "a/b/é",
        ] {
            assert!(!is_resource_path(path), "{path}");
        }
        assert!(!is_resource_path(&format!("a/b/{}", "c".repeat(MAX_PATH))));
    }
}
