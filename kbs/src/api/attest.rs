//! The handshake: challenge, then evidence over it and over the recipient key, for a session here or for a passport.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::{COOKIE_NAME, DECISION_TIME, json, session_id};
use crate::appraisal::{self, Appraisal};
use crate::desk::{Case, Desk, Granted, store_failed};
use crate::evidence::NitroEvidence;
use crate::refusal::{Kind, Refusal};
use crate::session::{SessionId, Taken};
use crate::store::Outcome;
use crate::tee_key::TeePublicKey;
use crate::token::{NitroClaims, TokenError};

const VERSION: &str = "0.4.0";
const TEE: &str = "aws-nitro";
/// Three members; `extra-params` of stock clients is a short list.
const MAX_REQUEST: usize = 4 * 1024;
/// A document of 16 KiB in base64, a key of 700 bytes, and their names.
const MAX_ATTESTATION: usize = 64 * 1024;
/// What a version looks like; nothing else is repeated to the peer.
const MAX_VERSION: usize = 32;

#[derive(Deserialize)]
struct Request {
    version: String,
    tee: String,
    /// Required by the protocol, read by no platform of ours.
    #[serde(rename = "extra-params")]
    _extra_params: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ChallengeBody {
    nonce: String,
    extra_params: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Attestation {
    /// No measurement of ours covers it, so it has to be absent or null.
    init_data: Option<Value>,
    runtime_data: RuntimeData,
    tee_evidence: TeeEvidence,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RuntimeData {
    nonce: String,
    tee_pubkey: TeePublicKey,
}

#[derive(Deserialize)]
struct TeeEvidence {
    primary_evidence: NitroEvidence,
    /// For devices beside the platform; there are none, so it has to be empty.
    additional_evidence: String,
}

#[derive(Serialize)]
struct TokenBody<'a> {
    token: &'a str,
}

pub(super) async fn auth(State(desk): State<Arc<Desk>>, body: Body) -> Response {
    let body = match super::body(&desk, "auth", body, MAX_REQUEST).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let decide = move |desk: &Desk, case: &mut Case| {
        let unread = |reason: &str| {
            Refusal::new(Kind::AttestationError, reason)
                .with_detail("Attestation error: RCAR handshake Auth failed: deserialize Request")
        };
        let Ok(request) = serde_json::from_slice::<Request>(&body) else {
            return Err(unread("not a request"));
        };
        if request.tee != TEE {
            return Err(unread("another platform than aws-nitro"));
        }
        if request.version != VERSION {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b".-+".contains(&b);
            let readable =
                request.version.len() <= MAX_VERSION && request.version.bytes().all(plain);
            let version = if readable {
                request.version.as_str()
            } else {
                "unreadable"
            };
            return Err(Refusal::new(Kind::AttestationError, "another protocol version").with_detail(format!(
                "Attestation error: RCAR handshake Auth failed: KBS Client Protocol Version Mismatch: \
                 expect ={VERSION} while the request is {version}"
            )));
        }
        let opened = desk
            .sessions
            .open(case.now)
            .map_err(|error| Refusal::new(Kind::Unavailable, error))?;
        let challenge = ChallengeBody {
            nonce: opened.nonce,
            extra_params: "",
        };
        let response = with_cookie(json(&challenge), &opened.id, opened.until);
        Ok(Granted::Plain(response))
    };
    desk.handle("auth".to_owned(), DECISION_TIME, decide).await
}

pub(super) async fn attest(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match super::body(&desk, "attest", body, MAX_ATTESTATION).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let id = session_id(&headers);
    let decide = move |desk: &Desk, case: &mut Case| {
        let accepted = accept(desk, case, id, &body)?;
        let Accepted { taken, token, .. } = &accepted;
        let response = json(&TokenBody { token });
        let response = with_cookie(response, taken.id(), taken.until);
        desk.sessions
            .attested(accepted.taken, accepted.token, case.now);
        Ok(Granted::Logged {
            outcome: Outcome::Attested,
            reason: accepted.reason,
            response,
        })
    };
    desk.handle("attest".to_owned(), DECISION_TIME, decide)
        .await
}

/// As [`attest`], for another broker: the session ends here, and the cookie opens nothing.
pub(super) async fn passport(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match super::body(&desk, "token", body, MAX_ATTESTATION).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let id = session_id(&headers);
    let decide = move |desk: &Desk, case: &mut Case| {
        let Accepted { token, reason, .. } = accept(desk, case, id, &body)?;
        Ok(Granted::Logged {
            outcome: Outcome::Attested,
            reason,
            response: json(&TokenBody { token: &token }),
        })
    };
    desk.handle("token".to_owned(), DECISION_TIME, decide).await
}

/// What an attestation was good for.
struct Accepted {
    taken: Taken,
    token: String,
    /// What the attestation policy found, for the log.
    reason: Option<String>,
}

/// Evidence over this session's challenge and the recipient key, and the attestation policy's view of it.
fn accept(
    desk: &Desk,
    case: &mut Case,
    id: Option<SessionId>,
    body: &[u8],
) -> Result<Accepted, Refusal> {
    let refuse = |reason: &dyn std::fmt::Display| Refusal::new(Kind::AttestationError, reason);
    let id = id.ok_or_else(|| refuse(&"no session cookie"))?;
    // From here on the challenge is used up, whatever comes.
    let taken = desk
        .sessions
        .take(&id, case.now)
        .map_err(|error| refuse(&error))?;
    let attestation: Attestation = serde_json::from_slice(body)
        .map_err(|error| refuse(&format!("not an attestation: {error}")))?;
    if attestation.init_data.is_some_and(|data| !data.is_null()) {
        return Err(refuse(&"init-data, which no measurement covers"));
    }
    if !attestation.tee_evidence.additional_evidence.is_empty() {
        return Err(refuse(
            &"additional evidence, for which there is no verifier",
        ));
    }
    let RuntimeData { nonce, tee_pubkey } = attestation.runtime_data;
    if nonce != taken.nonce {
        return Err(refuse(&"another nonce than this session's"));
    }
    tee_pubkey.recipient().map_err(|error| refuse(&error))?;
    let evidence = attestation.tee_evidence.primary_evidence;
    let claims = evidence
        .verify_key_release(
            &desk.verifier,
            &taken.nonce,
            &tee_pubkey,
            &mut case.facts,
            case.now,
        )
        .map_err(|reason| refuse(&reason))?;
    case.facts.tee_key = Some(tee_pubkey.thumbprint());

    let nitro = evidence.claims(&claims, &desk.verifier);
    let appraisal = appraise(desk, &nitro, &nonce, &tee_pubkey)?;
    let reason = appraisal.as_ref().map(|appraisal| {
        let status = appraisal.status;
        format!("ear.status {status}")
    });
    let token = desk
        .tokens
        .sign(nitro, tee_pubkey, appraisal, case.now)
        .map_err(|error| match error {
            // Only what an attestation policy adds can be that much: waiting would not help.
            TokenError::TooLong => {
                refuse(&"a token with what the attestation policy adds is too long")
            }
            error => Refusal::new(Kind::Unavailable, error),
        })?;
    Ok(Accepted {
        taken,
        token,
        reason,
    })
}

/// Without an attestation policy there are no trust claims; with one that fails nobody is attested.
fn appraise(
    desk: &Desk,
    nitro: &NitroClaims,
    nonce: &str,
    key: &TeePublicKey,
) -> Result<Option<Appraisal>, Refusal> {
    let policy = desk.store.attestation_policy();
    let Some(policy) = policy.map_err(|error| store_failed(&error))? else {
        return Ok(None);
    };
    let references = desk.store.references();
    let references = references.map_err(|error| store_failed(&error))?;
    let input = appraisal::input(nitro, Some(nonce), Some(key));
    match appraisal::appraise(&desk.policy, &policy, references, input) {
        Ok(appraisal) => Ok(Some(appraisal)),
        Err(error) => {
            let reason = format!("attestation policy: {error}");
            Err(Refusal::new(Kind::AttestationError, reason))
        }
    }
}

/// `Expires` and nothing else, as stock brokers write it.
fn with_cookie(mut response: Response, id: &str, until: SystemTime) -> Response {
    let until = OffsetDateTime::from(until)
        .format(&Rfc2822)
        .unwrap_or_default();
    // RFC 9110 §5.6.7 writes the same time with another name for the zone.
    let until = until.replace("+0000", "GMT");
    if let Ok(cookie) = HeaderValue::from_str(&format!("{COOKIE_NAME}={id}; Expires={until}")) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_cookie_is_written_as_stock_brokers_do() {
        let at = UNIX_EPOCH + Duration::from_secs(1_795_171_177);
        let response = with_cookie(json(&()), "0123", at);
        assert_eq!(
            response.headers()[SET_COOKIE],
            "kbs-session-id=0123; Expires=Fri, 20 Nov 2026 10:39:37 GMT"
        );
    }
}
