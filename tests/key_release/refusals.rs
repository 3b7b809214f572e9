use std::sync::Arc;

use attestation::{Pcr, Sha256Digest, Subject};
use http::{Method, StatusCode};
use kbs_client::{Error, TeeKey};
use serde_json::{Value, json};
use sim::nsm::{SimNsm, SimPki};

use crate::broker::{BROKER_ID, Broker, KEY_ID, Setup, other_pcrs, pcrs};
use crate::peer::{Attempt, Session, document, hello, wire};

fn refused(outcome: Result<kbs_client::KeyBytes, Error>) -> String {
    match outcome {
        Err(Error::Refused { kind }) => kind,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("released"),
    }
}

#[tokio::test]
async fn a_wrong_measurement_is_denied_by_policy() {
    let broker = Broker::start().await;
    assert_eq!(
        refused(broker.client(other_pcrs()).data_key(KEY_ID).await),
        "PolicyDeny"
    );
    let entry = broker.last_entry();
    assert_eq!(
        (entry.outcome.as_str(), entry.path.as_str()),
        ("refused", KEY_ID)
    );
    assert_eq!(entry.error_type.as_deref(), Some("PolicyDeny"));
    assert_eq!(entry.pcr0, Some(other_pcrs()[&0].to_string()));
}

#[tokio::test]
async fn without_a_policy_everything_is_denied() {
    let broker = Broker::with(Setup {
        policy: None,
        ..Setup::default()
    })
    .await;
    assert_eq!(
        refused(broker.client(pcrs()).data_key(KEY_ID).await),
        "PolicyDeny"
    );
    assert_eq!(
        broker.last_entry().error_type.as_deref(),
        Some("PolicyDeny")
    );
}

#[tokio::test]
async fn a_policy_that_fails_denies() {
    let policy = "package policy\n\nallow := true\n\nallow := false\n".to_owned();
    let broker = Broker::with(Setup {
        policy: Some(policy),
        ..Setup::default()
    })
    .await;
    assert_eq!(
        refused(broker.client(pcrs()).data_key(KEY_ID).await),
        "PolicyEngineError"
    );
}

#[tokio::test]
async fn an_unknown_resource_is_no_reason_to_say_more() {
    let broker = Broker::start().await;
    let unknown = refused(broker.client(pcrs()).data_key("models/demo/epoch-2").await);
    assert_eq!(unknown, "PluginInternalError");
    assert_eq!(
        broker.last_entry().error_type.as_deref(),
        Some("PluginInternalError")
    );
    // The policy comes first: what it denies is denied whether it exists or not.
    let denied = refused(broker.client(pcrs()).data_key("other/demo/epoch-2").await);
    assert_eq!(denied, "PolicyDeny");
}

#[tokio::test]
async fn a_path_that_names_nothing_is_refused_after_the_policy() {
    let broker = Broker::start().await;
    let session = attested(&broker).await;
    for path in [
        "models/demo",
        "models/demo/epoch-1/x",
        "models/../epoch-1",
        "models//epoch-1",
        "models/demo/%65poch-1",
    ] {
        let answer = broker.resource(path, &session.headers()).await;
        broker.assert_refused(&answer, "PluginInternalError");
    }
}

async fn attested(broker: &Broker) -> Session {
    let session = Session::open(broker).await;
    let key = TeeKey::generate_p256().unwrap();
    session
        .attest(broker, &session.right(&broker.nsm(pcrs()), &key).body())
        .await
        .ok();
    session
}

/// An attempt that fails, on a session of its own; afterwards the session is worth nothing.
async fn fails(
    broker: &Broker,
    why: &str,
    spoil: impl FnOnce(&SimNsm, &TeeKey, &Session) -> Value,
) {
    let nsm = broker.nsm(pcrs());
    let key = TeeKey::generate_p256().unwrap();
    let session = Session::open(broker).await;
    let answer = session.attest(broker, &spoil(&nsm, &key, &session)).await;
    broker.assert_refused(&answer, "AttestationError");
    assert_eq!(
        answer.json()["detail"],
        "Attestation error: RCAR handshake Attest failed"
    );
    let reason = broker.last_entry().reason.unwrap();
    assert!(reason.contains(why), "{why}: {reason}");

    let answer = broker.resource(KEY_ID, &session.headers()).await;
    broker.assert_refused(&answer, "TokenNotFound");
    let answer = session
        .attest(broker, &session.right(&nsm, &key).body())
        .await;
    broker.assert_refused(&answer, "AttestationError");
}

#[tokio::test]
async fn evidence_that_is_wrong_in_one_way_is_refused_and_uses_up_the_challenge() {
    let broker = Broker::start().await;
    let spoiled = |spoil: fn(&mut sim::nsm::DocumentBuilder)| {
        move |nsm: &SimNsm, key: &TeeKey, session: &Session| {
            Attempt::with(nsm, &session.nonce, key, spoil).body()
        }
    };
    fails(&broker, "signature", spoiled(|d| d.spoil_signature = 1)).await;
    fails(
        &broker,
        "debug",
        spoiled(|d| d.pcrs.extend([(0, Pcr::ZERO)])),
    )
    .await;
    fails(
        &broker,
        "nonce",
        spoiled(|d| d.nonce = Some(b"another nonce of some length".to_vec())),
    )
    .await;
    fails(&broker, "nonce", spoiled(|d| d.nonce = None)).await;
    fails(&broker, "public key", spoiled(|d| d.public_key = None)).await;
    fails(
        &broker,
        "user data",
        spoiled(|d| d.user_data = Some(vec![0; 64])),
    )
    .await;
    fails(&broker, "fresh", spoiled(|d| d.timestamp_ms -= 301_000)).await;
    fails(&broker, "fresh", spoiled(|d| d.timestamp_ms += 60_000)).await;

    let changed = |change: fn(&mut Value)| {
        move |nsm: &SimNsm, key: &TeeKey, session: &Session| {
            let mut body = session.right(nsm, key).body();
            change(&mut body);
            body
        }
    };
    fails(
        &broker,
        "user data",
        changed(|b| {
            b["tee-evidence"]["primary_evidence"]["config_digest"] =
                json!(Sha256Digest::of(b"other"))
        }),
    )
    .await;
    fails(
        &broker,
        "user data",
        changed(|b| b["tee-evidence"]["primary_evidence"]["boot_id"] = json!("00".repeat(16))),
    )
    .await;
    fails(
        &broker,
        "nonce",
        changed(|b| b["runtime-data"]["nonce"] = json!("AAAA")),
    )
    .await;
    fails(
        &broker,
        "additional",
        changed(|b| b["tee-evidence"]["additional_evidence"] = json!("{}")),
    )
    .await;
    fails(
        &broker,
        "init-data",
        changed(|b| b["init-data"] = json!({"format": "toml", "body": ""})),
    )
    .await;
    fails(
        &broker,
        "not an attestation",
        changed(|b| {
            drop(
                b["tee-evidence"]
                    .as_object_mut()
                    .unwrap()
                    .remove("additional_evidence"),
            )
        }),
    )
    .await;
    fails(
        &broker,
        "not an attestation",
        changed(|b| b["tee-evidence"]["primary_evidence"]["debug"] = json!(true)),
    )
    .await;
    fails(
        &broker,
        "base64",
        changed(|b| b["tee-evidence"]["primary_evidence"]["document"] = json!("!")),
    )
    .await;
    fails(
        &broker,
        "malformed",
        changed(|b| b["tee-evidence"]["primary_evidence"]["document"] = json!("AAAA")),
    )
    .await;
    fails(&broker, "not an attestation", |_, _, _| json!([])).await;
}

#[tokio::test]
async fn a_document_for_another_recipient_key_is_refused() {
    let broker = Broker::start().await;
    let other = serde_json::to_value(TeeKey::generate_p256().unwrap().jwk()).unwrap();
    fails(&broker, "public key", move |nsm, key, session| {
        let mut attempt = session.right(nsm, key);
        attempt.jwk = other;
        attempt.body()
    })
    .await;
}

#[tokio::test]
async fn a_document_of_another_purpose_is_refused() {
    let broker = Broker::start().await;
    fails(&broker, "key-release", |nsm, key, session| {
        let subject = Subject::SvidIssuance {
            csr_sha256: Sha256Digest::of(b"csr"),
            spki_sha256: Sha256Digest::of(key.spki_der()),
        };
        let made = document(
            nsm,
            session.nonce.as_bytes(),
            key.spki_der(),
            subject,
            |_| {},
        );
        Attempt {
            evidence: wire(&made),
            ..session.right(nsm, key)
        }
        .body()
    })
    .await;
}

#[tokio::test]
async fn a_document_under_another_root_is_refused() {
    let broker = Broker::start().await;
    let foreign = SimNsm::new(SimPki::generate(broker.now()), pcrs(), broker.clock());
    fails(&broker, "trust anchor", move |_, key, session| {
        session.right(&foreign, key).body()
    })
    .await;
    assert_eq!(
        broker.last_entry().pcr0,
        None,
        "unauthenticated registers are no fact"
    );
}

#[tokio::test]
async fn a_replayed_document_is_refused() {
    let broker = Broker::start().await;
    let (nsm, key) = (broker.nsm(pcrs()), TeeKey::generate_p256().unwrap());
    let first = Session::open(&broker).await;
    let genuine = first.right(&nsm, &key);
    fails(&broker, "nonce", |_, _, second| {
        Attempt {
            nonce: second.nonce.clone(),
            jwk: genuine.jwk.clone(),
            evidence: genuine.evidence.clone(),
        }
        .body()
    })
    .await;
    // Where it belongs it is still good.
    first.attest(&broker, &genuine.body()).await.ok();
}

#[tokio::test]
async fn a_challenge_is_answered_once_even_rightly() {
    let broker = Broker::start().await;
    let (nsm, key) = (broker.nsm(pcrs()), TeeKey::generate_p256().unwrap());
    let session = Session::open(&broker).await;
    let body = session.right(&nsm, &key).body();
    session.attest(&broker, &body).await.ok();
    let answer = session.attest(&broker, &body).await;
    broker.assert_refused(&answer, "AttestationError");
    // The first answer stands.
    broker.resource(KEY_ID, &session.headers()).await.ok();
}

#[tokio::test]
async fn two_answers_at_once_are_one_too_many() {
    let broker = Broker::start().await;
    let (nsm, key) = (broker.nsm(pcrs()), TeeKey::generate_p256().unwrap());
    let session = Session::open(&broker).await;
    let body = session.right(&nsm, &key).body();
    let (one, two) = tokio::join!(
        session.attest(&broker, &body),
        session.attest(&broker, &body)
    );
    let good = [one, two]
        .iter()
        .filter(|answer| answer.status == StatusCode::OK)
        .count();
    assert_eq!(good, 1);
}

#[tokio::test]
async fn an_expired_session_is_refused() {
    let broker = Broker::start().await;
    let (nsm, key) = (broker.nsm(pcrs()), TeeKey::generate_p256().unwrap());
    let session = Session::open(&broker).await;
    broker.pass(300);
    let answer = session
        .attest(&broker, &session.right(&nsm, &key).body())
        .await;
    broker.assert_refused(&answer, "AttestationError");

    let session = Session::open(&broker).await;
    broker.pass(200);
    let answer = session
        .attest(&broker, &session.right(&nsm, &key).body())
        .await
        .ok();
    let bearer = format!("Bearer {}", answer.json()["token"].as_str().unwrap());
    broker.pass(100);
    let answer = broker.resource(KEY_ID, &session.headers()).await;
    broker.assert_refused(&answer, "TokenNotFound");
    broker.pass(200);
    let answer = broker.resource(KEY_ID, &[("authorization", &bearer)]).await;
    broker.assert_refused(&answer, "TokenVerifierError");
}

#[tokio::test]
async fn a_session_or_token_that_is_not_ours_is_refused() {
    let broker = Broker::start().await;
    let open = Session::open(&broker).await;
    for cookie in [
        open.cookie.as_str(),
        "kbs-session-id=0",
        "other=1",
        "kbs-session-id",
    ] {
        let answer = broker.resource(KEY_ID, &[("cookie", cookie)]).await;
        broker.assert_refused(&answer, "TokenNotFound");
    }
    let answer = broker.resource(KEY_ID, &[]).await;
    broker.assert_refused(&answer, "TokenNotFound");
    let answer = broker
        .resource(KEY_ID, &[("authorization", "Bearer a.b.c")])
        .await;
    broker.assert_refused(&answer, "TokenVerifierError");
    let answer = broker.post("/kbs/v0/attest", &[], &json!({})).await;
    broker.assert_refused(&answer, "AttestationError");
}

#[tokio::test]
async fn another_version_or_platform_is_refused_before_any_challenge() {
    let broker = Broker::start().await;
    let with = |member: &str, value: Value| {
        let mut hello = hello();
        hello[member] = value;
        hello
    };
    for version in ["0.3.0", "0.4.1", "0.4", "1.0.0", "=0.4.0"] {
        let answer = broker
            .post("/kbs/v0/auth", &[], &with("version", json!(version)))
            .await;
        broker.assert_refused(&answer, "AttestationError");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            detail.contains("KBS Client Protocol Version Mismatch: expect =0.4.0"),
            "{detail}"
        );
        assert!(!answer.headers.contains_key("set-cookie"));
    }
    let answer = broker
        .post("/kbs/v0/auth", &[], &with("version", json!("<script>")))
        .await;
    assert!(!String::from_utf8_lossy(&answer.body).contains("script"));
    for body in [
        with("tee", json!("sample")),
        with("tee", json!("snp")),
        with("tee", json!("nitro")),
        with("tee", json!(1)),
        json!({"version": "0.4.0", "tee": "aws-nitro"}),
        json!("hello"),
    ] {
        let answer = broker.post("/kbs/v0/auth", &[], &body).await;
        broker.assert_refused(&answer, "AttestationError");
        assert_eq!(
            answer.json()["detail"],
            "Attestation error: RCAR handshake Auth failed: deserialize Request"
        );
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_not_read_to_its_end() {
    let broker = Broker::start().await;
    for (path, size) in [
        ("/kbs/v0/auth", 5_000),
        ("/kbs/v0/attest", 70_000),
        ("/cloister/v0/challenge", 2_000),
        ("/cloister/v0/svid", 70_000),
    ] {
        let answer = broker.send(Method::POST, path, &[], vec![b' '; size]).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert!(
            answer.headers["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/plain")
        );
        assert_eq!(
            broker.last_entry().error_type.as_deref(),
            Some("PayloadTooLarge")
        );
    }
}

#[tokio::test]
async fn what_is_no_endpoint_is_answered_as_stock_brokers_do() {
    let broker = Broker::start().await;
    for (method, path) in [
        (Method::GET, "/kbs/v0/auth"),
        (Method::GET, "/kbs/v0/attest"),
        (Method::PUT, "/kbs/v0/resource/a/b/c"),
        (Method::GET, "/kbs/v0/reference-value"),
        (Method::GET, "/kbs/v0/token"),
        (Method::GET, "/kbs/v0/nothing"),
    ] {
        let answer = broker.send(method, path, &[], "").await;
        broker.assert_refused(&answer, "PluginNotFound");
    }
    let answer = broker.get("/kbs/v0", &[]).await;
    broker.assert_refused(&answer, "InvalidRequestPath");
}

#[tokio::test]
async fn asking_for_the_head_of_a_key_releases_nothing() {
    let broker = Broker::start().await;
    let session = attested(&broker).await;
    let path = format!("/kbs/v0/resource/{KEY_ID}");
    let answer = broker
        .send(Method::HEAD, &path, &session.headers(), "")
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(!broker.outcomes().contains(&"released".to_owned()));
}

#[tokio::test]
async fn the_client_speaks_to_nobody_but_the_named_broker() {
    let broker = Broker::start().await;
    let attester = Arc::new(broker.nsm(pcrs()));
    let client = broker.client_of(attester.clone(), "spiffe://example.org/other");
    let error = client.data_key(KEY_ID).await.err().unwrap();
    assert!(matches!(&error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("not the broker"), "{error}");
    assert_eq!(
        broker.outcomes(),
        ["stored", "policy-set", "started"],
        "nothing was asked"
    );
    let client = broker.client_of(attester, BROKER_ID);
    assert!(matches!(
        client.data_key("models/../x").await.err(),
        Some(Error::Request(_))
    ));
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_unavailable() {
    let mut broker = Broker::start().await;
    broker.listen = "tcp://127.0.0.1:1".parse().unwrap();
    let error = broker.client(pcrs()).data_key(KEY_ID).await.err().unwrap();
    assert!(
        matches!(error, Error::Unavailable { attempts: 5, .. }),
        "{error}"
    );
}
