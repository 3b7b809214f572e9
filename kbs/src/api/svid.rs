//! X.509-SVIDs for attested software. The measurement says who it is; the request only has to agree.

use std::sync::Arc;

use attestation::{Nonce, Sha256Digest, Subject};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{DECISION_TIME, json};
use crate::desk::{Case, Desk, Granted};
use crate::evidence::{Challenge, NitroEvidence};
use crate::refusal::{Kind, Refusal};
use crate::store::Outcome;

/// An empty object.
const MAX_CHALLENGE: usize = 1024;
/// A document of 16 KiB and a request of 4 KiB, in base64.
const MAX_REQUEST: usize = 64 * 1024;

#[derive(Serialize)]
struct ChallengeBody {
    nonce: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// base64url of the challenge.
    nonce: String,
    /// base64 of a DER PKCS#10 request.
    csr: String,
    evidence: NitroEvidence,
}

#[derive(Serialize)]
struct Issued {
    /// base64 of DER certificates, leaf first, root left out.
    chain: Vec<String>,
}

pub(super) async fn challenge(State(desk): State<Arc<Desk>>, body: Body) -> Response {
    if let Err(response) = super::body(&desk, "challenge", body, MAX_CHALLENGE).await {
        return response;
    }
    let decide = |desk: &Desk, case: &mut Case| {
        let nonce = desk.challenges.open(case.now);
        Ok(Granted::Plain(json(&ChallengeBody {
            nonce: nonce.to_base64url(),
        })))
    };
    desk.handle("challenge".to_owned(), DECISION_TIME, decide)
        .await
}

pub(super) async fn issue(State(desk): State<Arc<Desk>>, body: Body) -> Response {
    let body = match super::body(&desk, "svid", body, MAX_REQUEST).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let decide = move |desk: &Desk, case: &mut Case| {
        let unread = |reason: &dyn std::fmt::Display| Refusal::new(Kind::SerdeError, reason);
        let refuse = |reason: &dyn std::fmt::Display| {
            Refusal::new(Kind::AttestationError, reason)
                .with_detail("Attestation error: SVID issuance failed")
        };
        let deny = |reason: &dyn std::fmt::Display| Refusal::new(Kind::PolicyDeny, reason);
        let Some(issuer) = &desk.issuer else {
            return Err(Refusal::new(
                Kind::PluginNotFound,
                "no issuer is configured",
            ));
        };
        let request: Request = serde_json::from_slice(&body)
            .map_err(|error| unread(&format!("not an SVID request: {error}")))?;
        // 1. The challenge is ours and unanswered; from here on it is used up.
        let nonce = Nonce::from_base64url(&request.nonce).map_err(|error| unread(&error))?;
        if !desk.challenges.take(&nonce, case.now) {
            return Err(refuse(
                &"no such challenge, or it ended, or was answered before",
            ));
        }
        // 2. The request: signed by its own P-256 key, empty subject, one URI name, nothing else asked for.
        let der = STANDARD
            .decode(&request.csr)
            .map_err(|error| unread(&format!("csr: {error}")))?;
        let csr = identity::issue::csr(&der).map_err(|error| deny(&error))?;
        // 3. Evidence made for this challenge, this key, this request and this purpose.
        let spki_sha256 = Sha256Digest::of(&csr.spki_der);
        let challenge = Challenge {
            nonce: nonce.as_bytes(),
            public_key: &csr.spki_der,
            subject: Subject::SvidIssuance {
                csr_sha256: Sha256Digest::of(&der),
                spki_sha256,
            },
        };
        let claims = request
            .evidence
            .verify(&desk.verifier, challenge, &mut case.facts, case.now)
            .map_err(|reason| refuse(&reason))?;
        case.facts.tee_key = Some(spki_sha256);
        // 4. Who the measurement is. The request may not wish for another.
        let id = issuer
            .identity(&claims.pcrs, case.now)
            .map_err(|error| deny(&error))?;
        case.path = id.to_string();
        if csr.id != *id {
            return Err(deny(&format!("the request asks for {}", csr.id)));
        }
        // 5. Certified, and looked at once more.
        let (chain, leaf) = issuer.issue(id, &csr, &der, case.now).map_err(|error| {
            if error.is_denial() {
                return deny(&error);
            }
            tracing::error!(%error, "issuer");
            Refusal::new(Kind::Unavailable, error)
        })?;
        case.facts.serial = Some(leaf.serial);
        let until = time::OffsetDateTime::from(leaf.not_after);
        let issued = Issued {
            chain: chain.iter().map(|der| STANDARD.encode(der)).collect(),
        };
        Ok(Granted::Logged {
            outcome: Outcome::Issued,
            reason: Some(format!("valid until {until}")),
            response: json(&issued),
        })
    };
    desk.handle("svid".to_owned(), DECISION_TIME, decide).await
}
