//! Step 2: the only request that an unverified connection can carry, and the only answer that is read from it.

use attestation::{BootId, Evidence, ModelIdentity, Nonce, Sha256Digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::SendRequest;
use serde::Deserialize;

use crate::Error;
use crate::body::{SessionBody, boxed};

pub(crate) const PATH: &str = "/v1/attestation";

/// HTTP/2 wants an authority; nothing is decided on it.
pub(crate) const AUTHORITY: &str = "enclave";

/// 16 KiB of evidence in base64 and a few dozen model identities.
const MAX_ANSWER: usize = 64 * 1024;
/// More models than one enclave can hold in memory.
const MAX_MODELS: usize = 64;

/// What the server says. Nothing of it is believed before `verify`.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) evidence: Evidence,
    pub(crate) config_digest: Sha256Digest,
    pub(crate) boot_id: BootId,
    pub(crate) models: Vec<ModelIdentity>,
}

#[derive(Deserialize)]
struct Wire {
    evidence: String,
    config_digest: Sha256Digest,
    boot_id: BootId,
    models: Vec<ModelIdentity>,
}

/// Sends the nonce and reads the answer, bounded.
pub(crate) async fn challenge(
    sender: &SendRequest<SessionBody>,
    nonce: &Nonce,
) -> Result<Answer, Error> {
    let question = format!(r#"{{"nonce":"{}"}}"#, nonce.to_base64url());
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("https://{AUTHORITY}{PATH}"))
        .header(CONTENT_TYPE, "application/json")
        .body(boxed(Full::new(Bytes::from(question))))
        .map_err(|_invalid| Error::Challenge("request could not be built"))?;
    let answer = sender
        .clone()
        .send_request(request)
        .await
        .map_err(Error::Connection)?;
    if answer.status() != StatusCode::OK {
        return Err(Error::ChallengeRefused {
            status: answer.status().as_u16(),
        });
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|_cut| Error::Challenge("too large, or cut short"))?;
    parse(&body.to_bytes())
}

fn parse(body: &[u8]) -> Result<Answer, Error> {
    let wire: Wire = serde_json::from_slice(body)
        .map_err(|_detail| Error::Challenge("not the expected json"))?;
    if wire.models.len() > MAX_MODELS {
        return Err(Error::Challenge("too many models"));
    }
    let evidence = STANDARD
        .decode(&wire.evidence)
        .map_err(|_detail| Error::Challenge("evidence is not base64"))?;
    let evidence = Evidence::from_bytes(evidence).map_err(attestation::Error::from)?;
    Ok(Answer {
        evidence,
        config_digest: wire.config_digest,
        boot_id: wire.boot_id,
        models: wire.models,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Step;

    fn answer(evidence: &str, models: usize) -> String {
        let model = format!(
            r#"{{"name":"m","epoch":1,"manifest_sha256":"{0}","publisher_sha256":"{0}"}}"#,
            "00".repeat(32)
        );
        format!(
            r#"{{"evidence":"{evidence}","config_digest":"{}","boot_id":"{}","models":[{}]}}"#,
            "00".repeat(32),
            "00".repeat(16),
            vec![model; models].join(","),
        )
    }

    #[test]
    fn reads_an_answer_and_ignores_members_it_does_not_know() {
        let text = answer("AAAA", 2).replacen('{', r#"{"later":1,"#, 1);
        assert_eq!(parse(text.as_bytes()).unwrap().models.len(), 2);
    }

    #[test]
    fn refuses_what_is_not_an_answer() {
        for text in [
            String::new(),
            "{}".to_owned(),
            answer("not base64!", 1),
            answer("AAAA", MAX_MODELS + 1),
            answer("AAAA", 1).replacen("00", "0", 1),
            answer("AAAA", 1).replacen('{', r#"{"evidence":"","#, 1),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.step(), Some(Step::Challenge), "{text}");
        }
        let oversize = "A".repeat(4 * (Evidence::MAX_LENGTH / 3 + 2));
        let error = parse(answer(&oversize, 1).as_bytes()).unwrap_err();
        assert_eq!(error.step(), Some(Step::Structure));
    }
}
