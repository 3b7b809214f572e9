//! The attestation policy and the reference values it asks for (RVPS), for administrators.

use std::sync::Arc;

use attestation::Sha256Digest;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, Uri};
use serde::Deserialize;
use serde_json::Value;

use super::{AdminTokens, DECISION_TIME, bearer, empty, json};
use crate::appraisal::{POLICY_ID, References};
use crate::desk::{Case, Desk, Granted, store_failed};
use crate::policy::{self, MAX_POLICY};
use crate::refusal::{Kind, Refusal};
use crate::store::{Change, Outcome, references_digest};

const POLICY: &str = "attestation-policy";
const REFERENCE: &str = "reference-value";
const PREFIX: &str = "/kbs/v0/reference-value/";
/// In base64, with its members' names.
const MAX_POLICY_BODY: usize = MAX_POLICY * 4 / 3 + 1024;
/// As stock brokers.
const MAX_MESSAGE: usize = 2 * 1024 * 1024;
const MAX_ID: usize = 256;
/// Compared literally, as the protocol's version is.
const RVPS_VERSION: &str = "0.1.0";
/// The one extractor there is: the payload names its values itself, and the administrator vouches for them.
const RVPS_TYPE: &str = "sample";

/// `type`, which stock tools send along, is always Rego.
#[derive(Deserialize)]
struct Replacement {
    policy_id: String,
    policy: String,
}

#[derive(Deserialize)]
struct Message {
    version: String,
    r#type: String,
    payload: String,
}

/// Whether `id` can name a reference value: it comes in a path, as it is.
pub(crate) fn is_reference_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.:/".contains(&b);
    !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(plain)
}

pub(super) async fn replace_policy(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match of_admin(&desk, POLICY, &headers, body, MAX_POLICY_BODY).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let tokens = AdminTokens::of(&headers);
    let decide = move |desk: &Desk, case: &mut Case| {
        let unread = |reason: &str| Refusal::new(Kind::SerdeError, reason);
        let Ok(replacement) = serde_json::from_slice::<Replacement>(&body) else {
            return Err(unread("not {\"policy_id\": …, \"policy\": …}"));
        };
        if replacement.policy_id != POLICY_ID {
            let reason = "no evidence of ours is judged by the policy of that name";
            return Err(unread(reason).with_detail("policy_id has to be default_cpu"));
        }
        let Ok(text) = URL_SAFE_NO_PAD.decode(replacement.policy) else {
            return Err(unread("policy is not base64url without padding"));
        };
        let Ok(text) = String::from_utf8(text) else {
            return Err(unread("policy is not UTF-8"));
        };
        policy::check(&text).map_err(|error| Refusal::new(Kind::ParsePolicyError, error))?;
        let change = Change::put_attestation_policy(&text);
        let change = tokens.authorize(desk, case, change, Kind::AdminAuthAccess)?;
        case.facts.policy_sha256 = Some(Sha256Digest::of(text.as_bytes()));
        Ok(Granted::Changed {
            change,
            outcome: Outcome::PolicySet,
            reason: None,
            response: empty(),
        })
    };
    desk.handle(POLICY.to_owned(), DECISION_TIME, decide).await
}

pub(super) async fn register(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match of_admin(&desk, REFERENCE, &headers, body, MAX_MESSAGE).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let tokens = AdminTokens::of(&headers);
    let decide = move |desk: &Desk, case: &mut Case| {
        let values = values(&body).map_err(|reason| Refusal::new(Kind::RvpsError, reason))?;
        let reason = format!(
            "{} values, sha256 {}",
            values.len(),
            references_digest(&values)
        );
        let change = Change::set_references(values);
        Ok(Granted::Changed {
            change: tokens.authorize(desk, case, change, Kind::AdminAuthAccess)?,
            outcome: Outcome::ReferenceSet,
            reason: Some(reason),
            response: empty(),
        })
    };
    desk.handle(REFERENCE.to_owned(), DECISION_TIME, decide)
        .await
}

/// The value, or null.
pub(super) async fn read(State(desk): State<Arc<Desk>>, uri: Uri, headers: HeaderMap) -> Response {
    let bearer = bearer(&headers);
    let id = uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let id = id.to_owned();
    let decide = move |desk: &Desk, case: &mut Case| {
        desk.admins
            .may_read(bearer.as_deref(), case.now)
            .map_err(|error| Refusal::new(Kind::AdminAuthAccess, error))?;
        let references = desk.store.references();
        let references = references.map_err(|error| store_failed(&error))?;
        let value = references.get(&id).unwrap_or(&Value::Null);
        Ok(Granted::Plain(json(value)))
    };
    desk.handle(REFERENCE.to_owned(), DECISION_TIME, decide)
        .await
}

/// The body, from an administrator: nobody else's is taken in.
async fn of_admin(
    desk: &Arc<Desk>,
    path: &str,
    headers: &HeaderMap,
    body: Body,
    max: usize,
) -> Result<bytes::Bytes, Response> {
    if let Err(error) = desk.admins.check(bearer(headers).as_deref(), (desk.now)()) {
        let refusal = Refusal::new(Kind::AdminAuthAccess, error);
        return Err(super::refuse(Arc::clone(desk), path.to_owned(), refusal).await);
    }
    super::body(desk, path, body, max).await
}

/// The values of a message: standard base64 of `{"<id>": <value>, …}`.
fn values(message: &[u8]) -> Result<References, &'static str> {
    let Ok(message) = serde_json::from_slice::<Message>(message) else {
        return Err("not {\"version\": …, \"type\": …, \"payload\": …}");
    };
    if message.version != RVPS_VERSION {
        return Err("version is not 0.1.0");
    }
    if message.r#type != RVPS_TYPE {
        return Err("type is not sample, and there is no other extractor");
    }
    let Ok(payload) = STANDARD.decode(message.payload) else {
        return Err("payload is not base64");
    };
    let Ok(values) = serde_json::from_slice::<References>(&payload) else {
        return Err("payload is not an object of values");
    };
    if values.is_empty() || !values.keys().all(|id| is_reference_id(id)) {
        return Err(
            "payload names no value, or one by other characters than a-z A-Z 0-9 _ - . : /",
        );
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &str) -> String {
        let payload = STANDARD.encode(payload);
        serde_json::json!({"version": "0.1.0", "type": "sample", "payload": payload}).to_string()
    }

    #[test]
    fn a_message_names_its_values() {
        let values = values(message(r#"{"nitro_images": [{"0": "ab"}], "svn": 1}"#).as_bytes());
        let values = values.unwrap();
        assert_eq!(values["nitro_images"][0]["0"], "ab");
        assert_eq!(values["svn"], 1);
    }

    #[test]
    fn what_is_no_message_of_this_version_and_type_sets_nothing() {
        let good = message(r#"{"a": 1}"#);
        assert!(values(good.as_bytes()).is_ok());
        for bad in [
            good.replace("0.1.0", "0.1.1"),
            good.replace("sample", "swid"),
            good.replace("sample", "corim"),
            good.replace("payload", "provenance"),
            message("{}"),
            message("[1]"),
            message(r#"{"": 1}"#),
            message(r#"{"a b": 1}"#),
            message(r#"{"é": 1}"#),
            message(&format!(r#"{{"{}": 1}}"#, "a".repeat(MAX_ID + 1))),
            r#"{"version":"0.1.0","type":"sample","payload":"!"}"#.to_owned(),
            "null".to_owned(),
            String::new(),
        ] {
            assert!(values(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_messages_are_read_or_refused_without_a_panic(payload in ".{0,100}", raw in ".{0,100}") {
            let named = values(message(&payload).as_bytes());
            let all_named = named.is_ok_and(|values| values.keys().all(|id| is_reference_id(id)));
            proptest::prop_assert!(all_named || values(message(&payload).as_bytes()).is_err());
            proptest::prop_assert!(values(raw.as_bytes()).is_err());
        }
    }
}
