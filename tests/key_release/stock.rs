//! The wire as a stock client sees it. `tests/stock_client.py` is its half, in code that is not ours.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use attestation::Subject;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::admin::{good, send};
use crate::broker::{Broker, KEY_ID, SECRET, pcrs};
use crate::peer::{Attempt, Session, document, hello, wire};

struct Client {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// `None`, said, where the Python peer is not installed.
    fn start() -> Option<Self> {
        let python = tests::root().join("target/tools/py/bin/python3");
        let there = Command::new(&python)
            .args(["-c", "import cryptography"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !there {
            tests::skip("cryptography for Python");
            return None;
        }
        let mut process = Command::new(python)
            .arg(tests::root().join("tests/stock_client.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Self {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
        })
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[tokio::test]
async fn a_client_that_is_not_ours_gets_its_key() {
    let broker = Broker::start().await;
    for algorithm in ["EC", "RSA"] {
        let Some(mut client) = Client::start() else {
            return;
        };
        let session = Session::open(&broker).await;
        let asked = json!({"algorithm": algorithm, "nonce": session.nonce});
        let made: Value = serde_json::from_str(&client.ask(&asked.to_string())).unwrap();
        let text = |name: &str| made[name].as_str().unwrap();
        let subject = Subject::KeyRelease {
            runtime_data_sha384: text("runtime_data_sha384").parse().unwrap(),
        };
        let spki = hex::decode(text("spki")).unwrap();
        let nonce = session.nonce.as_bytes();
        let made_document = document(&broker.nsm(pcrs()), nonce, &spki, subject, |_| {});
        let attempt = Attempt {
            nonce: session.nonce.clone(),
            jwk: made["jwk"].clone(),
            evidence: wire(&made_document),
        };
        session.attest(&broker, &attempt.body()).await.ok();
        let answer = broker.resource(KEY_ID, &session.headers()).await.ok();
        let jwe = String::from_utf8(answer.body.to_vec()).unwrap();
        assert_eq!(client.ask(&jwe), hex::encode(SECRET), "{algorithm}");
    }
}

#[tokio::test]
async fn challenge_and_cookie_have_the_stock_shape() {
    let broker = Broker::start().await;
    let answer = broker.post("/kbs/v0/auth", &[], &hello()).await.ok();
    let challenge = answer.json();
    let members: Vec<_> = challenge.as_object().unwrap().keys().collect();
    assert_eq!(members, ["nonce", "extra-params"]);
    assert_eq!(challenge["extra-params"], "");
    assert_eq!(challenge["nonce"].as_str().unwrap().len(), 44);
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    let [cookie] = cookies[..] else { panic!() };
    let (pair, attributes) = cookie.to_str().unwrap().split_once("; ").unwrap();
    let id = pair.strip_prefix("kbs-session-id=").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b"0123456789abcdef".contains(&b)));
    let until = attributes.strip_prefix("Expires=").unwrap();
    assert!(until.ends_with(" GMT") && !until.contains(';'), "{until}");
    // Whatever a stock client puts into extra-params steers nothing.
    let hashes = json!({"supported-hash-algorithms": ["sha256", "sha384", "sha512", "sm3"]});
    let hello = json!({"version": "0.4.0", "tee": "aws-nitro", "extra-params": hashes});
    broker.post("/kbs/v0/auth", &[], &hello).await.ok();
}

#[tokio::test]
async fn errors_have_the_stock_shape_and_say_little() {
    let broker = Broker::start().await;
    let admin = good(&broker);
    for (method, path, token, status, kind) in [
        (Method::POST, "auth", None, 401, "AttestationError"),
        (Method::POST, "attest", None, 401, "AttestationError"),
        (Method::POST, "token", None, 401, "AttestationError"),
        (Method::GET, "resource/a/b/c", None, 401, "TokenNotFound"),
        (
            Method::GET,
            "resource/a/b/c",
            Some("Bearer x"),
            401,
            "TokenVerifierError",
        ),
        (
            Method::POST,
            "resource/a/b/c",
            None,
            401,
            "AdminAuthInitialization",
        ),
        (
            Method::DELETE,
            "resource/a/b/c",
            None,
            401,
            "AdminAuthInitialization",
        ),
        (
            Method::DELETE,
            "resource/a/b/c",
            Some(admin.as_str()),
            401,
            "PluginInternalError",
        ),
        (
            Method::POST,
            "resource-policy",
            None,
            401,
            "AdminAuthAccess",
        ),
        (Method::GET, "resource-policy", None, 401, "AdminAuthAccess"),
        (
            Method::POST,
            "attestation-policy",
            None,
            401,
            "AdminAuthAccess",
        ),
        (
            Method::POST,
            "reference-value",
            None,
            401,
            "AdminAuthAccess",
        ),
        (
            Method::GET,
            "reference-value/a",
            None,
            401,
            "AdminAuthAccess",
        ),
        (
            Method::POST,
            "resource-policy",
            Some(admin.as_str()),
            401,
            "SerdeError",
        ),
        (
            Method::POST,
            "attestation-policy",
            Some(admin.as_str()),
            401,
            "SerdeError",
        ),
        (
            Method::POST,
            "reference-value",
            Some(admin.as_str()),
            401,
            "RvpsError",
        ),
        (Method::PUT, "auth", None, 404, "PluginNotFound"),
        (Method::GET, "external/a", None, 404, "PluginNotFound"),
        (Method::GET, "", None, 404, "InvalidRequestPath"),
    ] {
        let path = format!("/kbs/v0/{path}");
        let answer = send(&broker, method.clone(), &path, token, "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.kind(), kind, "{method} {path}");
        let error = answer.json();
        let members: Vec<_> = error.as_object().unwrap().keys().collect();
        assert_eq!(members, ["type", "detail"]);
        assert!(error["detail"].as_str().unwrap().len() < 100);
    }
    let answer = broker.get("/elsewhere", &[]).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.body.is_empty());
}
