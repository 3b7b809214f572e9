//! A peer that can do each step of the protocol wrong, one at a time.

use attestation::{AttestationRequest, Binding, BootId, Evidence, Sha256Digest, Subject};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use identity::{Accept, Clock, SpiffeId};
use kbs_client::{Jwk, TeeKey, runtime_data_digest};
use serde_json::{Value, json};
use sim::nsm::{DocumentBuilder, SimNsm};
use tokio_rustls::TlsConnector;

use crate::broker::{BROKER_ID, Broker};

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}: {:?}", self.status, self.body))
    }

    pub fn ok(self) -> Self {
        assert_eq!(self.status, StatusCode::OK, "{:?}", self.body);
        self
    }

    /// The last segment of the error's type.
    pub fn kind(&self) -> String {
        let error = self.json();
        let base = "https://github.com/confidential-containers/kbs/errors/";
        let kind = error["type"].as_str().unwrap().strip_prefix(base).unwrap();
        assert!(error["detail"].is_string());
        assert!(!self.headers.contains_key("content-type"));
        kind.to_owned()
    }
}

impl Broker {
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let tls = identity::client_config_at(
            Clock::from_fn(self.clock()),
            None,
            self.bundles().into_handle(),
            Accept::Ids(vec![SpiffeId::new(BROKER_ID).unwrap()]),
            &[b"http/1.1"],
        )
        .unwrap();
        let stream = self.listen.connect().await.unwrap();
        let stream = TlsConnector::from(tls)
            .connect(identity::server_name(), stream)
            .await
            .unwrap();
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let driver = tokio::spawn(driver);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "kbs");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        driver.abort();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.send(Method::POST, path, headers, body.to_string())
            .await
    }

    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, Bytes::new()).await
    }

    pub async fn resource(&self, key_id: &str, headers: &[(&str, &str)]) -> Answer {
        self.get(&format!("/kbs/v0/resource/{key_id}"), headers)
            .await
    }

    /// A refusal with this type, and the same as the newest entry of the release log.
    pub fn assert_refused(&self, answer: &Answer, kind: &str) {
        assert_eq!(answer.kind(), kind);
        let expected = match kind {
            "PluginNotFound" | "InvalidRequestPath" => StatusCode::NOT_FOUND,
            _ => StatusCode::UNAUTHORIZED,
        };
        assert_eq!(answer.status, expected);
        let entry = self.last_entry();
        assert_eq!(entry.outcome, "refused");
        assert_eq!(entry.error_type.as_deref(), Some(kind));
        assert!(
            !self
                .outcomes()
                .iter()
                .any(|outcome| outcome == "released" || outcome == "issued")
        );
    }
}

pub fn hello() -> Value {
    json!({"version": "0.4.0", "tee": "aws-nitro", "extra-params": {}})
}

/// One handshake, held between its steps.
pub struct Session {
    pub cookie: String,
    pub nonce: String,
}

impl Session {
    pub async fn open(broker: &Broker) -> Self {
        let answer = broker.post("/kbs/v0/auth", &[], &hello()).await.ok();
        assert_eq!(answer.json()["extra-params"], "");
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        Self {
            cookie: cookie.split(';').next().unwrap().to_owned(),
            nonce: answer.json()["nonce"].as_str().unwrap().to_owned(),
        }
    }

    pub fn headers(&self) -> [(&str, &str); 1] {
        [("cookie", &self.cookie)]
    }

    pub async fn attest(&self, broker: &Broker, body: &Value) -> Answer {
        broker.post("/kbs/v0/attest", &self.headers(), body).await
    }

    /// Everything right.
    pub fn right(&self, nsm: &SimNsm, key: &TeeKey) -> Attempt {
        Attempt::new(nsm, &self.nonce, key)
    }
}

pub fn config_digest() -> Sha256Digest {
    Sha256Digest::of(b"config")
}

pub const BOOT_ID: BootId = BootId::from_bytes([7; 16]);

/// An attestation's parts.
pub struct Attempt {
    pub nonce: String,
    pub jwk: Value,
    pub evidence: Value,
}

impl Attempt {
    pub fn new(nsm: &SimNsm, nonce: &str, key: &TeeKey) -> Self {
        Self::with(nsm, nonce, key, |_| {})
    }

    pub fn with(
        nsm: &SimNsm,
        nonce: &str,
        key: &TeeKey,
        spoil: impl FnOnce(&mut DocumentBuilder),
    ) -> Self {
        let subject = key_release(nonce, key.jwk());
        let document = document(nsm, nonce.as_bytes(), key.spki_der(), subject, spoil);
        Self {
            nonce: nonce.to_owned(),
            jwk: serde_json::to_value(key.jwk()).unwrap(),
            evidence: wire(&document),
        }
    }

    pub fn body(&self) -> Value {
        json!({
            "init-data": null,
            "runtime-data": {"nonce": self.nonce, "tee-pubkey": self.jwk},
            "tee-evidence": {"primary_evidence": self.evidence, "additional_evidence": ""},
        })
    }
}

pub fn key_release(nonce: &str, key: &Jwk) -> Subject {
    Subject::KeyRelease {
        runtime_data_sha384: runtime_data_digest(nonce, key),
    }
}

pub fn document(
    nsm: &SimNsm,
    nonce: &[u8],
    public_key: &[u8],
    subject: Subject,
    spoil: impl FnOnce(&mut DocumentBuilder),
) -> Evidence {
    let binding = Binding {
        config_digest: config_digest(),
        boot_id: BOOT_ID,
        subject,
    };
    let user_data = binding.user_data();
    let request = AttestationRequest {
        user_data: &user_data,
        nonce,
        public_key,
    };
    let (mut document, leaf) = nsm.document(&request).unwrap();
    spoil(&mut document);
    document.sign(&leaf).unwrap()
}

pub fn wire(document: &Evidence) -> Value {
    json!({
        "document": STANDARD.encode(document.as_bytes()),
        "config_digest": config_digest(),
        "boot_id": BOOT_ID,
    })
}
