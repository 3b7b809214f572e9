//! The router as a caller meets it, without TLS below and without a model behind.

use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

use attestation::{
    AttestError, AttestationRequest, Binding, Evidence, Nonce, Pcr, Pcrs, SessionSubject, Subject,
};
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use identity::Leaf;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::models::Models;

/// If any of this comes back in an error, a prompt would.
const CANARY: &str = "zebra-canary-7431";

/// User data, nonce, public key.
type Asked = (Vec<u8>, Vec<u8>, Vec<u8>);

/// Remembers what it was asked to sign.
#[derive(Default)]
struct Recorder {
    asked: Mutex<Vec<Asked>>,
    broken: bool,
}

impl Attester for Recorder {
    fn attest(&self, request: &AttestationRequest<'_>) -> Result<Evidence, AttestError> {
        if self.broken {
            return Err(AttestError::UnexpectedAnswer {
                operation: "attestation",
            });
        }
        let asked = (
            request.user_data.to_vec(),
            request.nonce.to_vec(),
            request.public_key.to_vec(),
        );
        self.asked.lock().unwrap().push(asked);
        Ok(Evidence::from_bytes(vec![0xd2; 64]).unwrap())
    }

    fn measurements(&self) -> Result<Pcrs, AttestError> {
        Err(AttestError::UnexpectedAnswer {
            operation: "measurements",
        })
    }

    fn extend_and_lock(&self, index: u8, _data: &[u8]) -> Result<Pcr, AttestError> {
        Err(AttestError::NoSuchRegister { index })
    }

    fn random(&self, _out: &mut [u8]) -> Result<(), AttestError> {
        Err(AttestError::UnexpectedAnswer {
            operation: "random",
        })
    }
}

fn leaf(path: &str, seed: u8) -> Leaf {
    Leaf {
        id: SpiffeId::new(format!("spiffe://cloister.dev{path}")).unwrap(),
        serial: format!("{seed:02x}"),
        not_before: UNIX_EPOCH,
        not_after: UNIX_EPOCH + Duration::from_secs(3600),
        spki_der: vec![seed; 91],
        sha256: [seed; 32],
    }
}

struct Setup {
    router: Router,
    connection: Arc<Connection>,
    app: Arc<App>,
    attester: Arc<Recorder>,
}

fn setup(policy: &str, limits: Limits, attester: Recorder) -> Setup {
    let attester = Arc::new(attester);
    let app = Arc::new(App {
        spiffe_id: leaf("/enclave", 1).id,
        config_digest: Sha256Digest::of(b"config"),
        boot_id: BootId::from([7; 16]),
        authorization: Authorization::new(policy).unwrap(),
        attester: Arc::<Recorder>::clone(&attester),
        evidence_slots: Arc::new(Semaphore::new(limits.evidence_in_flight)),
        bodies: Budget::mebibytes(limits.body_memory_mib),
        answers: Budget::mebibytes(limits.body_memory_mib),
        rate: Rate::new(limits.requests_per_minute, limits.burst, limits.max_callers),
        metrics: Arc::new(Metrics::new().unwrap()),
        limits,
        now: Arc::new(|| UNIX_EPOCH + Duration::from_secs(60)),
    });
    let connection = Arc::new(Connection {
        exporter: [5; 32],
        caller: leaf("/app", 2),
        own: Arc::new(leaf("/enclave", 1)),
        models: Models::new(Vec::new()).current(),
        attesting: Semaphore::new(1),
    });
    Setup {
        router: router(Arc::clone(&app)),
        connection,
        app,
        attester,
    }
}

fn open() -> Setup {
    setup(
        "permit(principal, action, resource);",
        Limits::default(),
        Recorder::default(),
    )
}

struct Reply {
    status: u16,
    headers: http::HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Setup {
    async fn send(&self, request: Request<Body>) -> Reply {
        let (mut head, body) = request.into_parts();
        head.extensions.insert(Arc::clone(&self.connection));
        let response = self
            .router
            .clone()
            .oneshot(Request::from_parts(head, body))
            .await
            .unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Reply {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(body.into());
        self.send(request.unwrap()).await
    }
}

#[tokio::test]
async fn evidence_commits_to_this_connection_and_to_nothing_the_caller_chose_but_the_nonce() {
    let setup = open();
    let nonce = Nonce::random();
    let body =
        json!({"nonce": nonce.to_base64url(), "exporter": CANARY, "spiffe_id": CANARY}).to_string();
    let reply = setup.post("/v1/attestation", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let answer = reply.json();
    assert_eq!(
        answer["config_digest"],
        Sha256Digest::of(b"config").to_string()
    );
    assert_eq!(answer["boot_id"], "07".repeat(16));
    assert_eq!(answer["models"], json!([]));

    let expected = Binding {
        config_digest: Sha256Digest::of(b"config"),
        boot_id: BootId::from([7; 16]),
        subject: Subject::Session(SessionSubject {
            tls_spki_sha256: Sha256Digest::of(&[1; 91]),
            exporter: [5; 32],
            peer_leaf_sha256: [2; 32].into(),
            spiffe_id: "spiffe://cloister.dev/enclave".to_owned(),
            svid_serial: "01".to_owned(),
            models: Vec::new(),
        }),
    };
    let asked = setup.attester.asked.lock().unwrap().pop().unwrap();
    assert_eq!(
        asked,
        (
            expected.user_data().to_vec(),
            nonce.as_bytes().to_vec(),
            vec![1; 91]
        )
    );
}

#[tokio::test]
async fn a_nonce_of_another_size_is_refused() {
    let setup = open();
    for nonce in [
        "",
        "AAAA",
        &"A".repeat(44),
        &"!".repeat(43),
        &format!("{}=", "A".repeat(43)),
    ] {
        let reply = setup
            .post("/v1/attestation", json!({"nonce": nonce}).to_string())
            .await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "invalid_value"),
            "{nonce}"
        );
    }
    let reply = setup.post("/v1/attestation", "{}").await;
    assert_eq!(reply.code(), "missing_required_parameter");
    assert!(setup.attester.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn evidence_is_made_one_at_a_time_per_connection_and_a_few_at_a_time_for_all() {
    let setup = open();
    let body = json!({"nonce": Nonce::random().to_base64url()}).to_string();
    let mine = setup.connection.attesting.try_acquire().unwrap();
    let reply = setup.post("/v1/attestation", body.clone()).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (429, "evidence_in_flight")
    );
    assert_eq!(reply.headers["retry-after"], "1");
    drop(mine);
    let all = Arc::clone(&setup.app.evidence_slots)
        .try_acquire_many_owned(4)
        .unwrap();
    let reply = setup.post("/v1/attestation", body.clone()).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "overloaded"));
    assert!(reply.headers.contains_key("retry-after"));
    let in_a_moment = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(all);
    };
    let waiting = setup.post("/v1/attestation", body);
    assert_eq!(tokio::join!(waiting, in_a_moment).0.status, 200);
}

#[tokio::test]
async fn a_platform_that_gives_no_evidence_is_a_503() {
    let broken = Recorder {
        broken: true,
        ..Recorder::default()
    };
    let setup = setup(
        "permit(principal, action, resource);",
        Limits::default(),
        broken,
    );
    let body = json!({"nonce": Nonce::random().to_base64url()}).to_string();
    let reply = setup.post("/v1/attestation", body).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (503, "evidence_unavailable")
    );
}

#[tokio::test]
async fn a_caller_without_a_permit_gets_no_evidence() {
    let policy = r#"permit(principal, action == Action::"chat", resource);"#;
    let setup = setup(policy, Limits::default(), Recorder::default());
    let reply = setup
        .post("/v1/attestation", json!({"nonce": CANARY}).to_string())
        .await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (403, "not_permitted")
    );
    assert_eq!(reply.json()["error"]["type"], "permission_error");
    assert!(setup.attester.asked.lock().unwrap().is_empty());
    assert!(
        setup
            .app
            .metrics
            .render()
            .contains(r#"cloister_denied_total{action="attest"} 1"#)
    );
}

#[tokio::test]
async fn no_error_repeats_what_the_caller_sent() {
    let setup = open();
    let bodies = [
        CANARY.to_owned(),
        format!("\"{CANARY}\""),
        format!("[\"{CANARY}\"]"),
        format!("{{\"{CANARY}\": }}"),
        format!("{{\"messages\": \"{CANARY}\"}}"),
        format!("{{\"messages\": [\"{CANARY}\"]}}"),
        format!(
            "{{\"messages\": [{{\"role\": \"{CANARY}\", \"content\": \"{CANARY}\"}}], \"model\": \"m\"}}"
        ),
        format!("{{\"messages\": [{{\"role\": \"user\", \"content\": {{\"{CANARY}\": 1}}}}]}}"),
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{CANARY}\"}}], \"model\": \"{CANARY}\"}}"
        ),
        format!("{{\"temperature\": \"{CANARY}\"}}"),
        format!("{{\"max_tokens\": \"{CANARY}\"}}"),
        format!("{{\"stop\": {{\"{CANARY}\": 1}}}}"),
        format!("{{\"tools\": [\"{CANARY}\"], \"model\": \"m\"}}"),
        format!("{{\"input\": {{\"{CANARY}\": 1}}}}"),
        format!("{{\"input\": \"{CANARY}\", \"model\": \"{CANARY}\"}}"),
        format!("{{\"input\": \"{CANARY}\", \"model\": \"m\", \"encoding_format\": \"{CANARY}\"}}"),
        format!("{{\"query\": \"{CANARY}\", \"documents\": [{{\"{CANARY}\": 1}}]}}"),
        format!(
            "{{\"query\": \"{CANARY}\", \"documents\": [\"{CANARY}\"], \"model\": \"{CANARY}\"}}"
        ),
        format!("{{\"nonce\": \"{CANARY}\"}}"),
        format!("{{\"nonce\": [\"{CANARY}\"]}}"),
        format!("{{}}{CANARY}"),
    ];
    let paths = [
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/attestation",
    ];
    for path in paths {
        for body in &bodies {
            let reply = setup.post(path, body.clone()).await;
            assert!(
                (400..500).contains(&reply.status),
                "{path} {body}: {}",
                reply.status
            );
            assert!(
                reply.json()["error"]["message"].is_string(),
                "{path} {body}"
            );
            let everything = format!("{} {:?}", reply.text, reply.headers);
            assert!(!everything.contains(CANARY), "{path} {body}: {everything}");
        }
    }
    let path = format!("/v1/models/{CANARY}");
    let reply = setup
        .send(Request::get(path).body(Body::empty()).unwrap())
        .await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (404, "model_not_found")
    );
    assert!(!reply.text.contains(CANARY));
    assert!(!setup.app.metrics.render().contains(CANARY));
}

#[tokio::test]
async fn every_refusal_has_its_status_and_an_openai_body() {
    let setup = open();
    let json = "application/json";
    let long = "x".repeat(2 * 1024 * 1024);
    let chat = r#"{"model":"none","messages":[{"role":"user","content":"hi"}]}"#;
    let cases = [
        (Method::GET, "/nowhere", json, "", 404, "unknown_url"),
        (Method::GET, "/", json, "", 404, "unknown_url"),
        (
            Method::POST,
            "/v1/responses",
            json,
            "{}",
            404,
            "unknown_url",
        ),
        (
            Method::GET,
            "/v1/chat/completions",
            json,
            "",
            405,
            "method_not_allowed",
        ),
        (
            Method::DELETE,
            "/v1/attestation",
            json,
            "",
            405,
            "method_not_allowed",
        ),
        (
            Method::POST,
            "/v1/models",
            json,
            "{}",
            405,
            "method_not_allowed",
        ),
        (
            Method::POST,
            "/v1/chat/completions",
            "text/plain",
            chat,
            415,
            "unsupported_media_type",
        ),
        (
            Method::POST,
            "/v1/chat/completions",
            "",
            chat,
            415,
            "unsupported_media_type",
        ),
        (
            Method::POST,
            "/v1/chat/completions",
            json,
            &long,
            413,
            "request_too_large",
        ),
        (
            Method::POST,
            "/v1/attestation",
            json,
            &long,
            413,
            "request_too_large",
        ),
        (
            Method::POST,
            "/v1/chat/completions",
            json,
            "",
            400,
            "invalid_json",
        ),
        (
            Method::POST,
            "/v1/chat/completions",
            json,
            "{}",
            400,
            "missing_required_parameter",
        ),
        (
            Method::POST,
            "/v1/chat/completions",
            json,
            chat,
            404,
            "model_not_found",
        ),
        (
            Method::POST,
            "/v1/embeddings",
            json,
            r#"{"model":"none","input":"hi"}"#,
            404,
            "model_not_found",
        ),
        (
            Method::POST,
            "/v1/rerank",
            json,
            r#"{"model":"none","query":"hi","documents":["a"]}"#,
            404,
            "model_not_found",
        ),
    ];
    for (method, path, media_type, body, status, code) in cases {
        let mut request = Request::builder().method(method.clone()).uri(path);
        if !media_type.is_empty() {
            request = request.header("content-type", media_type);
        }
        let reply = setup
            .send(request.body(Body::from(body.to_owned())).unwrap())
            .await;
        let at = format!("{method} {path} {media_type}");
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{at}"
        );
        assert_eq!(
            reply.json()["error"]["type"],
            "invalid_request_error",
            "{at}"
        );
        assert!(
            reply.headers["x-request-id"]
                .to_str()
                .unwrap()
                .starts_with("req_"),
            "{at}"
        );
        assert!(
            reply.headers.contains_key("x-ratelimit-remaining-requests"),
            "{at}"
        );
        assert_eq!(reply.headers.contains_key("allow"), status == 405, "{at}");
    }
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    let setup = open();
    let request = Request::post("/v1/embeddings")
        .header("content-type", "application/json; charset=utf-8")
        .header("content-encoding", "gzip")
        .body(Body::from("x"));
    assert_eq!(setup.send(request.unwrap()).await.status, 415);
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_off_at_the_limit_and_at_its_time() {
    let limits = Limits {
        max_body_bytes: 20_000,
        body_timeout_s: 1,
        ..Limits::default()
    };
    let setup = setup(
        "permit(principal, action, resource);",
        limits,
        Recorder::default(),
    );
    let chunk = || Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 1000]));
    let endless = futures_util::stream::repeat_with(chunk);
    let reply = setup
        .post("/v1/embeddings", Body::from_stream(endless))
        .await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (413, "request_too_large")
    );
    let silent = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
    let reply = setup
        .post("/v1/embeddings", Body::from_stream(silent))
        .await;
    assert_eq!((reply.status, reply.code().as_str()), (408, "timeout"));
}

#[tokio::test]
async fn a_caller_that_asks_too_often_is_told_when_to_come_back() {
    let limits = Limits {
        requests_per_minute: 1,
        burst: 2,
        ..Limits::default()
    };
    let setup = setup(
        "permit(principal, action, resource);",
        limits,
        Recorder::default(),
    );
    let get = || Request::get("/v1/models").body(Body::empty()).unwrap();
    assert_eq!(setup.send(get()).await.status, 200);
    assert_eq!(
        setup.send(get()).await.headers["x-ratelimit-remaining-requests"],
        "0"
    );
    let reply = setup.send(get()).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (429, "rate_limit_exceeded")
    );
    let seconds: u64 = reply.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(reply.headers["x-ratelimit-limit-requests"], "2");
}

#[tokio::test]
async fn labels_are_fixed_words() {
    let setup = open();
    setup
        .send(
            Request::get(format!("/v1/{CANARY}"))
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    let text = setup.app.metrics.render();
    assert!(
        text.contains(r#"cloister_requests_total{route="unknown",status="404"} 1"#),
        "{text}"
    );
}

#[test]
fn status_codes_of_the_engine_are_told_apart() {
    use engine::EngineError;
    let cases = [
        (EngineError::Overloaded, 429, Some("overloaded"), None),
        (
            EngineError::ContextLength {
                limit: 10,
                requested: 20,
            },
            400,
            Some("context_length_exceeded"),
            Some("messages"),
        ),
        (
            EngineError::TextTooLong { limit: 10 },
            400,
            Some("context_length_exceeded"),
            Some("messages"),
        ),
        (
            EngineError::TooManyInputs {
                limit: 1,
                requested: 2,
            },
            400,
            Some("invalid_value"),
            Some("messages"),
        ),
        (
            EngineError::WrongKind,
            400,
            Some("invalid_value"),
            Some("model"),
        ),
        (
            EngineError::Template,
            400,
            Some("invalid_value"),
            Some("messages"),
        ),
        (
            EngineError::Invalid("too long"),
            400,
            Some("invalid_value"),
            Some("messages"),
        ),
        (EngineError::Stopped, 503, Some("shutting_down"), None),
        (EngineError::Internal, 500, Some("internal_error"), None),
    ];
    for (error, status, code, param) in cases {
        assert_eq!(
            ApiError::engine(&error, "messages").named(),
            (status, code, param),
            "{error}"
        );
    }
    let overloaded = ApiError::engine(&EngineError::Overloaded, "messages").into_response();
    assert_eq!(overloaded.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(overloaded.headers()["retry-after"], "1");
}

#[tokio::test]
async fn bodies_of_all_callers_share_one_bounded_memory() {
    let limits = Limits {
        max_body_bytes: 2 * 1024 * 1024,
        body_memory_mib: 1,
        ..Limits::default()
    };
    let setup = setup(
        "permit(principal, action, resource);",
        limits,
        Recorder::default(),
    );
    let large = format!(
        "{{\"model\": \"m\", \"input\": \"{}\"}}",
        "x".repeat(1_500_000)
    );
    let reply = setup.post("/v1/embeddings", large).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "overloaded"));
    // It was given back.
    let small = json!({"model": "m", "input": "x".repeat(200_000)}).to_string();
    for _ in 0..10 {
        let reply = setup.post("/v1/embeddings", small.clone()).await;
        assert_eq!(reply.code(), "model_not_found");
    }
}
