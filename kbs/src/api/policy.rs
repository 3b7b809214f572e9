//! The resource policy, for administrators.

use std::sync::Arc;

use attestation::Sha256Digest;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use serde::Deserialize;

use super::{AdminTokens, DECISION_TIME, bearer, empty, json};
use crate::desk::{Case, Desk, Granted};
use crate::policy::{self, MAX_POLICY};
use crate::refusal::{Kind, Refusal};
use crate::store::{Change, Outcome};

const NAME: &str = "resource-policy";
/// In base64, with its member's name.
const MAX_BODY: usize = MAX_POLICY * 4 / 3 + 1024;

#[derive(Deserialize)]
struct Replacement {
    policy: String,
}

pub(super) async fn replace(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(error) = desk.admins.check(bearer(&headers).as_deref(), (desk.now)()) {
        return super::refuse(
            desk,
            NAME.to_owned(),
            Refusal::new(Kind::AdminAuthAccess, error),
        )
        .await;
    }
    let body = match super::body(&desk, NAME, body, MAX_BODY).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let tokens = AdminTokens::of(&headers);
    let decide = move |desk: &Desk, case: &mut Case| {
        let unread = |reason: &str| Refusal::new(Kind::SerdeError, reason);
        let Ok(replacement) = serde_json::from_slice::<Replacement>(&body) else {
            return Err(unread("not {\"policy\": …}"));
        };
        let Ok(text) = URL_SAFE_NO_PAD.decode(replacement.policy) else {
            return Err(unread("policy is not base64url without padding"));
        };
        let Ok(text) = String::from_utf8(text) else {
            return Err(unread("policy is not UTF-8"));
        };
        policy::check(&text).map_err(|error| Refusal::new(Kind::ParsePolicyError, error))?;
        let change = Change::put_policy(&text);
        let change = tokens.authorize(desk, case, change, Kind::AdminAuthAccess)?;
        case.facts.policy_sha256 = Some(Sha256Digest::of(text.as_bytes()));
        Ok(Granted::Changed {
            change,
            outcome: Outcome::PolicySet,
            reason: None,
            response: empty(),
        })
    };
    desk.handle(NAME.to_owned(), DECISION_TIME, decide).await
}

/// Names, not texts: there is one.
pub(super) async fn list(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    let bearer = bearer(&headers);
    let decide = move |desk: &Desk, case: &mut Case| {
        desk.admins
            .may_read(bearer.as_deref(), case.now)
            .map_err(|error| Refusal::new(Kind::AdminAuthAccess, error))?;
        Ok(Granted::Plain(json(&[NAME])))
    };
    desk.handle(NAME.to_owned(), DECISION_TIME, decide).await
}
