//! RCAR 0.4.0, the key broker's protocol: request, challenge, attestation, response.
//!
//! ```text
//! POST /kbs/v0/auth      {"version","tee","extra-params"}              ► {"nonce","extra-params"}, cookie
//! POST /kbs/v0/attest    {"runtime-data":{"nonce","tee-pubkey"},
//!                         "tee-evidence":{"primary_evidence",…}}       ► {"token"}
//! GET  /kbs/v0/resource/<repository>/<type>/<tag>                      ► flattened JWE to tee-pubkey
//! ```
//! By passport, `POST /kbs/v0/token` takes the place of `attest`, and the resource is asked for elsewhere, with the token.
//! The nonce is a text: it is echoed, hashed and put into the evidence byte for byte, never decoded.

use attestation::{BootId, Evidence, Sha256Digest, Sha384Digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Failure};
use crate::http::{Answer, Connection, Proof};
use crate::jwe;
use crate::tee_key::{Jwk, TeeKey};

/// The one version that is spoken: servers compare it literally.
pub const PROTOCOL_VERSION: &str = "0.4.0";
/// Our platform's name in the protocol.
pub const TEE: &str = "aws-nitro";

/// A stock server sends 44 characters; evidence carries at most 512 bytes.
const NONCE_LENGTHS: std::ops::RangeInclusive<usize> = 22..=512;
const COOKIE: &str = "kbs-session-id=";
/// A stock server sends 32 hex digits.
const MAX_COOKIE: usize = 128;
/// As long as servers take a header: 32 registers and an RSA key are under 8 KiB.
const MAX_TOKEN: usize = 16 * 1024;
/// A path of three segments below `resource/`.
const MAX_KEY_ID: usize = 512;

#[derive(Serialize)]
struct Request {
    version: &'static str,
    tee: &'static str,
    #[serde(rename = "extra-params")]
    extra_params: serde_json::Map<String, serde_json::Value>,
}

/// Other members than the nonce (`extra-params`) steer platforms that are not ours.
#[derive(Deserialize)]
struct Challenge {
    nonce: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Attestation<'a> {
    init_data: Option<()>,
    runtime_data: RuntimeData<'a>,
    tee_evidence: TeeEvidence,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct RuntimeData<'a> {
    nonce: &'a str,
    tee_pubkey: &'a Jwk,
}

#[derive(Serialize)]
struct TeeEvidence {
    primary_evidence: NitroEvidence,
    additional_evidence: &'static str,
}

/// The document and what a verifier needs beside it to rebuild the binding.
#[derive(Serialize)]
pub(crate) struct NitroEvidence {
    document: String,
    config_digest: Sha256Digest,
    boot_id: BootId,
}

impl NitroEvidence {
    pub(crate) fn new(evidence: &Evidence, config_digest: Sha256Digest, boot_id: BootId) -> Self {
        Self {
            document: STANDARD.encode(evidence.as_bytes()),
            config_digest,
            boot_id,
        }
    }
}

/// SHA-384 over the canonical runtime data, as brokers of this version compute it: the empty `additional-evidence` is
/// part of it.
#[must_use]
#[expect(clippy::expect_used, reason = "a map of strings always serializes")]
pub fn runtime_data_digest(nonce: &str, key: &Jwk) -> Sha384Digest {
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct Hashed<'a> {
        additional_evidence: &'static str,
        nonce: &'a str,
        tee_pubkey: &'a Jwk,
    }
    let hashed = Hashed {
        additional_evidence: "",
        nonce,
        tee_pubkey: key,
    };
    Sha384Digest::of(&serde_json_canonicalizer::to_vec(&hashed).expect("runtime data serializes"))
}

/// What stands for us elsewhere: a JWT, of which nothing is read here.
#[derive(Deserialize)]
struct Passport {
    token: String,
}

/// A session that has been challenged.
pub(crate) struct Challenged {
    pub(crate) nonce: String,
    pub(crate) cookie: String,
}

pub(crate) async fn authenticate(connection: &mut Connection) -> Result<Challenged, Failure> {
    let request = Request {
        version: PROTOCOL_VERSION,
        tee: TEE,
        extra_params: serde_json::Map::new(),
    };
    let answer = connection
        .post("/kbs/v0/auth", Proof::None, &request)
        .await?;
    let cookie = session_cookie(&answer).ok_or(Failure::malformed("session cookie"))?;
    let Ok(Challenge { nonce }) = serde_json::from_slice(&answer.body) else {
        return Err(Failure::malformed("challenge"));
    };
    if !NONCE_LENGTHS.contains(&nonce.len()) {
        return Err(Failure::malformed("length of the challenge's nonce"));
    }
    Ok(Challenged { nonce, cookie })
}

/// Attests in our session, which then counts by itself. The token in the answer is for others to read.
pub(crate) async fn attest(
    connection: &mut Connection,
    session: &Challenged,
    key: &TeeKey,
    evidence: NitroEvidence,
) -> Result<(), Failure> {
    prove("/kbs/v0/attest", connection, session, key, evidence).await?;
    Ok(())
}

/// Has a token made about us: what the evidence said, and whose key it is.
pub(crate) async fn token(
    connection: &mut Connection,
    session: &Challenged,
    key: &TeeKey,
    evidence: NitroEvidence,
) -> Result<String, Failure> {
    let answer = prove("/kbs/v0/token", connection, session, key, evidence).await?;
    let Ok(Passport { token }) = serde_json::from_slice(&answer.body) else {
        return Err(Failure::malformed("token"));
    };
    // It goes into a header of a request to somebody else.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(plain) {
        return Err(Failure::malformed("token"));
    }
    Ok(token)
}

async fn prove(
    path: &str,
    connection: &mut Connection,
    session: &Challenged,
    key: &TeeKey,
    evidence: NitroEvidence,
) -> Result<Answer, Failure> {
    let attestation = Attestation {
        init_data: None,
        runtime_data: RuntimeData {
            nonce: &session.nonce,
            tee_pubkey: key.jwk(),
        },
        tee_evidence: TeeEvidence {
            primary_evidence: evidence,
            additional_evidence: "",
        },
    };
    let proof = Proof::Cookie(&session.cookie);
    connection.post(path, proof, &attestation).await
}

pub(crate) async fn resource(
    connection: &mut Connection,
    proof: Proof<'_>,
    key: &TeeKey,
    key_id: &str,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let path = format!("/kbs/v0/resource/{key_id}");
    let answer = connection.get(&path, proof).await?;
    jwe::open(&answer.body, key).map_err(|error| {
        tracing::warn!(%error, "the broker's jwe was not opened");
        Failure::malformed("jwe")
    })
}

/// Resource paths are `<repository>/<type>/<tag>`, each of letters, digits, `_`, `-` and, not first, `.`.
pub(crate) fn check_key_id(key_id: &str) -> Result<(), Error> {
    let segment = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    let segments = key_id.split('/');
    if key_id.len() > MAX_KEY_ID
        || segments.clone().count() != 3
        || !segments.into_iter().all(segment)
    {
        return Err(Error::Request(
            "a key identifier is <repository>/<type>/<tag>",
        ));
    }
    Ok(())
}

/// `name=value` of the session cookie, without its attributes.
fn session_cookie(answer: &Answer) -> Option<String> {
    let pair = answer.cookies.iter().find_map(|cookie| {
        let pair = cookie.split(';').next()?.trim();
        pair.starts_with(COOKIE).then_some(pair)
    })?;
    let value = pair.strip_prefix(COOKIE)?;
    let plain = !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    (plain && value.len() <= MAX_COOKIE).then(|| pair.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nonce is base64 of 00..1f, the key the base point of P-256.
    #[test]
    fn the_digest_is_the_one_a_stock_broker_computes() {
        let key = Jwk::Ec {
            alg: "ECDH-ES+A256KW",
            crv: "P-256",
            x: "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY".to_owned(),
            y: "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU".to_owned(),
        };
        assert_eq!(
            runtime_data_digest("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", &key).to_string(),
            "9edc01b09e997f6578d6bd8f7fc2b28dfaaf4e5417793667b7ece025d50c7cf5b9b0f7d2bbbcebe25d2f53bd33807ce3"
        );
    }

    #[test]
    fn canonical_json_sorts_members() {
        let value = serde_json::json!({"b": 1, "a": "test", "c": {"d": "e"}});
        let digest = Sha384Digest::of(&serde_json_canonicalizer::to_vec(&value).unwrap());
        assert_eq!(
            digest.to_string(),
            "e71ce8e70d814ba6639c3612ebee0ff1f76f650f8dbb5e47157e0f3f525cd22c4597480a186427c813ca941da78870c3"
        );
    }

    #[test]
    fn a_key_identifier_that_could_leave_its_place_is_refused() {
        for key_id in [
            "", "a/b", "a/b/c/d", "a//c", "../b/c", "a/.b/c", "a/b/c?x", "a/b/%2e", "a/b/c d",
        ] {
            assert!(check_key_id(key_id).is_err(), "{key_id}");
        }
        assert!(check_key_id("models/cloister-demo/epoch-1").is_ok());
        assert!(check_key_id("models/a.b_c/epoch-12").is_ok());
    }

    #[test]
    fn only_a_plain_session_cookie_is_sent_back() {
        let cookie = |text: &str| {
            session_cookie(&Answer {
                cookies: vec![text.to_owned()],
                body: bytes::Bytes::new(),
            })
        };
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(
            cookie(&format!(
                "kbs-session-id={id}; Expires=Fri, 20 Nov 2026 10:39:37 GMT"
            )),
            Some(format!("kbs-session-id={id}"))
        );
        for bad in [
            "",
            "other=1",
            "kbs-session-id=",
            "kbs-session-id=a b",
            "kbs-session-id=a\r\nx: y",
        ] {
            assert_eq!(cookie(bad), None, "{bad}");
        }
    }
}
