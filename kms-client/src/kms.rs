use std::collections::BTreeMap;
use std::sync::Arc;

use attestation::{AttestationRequest, Attester};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use transport::Endpoint;
use zeroize::{Zeroize as _, Zeroizing};

use crate::Now;
use crate::arn::KeyArn;
use crate::credentials::CredentialSource;
use crate::envelope::MAX_ENVELOPE;
use crate::error::{Error, Failure, Unavailable};
use crate::recipient::RecipientKey;
use crate::tls::Roots;
use crate::wrapped::{EncryptionContext, MAX_CIPHERTEXT};
use crate::{http as wire, refusal, retry, sigv4};

/// Two blobs of 6144 bytes in base64, an ARN, a few names.
const MAX_ANSWER: usize = 32 * 1024;
const JSON: &str = "application/x-amz-json-1.1";

/// How the service is reached.
pub struct KmsConfig {
    /// What is dialled: on the way the host passes bytes on.
    pub endpoint: Endpoint,
    /// Under which the service's certificate must be.
    pub roots: Roots,
    /// Who asks.
    pub credentials: CredentialSource,
}

/// AWS KMS in the region of the key that is asked for.
pub struct Kms {
    config: KmsConfig,
    tls: Arc<ClientConfig>,
    now: Now,
}

/// A secret that came out of KMS. Believe it only when something authenticated opens under it: its envelope authenticates nobody.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypt<'a> {
    key_id: &'a str,
    ciphertext_blob: String,
    encryption_context: &'a BTreeMap<String, String>,
    encryption_algorithm: &'static str,
    recipient: Recipient,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GenerateDataKey<'a> {
    key_id: &'a str,
    key_spec: &'static str,
    encryption_context: &'a BTreeMap<String, String>,
    recipient: Recipient,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypt<'a> {
    key_id: &'a str,
    plaintext: &'a str,
    encryption_context: &'a BTreeMap<String, String>,
    encryption_algorithm: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Recipient {
    key_encryption_algorithm: &'static str,
    attestation_document: String,
}

/// The members of any answer; the service may add some.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    key_id: String,
    plaintext: Option<String>,
    encryption_algorithm: Option<String>,
    ciphertext_for_recipient: Option<String>,
    ciphertext_blob: Option<String>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        // It should not be there, and if it is, it is a key.
        self.plaintext.zeroize();
    }
}

const SYMMETRIC_DEFAULT: &str = "SYMMETRIC_DEFAULT";

impl Kms {
    /// # Errors
    /// The TLS library refused its own settings.
    pub fn new(config: KmsConfig, now: Now) -> Result<Self, Error> {
        match config.roots.client_config(Arc::clone(&now)) {
            Ok(tls) => Ok(Self { config, tls, now }),
            Err(_) => Err(Error::Setup("the TLS configuration for KMS cannot be made")),
        }
    }

    /// Has KMS decrypt `ciphertext` with `key` to a key that is made for this request and attested by `attester`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn decrypt(
        &self,
        attester: &Arc<dyn Attester>,
        key: &KeyArn,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Secret, Error> {
        if !(1..=MAX_CIPHERTEXT).contains(&ciphertext.len()) {
            return Err(Error::Setup("a wrapped key has 1 to 6144 bytes"));
        }
        retry::with_backoff(|| async {
            let (own, recipient) = recipient(attester).await?;
            let request = Decrypt {
                key_id: key.as_str(),
                ciphertext_blob: STANDARD.encode(ciphertext),
                encryption_context: context.pairs(),
                encryption_algorithm: SYMMETRIC_DEFAULT,
                recipient,
            };
            let answer = self.call(key, "Decrypt", &request).await?;
            if answer.encryption_algorithm.as_deref() != Some(SYMMETRIC_DEFAULT) {
                return Err(Failure::malformed("EncryptionAlgorithm"));
            }
            open(&own, &answer)
        })
        .await
    }

    /// Has KMS make a 32-byte data key: in the envelope for us, and wrapped under `key` to be kept.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn generate_data_key(
        &self,
        attester: &Arc<dyn Attester>,
        key: &KeyArn,
        context: &EncryptionContext,
    ) -> Result<(Secret, Vec<u8>), Error> {
        retry::with_backoff(|| async {
            let (own, recipient) = recipient(attester).await?;
            let request = GenerateDataKey {
                key_id: key.as_str(),
                key_spec: "AES_256",
                encryption_context: context.pairs(),
                recipient,
            };
            let answer = self.call(key, "GenerateDataKey", &request).await?;
            let secret = open(&own, &answer)?;
            if secret.expose().len() != 32 {
                return Err(Failure::malformed("length of the data key"));
            }
            Ok((secret, ciphertext_blob(&answer)?))
        })
        .await
    }

    /// Has KMS encrypt `plaintext`, at most 4096 bytes, under `key`. What the owner of a model does; no evidence is involved.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn encrypt(
        &self,
        key: &KeyArn,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, Error> {
        let plaintext = Zeroizing::new(STANDARD.encode(plaintext));
        let request = Encrypt {
            key_id: key.as_str(),
            plaintext: plaintext.as_str(),
            encryption_context: context.pairs(),
            encryption_algorithm: SYMMETRIC_DEFAULT,
        };
        retry::with_backoff(|| async {
            let answer = self.call(key, "Encrypt", &request).await?;
            ciphertext_blob(&answer)
        })
        .await
    }

    async fn call(
        &self,
        key: &KeyArn,
        operation: &'static str,
        request: &impl Serialize,
    ) -> Result<Answer, Failure> {
        let Ok(body) = serde_json::to_vec(request) else {
            return Err(Error::Setup("the request cannot be written").into());
        };
        let host = key.host();
        let Ok(name) = ServerName::try_from(host.clone()) else {
            return Err(Error::Setup("the key's region makes no host name").into());
        };
        let credentials = self.config.credentials.get((self.now)()).await?;
        let date = sigv4::amz_date((self.now)());
        let target = format!("TrentService.{operation}");
        let mut headers = vec![
            ("content-type", JSON),
            ("host", host.as_str()),
            ("x-amz-date", date.as_str()),
        ];
        if let Some(token) = credentials.session_token() {
            headers.push(("x-amz-security-token", token));
        }
        headers.push(("x-amz-target", target.as_str()));
        let authorization =
            sigv4::authorization(&credentials, key.region(), &date, &headers, &body);
        let Some(request) = signed(&headers, &authorization, body.into()) else {
            return Err(Error::Setup("the request cannot be written").into());
        };
        let tls = Arc::clone(&self.tls);
        let (status, body) =
            wire::send(&self.config.endpoint, tls, name, request, MAX_ANSWER).await?;
        // Its plaintext member, should there be one, is wiped with the answer; this copy is the connection's.
        if status != StatusCode::OK {
            let refusal = refusal::read(status, &body);
            if let Failure::Again(Unavailable::CredentialsRefused(_)) = refusal {
                self.config.credentials.forget().await;
            }
            return Err(refusal);
        }
        let Ok(answer) = serde_json::from_slice::<Answer>(&body) else {
            return Err(Failure::malformed("not the JSON of an answer"));
        };
        if answer.key_id != key.as_str() {
            return Err(Error::AnotherKey {
                expected: key.clone(),
            }
            .into());
        }
        Ok(answer)
    }
}

/// A key for one answer, and the document that names it. The secure module's calls block, and so does making the key.
async fn recipient(attester: &Arc<dyn Attester>) -> Result<(RecipientKey, Recipient), Failure> {
    let attester = Arc::clone(attester);
    let made = tokio::task::spawn_blocking(move || {
        let Ok(key) = RecipientKey::generate() else {
            return Err(Error::Setup("no recipient key could be made"));
        };
        // KMS gives no challenge and looks at the public key alone. The user data is no binding of any purpose, so that the
        // document proves nothing to anybody else.
        let evidence = attester.attest(&AttestationRequest {
            user_data: b"kms key release",
            nonce: b"kms",
            public_key: key.spki_der(),
        })?;
        let recipient = Recipient {
            key_encryption_algorithm: "RSAES_OAEP_SHA_256",
            attestation_document: STANDARD.encode(evidence.as_bytes()),
        };
        Ok((key, recipient))
    });
    match made.await {
        Ok(made) => made.map_err(Failure::Final),
        Err(_) => Err(Error::Setup("the attester stopped").into()),
    }
}

fn signed(
    headers: &[(&str, &str)],
    authorization: &str,
    body: Bytes,
) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    let to = request.headers_mut();
    for (name, value) in headers {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(*name == "x-amz-security-token");
        let name = match *name {
            "content-type" => CONTENT_TYPE,
            "host" => HOST,
            other => HeaderName::from_bytes(other.as_bytes()).ok()?,
        };
        to.insert(name, value);
    }
    let mut value = HeaderValue::from_str(authorization).ok()?;
    value.set_sensitive(true);
    to.insert(AUTHORIZATION, value);
    Some(request)
}

fn open(own: &RecipientKey, answer: &Answer) -> Result<Secret, Failure> {
    if answer
        .plaintext
        .as_ref()
        .is_some_and(|text| !text.is_empty())
    {
        return Err(Error::PlaintextReturned.into());
    }
    let envelope = blob(
        answer.ciphertext_for_recipient.as_deref(),
        MAX_ENVELOPE,
        "CiphertextForRecipient",
    )?;
    own.open(&envelope)
        .map(Secret)
        .map_err(|error| Error::Envelope(error).into())
}

fn ciphertext_blob(answer: &Answer) -> Result<Vec<u8>, Failure> {
    blob(
        answer.ciphertext_blob.as_deref(),
        MAX_CIPHERTEXT,
        "CiphertextBlob",
    )
}

fn blob(text: Option<&str>, max: usize, what: &'static str) -> Result<Vec<u8>, Failure> {
    match text.map(|text| STANDARD.decode(text)) {
        Some(Ok(bytes)) if (1..=max).contains(&bytes.len()) => Ok(bytes),
        _ => Err(Failure::malformed(what)),
    }
}
