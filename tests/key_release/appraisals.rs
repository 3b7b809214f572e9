use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use kbs_client::TeeKey;
use serde_json::{Value, json};

use crate::admin::{bad, good, send};
use crate::broker::{Broker, KEY_ID, Setup, other_pcrs, pcrs};
use crate::passport::parts;
use crate::peer::{Answer, Session};

const ATTESTATION: &str = include_str!("../../kbs/policies/attestation.rego");

fn message(values: &Value) -> String {
    let payload = STANDARD.encode(values.to_string());
    json!({"version": "0.1.0", "type": "sample", "payload": payload}).to_string()
}

fn images() -> Value {
    json!({"nitro_images": [{"0": pcrs()[&0], "1": pcrs()[&1], "2": pcrs()[&2]}]})
}

async fn post(broker: &Broker, endpoint: &str, body: String) -> Answer {
    let path = format!("/kbs/v0/{endpoint}");
    send(broker, Method::POST, &path, Some(&good(broker)), body).await
}

async fn set_policy(broker: &Broker, policy: &str) -> Answer {
    let body = json!({
        "type": "rego", "policy_id": "default_cpu", "policy": URL_SAFE_NO_PAD.encode(policy),
    });
    post(broker, "attestation-policy", body.to_string()).await
}

async fn attest(broker: &Broker, registers: attestation::Pcrs) -> (Session, Answer) {
    let session = Session::open(broker).await;
    let key = TeeKey::generate_p256().unwrap();
    let body = session.right(&broker.nsm(registers), &key).body();
    let answer = session.attest(broker, &body).await;
    (session, answer)
}

fn cpu0(answer: &Answer) -> Value {
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    parts(&token).1["submods"]["cpu0"].clone()
}

#[tokio::test]
async fn trust_claims_follow_reference_values_and_land_in_the_token() {
    let broker = Broker::start().await;
    let answer = set_policy(&broker, ATTESTATION).await.ok();
    assert!(answer.body.is_empty());
    let (_, answer) = attest(&broker, pcrs()).await;
    let before = cpu0(&answer.ok());
    assert_eq!(before["ear.status"], "warning");
    assert_eq!(before["ear.appraisal-policy-id"], "default_cpu");
    assert_eq!(
        broker.last_entry().reason.as_deref(),
        Some("ear.status warning")
    );

    let answer = post(&broker, "reference-value", message(&images()))
        .await
        .ok();
    assert!(answer.body.is_empty());
    let (_, answer) = attest(&broker, pcrs()).await;
    let after = cpu0(&answer.ok());
    assert_eq!(after["ear.status"], "affirming");
    assert_eq!(
        after["ear.trustworthiness-vector"],
        json!({"executables": 3, "hardware": 2})
    );
    let (_, answer) = attest(&broker, other_pcrs()).await;
    assert_eq!(cpu0(&answer.ok())["ear.status"], "warning");
    let outcomes = broker.outcomes();
    for outcome in ["policy-set", "reference-set"] {
        assert!(outcomes.contains(&outcome.to_owned()), "{outcomes:?}");
    }
}

#[tokio::test]
async fn a_resource_policy_can_ask_for_an_affirming_status_as_stock_samples_do() {
    let affirming = "package policy\n\nimport rego.v1\n\ndefault allow := false\n\nallow if {\n\
         \tcount(input.submods) > 0\n\tevery _, submod in input.submods { submod[\"ear.status\"] == \"affirming\" }\n}\n";
    let broker = Broker::with(Setup {
        policy: Some(affirming.to_owned()),
        ..Setup::default()
    })
    .await;
    let ask = async |registers| {
        let (session, answer) = attest(&broker, registers).await;
        answer.ok();
        broker.resource(KEY_ID, &session.headers()).await
    };
    assert_eq!(
        ask(pcrs()).await.kind(),
        "PolicyDeny",
        "no attestation policy, no status"
    );
    set_policy(&broker, ATTESTATION).await.ok();
    assert_eq!(
        ask(pcrs()).await.kind(),
        "PolicyDeny",
        "no reference values"
    );
    post(&broker, "reference-value", message(&images()))
        .await
        .ok();
    ask(pcrs()).await.ok();
    assert_eq!(ask(other_pcrs()).await.kind(), "PolicyDeny");
}

#[tokio::test]
async fn an_attestation_policy_that_fails_attests_nobody() {
    let broker = Broker::start().await;
    for policy in [
        "package policy\n",
        "package policy\ntrust_claims := {\"unheard-of\": 2}\n",
        "package policy\ntrust_claims := {\"executables\": 1000}\n",
        "package policy\ntrust_claims := {\"executables\": 2}\ntrust_claims := {\"executables\": 3}\n",
        "package policy\ntrust_claims := {\"executables\": 2}\nextensions := [{\"name\": \"a\", \"key\": 1, \"value\": v}] if v := numbers.range(1, 9999)\n",
    ] {
        set_policy(&broker, policy).await.ok();
        let (session, answer) = attest(&broker, pcrs()).await;
        broker.assert_refused(&answer, "AttestationError");
        let reason = broker.last_entry().reason.unwrap();
        assert!(reason.contains("attestation policy"), "{reason}");
        let answer = broker.resource(KEY_ID, &session.headers()).await;
        broker.assert_refused(&answer, "TokenNotFound");
    }
    // Taken away, what was before is again.
    kbs::offline::remove_attestation_policy(&broker.config(), &[], broker.now()).unwrap();
    let (session, answer) = attest(&broker, pcrs()).await;
    answer.ok();
    broker.resource(KEY_ID, &session.headers()).await.ok();
}

#[tokio::test]
async fn reference_values_are_read_as_they_were_set_and_null_otherwise() {
    let broker = Broker::start().await;
    let read = async |id: &str| {
        let path = format!("/kbs/v0/reference-value/{id}");
        send(&broker, Method::GET, &path, Some(&good(&broker)), "").await
    };
    let values = json!({"a": [1, {"b": null}], "x/y.z:1": "text"});
    post(&broker, "reference-value", message(&values))
        .await
        .ok();
    let answer = read("a").await.ok();
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.json(), json!([1, {"b": null}]));
    assert_eq!(read("x/y.z:1").await.ok().json(), "text");
    assert_eq!(read("b").await.ok().json(), Value::Null);

    // Set again, one is replaced and the others stay.
    post(&broker, "reference-value", message(&json!({"a": 2})))
        .await
        .ok();
    assert_eq!(read("a").await.json(), 2);
    assert_eq!(read("x/y.z:1").await.json(), "text");

    // The command line sees the same, and changes it under a running broker.
    assert_eq!(kbs::offline::references(&broker.config()).unwrap()["a"], 2);
    kbs::offline::set_references(&broker.config(), "{\"a\": 3}", &[], broker.now()).unwrap();
    assert_eq!(read("a").await.json(), 3);
    kbs::offline::delete_reference(&broker.config(), "a", &[], broker.now()).unwrap();
    assert_eq!(read("a").await.json(), Value::Null);
    assert!(kbs::offline::delete_reference(&broker.config(), "a", &[], broker.now()).is_err());
    for json in ["", "[]", "{}", "{\"a b\": 1}"] {
        assert!(kbs::offline::set_references(&broker.config(), json, &[], broker.now()).is_err());
    }
}

#[tokio::test]
async fn what_is_no_reference_value_or_policy_changes_nothing() {
    let broker = Broker::start().await;
    let good = message(&json!({"a": 1}));
    for body in [
        good.replace("0.1.0", "0.2.0"),
        good.replace("sample", "swid"),
        good.replace("sample", "corim"),
        message(&json!({})),
        message(&json!([])),
        "{}".to_owned(),
        String::new(),
    ] {
        let answer = post(&broker, "reference-value", body).await;
        broker.assert_refused(&answer, "RvpsError");
    }
    let many = json!({"a": "x".repeat(1024 * 1024)});
    let answer = post(&broker, "reference-value", message(&many)).await;
    broker.assert_refused(&answer, "RvpsError");
    let answer = post(&broker, "reference-value", " ".repeat(2 * 1024 * 1024 + 1)).await;
    assert_eq!(answer.status, 413);

    let body = |id: &str, policy: &str| json!({"policy_id": id, "policy": policy}).to_string();
    let yes = URL_SAFE_NO_PAD.encode("package policy\ntrust_claims := {\"executables\": 2}\n");
    let parse = URL_SAFE_NO_PAD.encode("package policy\nallow if {");
    for (body, kind) in [
        (body("default", &yes), "SerdeError"),
        (body("default_gpu", &yes), "SerdeError"),
        (body("default_cpu", "!"), "SerdeError"),
        (
            body("default_cpu", &URL_SAFE_NO_PAD.encode([0xff])),
            "SerdeError",
        ),
        (json!({"policy": yes}).to_string(), "SerdeError"),
        (body("default_cpu", &parse), "ParsePolicyError"),
        (
            body("default_cpu", &URL_SAFE_NO_PAD.encode("package other\n")),
            "ParsePolicyError",
        ),
    ] {
        let answer = post(&broker, "attestation-policy", body).await;
        broker.assert_refused(&answer, kind);
    }
    let (_, answer) = attest(&broker, pcrs()).await;
    assert_eq!(cpu0(&answer.ok()), Value::Null);
    assert_eq!(
        kbs::offline::references(&broker.config()).unwrap(),
        json!({})
    );
}

#[tokio::test]
async fn whoever_is_no_administrator_sets_and_reads_no_reference_value() {
    let broker = Broker::start().await;
    let policy = json!({"policy_id": "default_cpu", "policy": URL_SAFE_NO_PAD.encode(ATTESTATION)});
    for token in bad(&broker) {
        for (method, path, body) in [
            (Method::POST, "attestation-policy", policy.to_string()),
            (Method::POST, "reference-value", message(&json!({"a": 1}))),
            (Method::GET, "reference-value/a", String::new()),
        ] {
            let path = format!("/kbs/v0/{path}");
            let answer = send(&broker, method, &path, token.as_deref(), body).await;
            broker.assert_refused(&answer, "AdminAuthAccess");
        }
    }
    assert_eq!(
        kbs::offline::references(&broker.config()).unwrap(),
        json!({})
    );
    for (method, path) in [
        (Method::GET, "attestation-policy"),
        (Method::DELETE, "attestation-policy"),
        (Method::GET, "reference-value"),
        (Method::DELETE, "reference-value/a"),
        (Method::HEAD, "reference-value/a"),
    ] {
        let path = format!("/kbs/v0/{path}");
        let answer = send(&broker, method, &path, Some(&good(&broker)), "").await;
        assert_eq!(answer.status, 404, "{path}");
    }
}
