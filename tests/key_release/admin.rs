use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::broker::{Broker, KEY_ID, pcrs};
use crate::peer::Answer;

/// Signed with the key that `kbs init` made for this broker.
fn token(broker: &Broker, claims: &Value) -> String {
    let pem = std::fs::read_to_string(broker.path("admin.key")).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(&identity::pem::private_key(&pem).unwrap()).unwrap();
    signed(&key, claims)
}

fn signed(key: &Ed25519KeyPair, claims: &Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    format!("Bearer {signed}.{signature}")
}

fn seconds(broker: &Broker) -> u64 {
    broker
        .now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub fn good(broker: &Broker) -> String {
    token(
        broker,
        &json!({"role": "admin", "exp": seconds(broker) + 60}),
    )
}

/// Authorization headers that must not open anything.
pub fn bad(broker: &Broker) -> Vec<Option<String>> {
    let exp = seconds(broker) + 60;
    let stranger = Ed25519KeyPair::generate().unwrap();
    vec![
        None,
        Some("Bearer ".to_owned()),
        Some("Basic YWRtaW46YWRtaW4=".to_owned()),
        Some(token(broker, &json!({"role": "user", "exp": exp}))),
        Some(token(broker, &json!({"exp": exp}))),
        Some(token(broker, &json!({"role": "admin"}))),
        Some(token(
            broker,
            &json!({"role": "admin", "exp": seconds(broker) - 60}),
        )),
        Some(signed(&stranger, &json!({"role": "admin", "exp": exp}))),
    ]
}

pub async fn send(
    broker: &Broker,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: impl Into<bytes::Bytes>,
) -> Answer {
    let headers: Vec<_> = token
        .into_iter()
        .map(|token| ("authorization", token))
        .collect();
    broker.send(method, path, &headers, body).await
}

#[tokio::test]
async fn an_administrator_stores_and_deletes_resources() {
    let broker = Broker::start().await;
    let path = "/kbs/v0/resource/models/other/epoch-1";
    let token = good(&broker);
    let answer = send(&broker, Method::POST, path, Some(&token), vec![5; 32])
        .await
        .ok();
    assert_eq!(answer.headers["content-type"], "text/xml");
    assert!(answer.body.is_empty());
    let client = broker.client(pcrs());
    assert_eq!(
        client
            .data_key("models/other/epoch-1")
            .await
            .unwrap()
            .expose(),
        [5; 32]
    );
    send(&broker, Method::DELETE, path, Some(&token), "")
        .await
        .ok();
    assert!(client.data_key("models/other/epoch-1").await.is_err());
    let answer = send(&broker, Method::DELETE, path, Some(&token), "").await;
    assert_eq!(answer.kind(), "PluginInternalError");
    let outcomes = broker.outcomes();
    for outcome in ["stored", "deleted"] {
        assert!(outcomes.contains(&outcome.to_owned()), "{outcomes:?}");
    }
}

#[tokio::test]
async fn an_administrator_replaces_the_policy() {
    let broker = Broker::start().await;
    let client = broker.client(pcrs());
    client.data_key(KEY_ID).await.unwrap();
    let token = good(&broker);
    let set = async |policy: &str| {
        let body = json!({"policy": URL_SAFE_NO_PAD.encode(policy)}).to_string();
        send(
            &broker,
            Method::POST,
            "/kbs/v0/resource-policy",
            Some(&token),
            body,
        )
        .await
    };
    set("package policy\n\ndefault allow := false\n").await.ok();
    assert!(client.data_key(KEY_ID).await.is_err());
    assert_eq!(
        set("package policy\n\nallow if {").await.kind(),
        "ParsePolicyError"
    );
    assert_eq!(set("package other\n").await.kind(), "ParsePolicyError");
    assert!(
        client.data_key(KEY_ID).await.is_err(),
        "the policy before stands"
    );
    set("package policy\n\nallow := true\n").await.ok();
    client.data_key(KEY_ID).await.unwrap();

    let body = json!({"policy": "not base64!"}).to_string();
    let answer = send(
        &broker,
        Method::POST,
        "/kbs/v0/resource-policy",
        Some(&token),
        body,
    )
    .await;
    assert_eq!(answer.kind(), "SerdeError");
    let answer = send(
        &broker,
        Method::GET,
        "/kbs/v0/resource-policy",
        Some(&token),
        "",
    )
    .await
    .ok();
    assert_eq!(answer.json(), json!(["resource-policy"]));
}

#[tokio::test]
async fn whoever_is_no_administrator_changes_nothing() {
    let broker = Broker::start().await;
    let resource = format!("/kbs/v0/resource/{KEY_ID}");
    let policy =
        json!({"policy": URL_SAFE_NO_PAD.encode("package policy\nallow := true")}).to_string();
    for token in bad(&broker) {
        let token = token.as_deref();
        for (method, path, body, kind) in [
            (
                Method::POST,
                resource.as_str(),
                "value",
                "AdminAuthInitialization",
            ),
            (
                Method::DELETE,
                resource.as_str(),
                "",
                "AdminAuthInitialization",
            ),
            (
                Method::POST,
                "/kbs/v0/resource-policy",
                policy.as_str(),
                "AdminAuthAccess",
            ),
            (
                Method::GET,
                "/kbs/v0/resource-policy",
                "",
                "AdminAuthAccess",
            ),
        ] {
            let answer = send(&broker, method, path, token, body.to_owned()).await;
            broker.assert_refused(&answer, kind);
        }
    }
    let mut changes = broker.outcomes();
    changes.retain(|outcome| ["stored", "deleted", "policy-set"].contains(&outcome.as_str()));
    assert_eq!(changes, ["stored", "policy-set"], "those of the start");
    broker.client(pcrs()).data_key(KEY_ID).await.unwrap();
}

#[tokio::test]
async fn a_resource_over_two_megabytes_or_under_no_path_is_not_stored() {
    let broker = Broker::start().await;
    let token = good(&broker);
    let path = "/kbs/v0/resource/models/large/epoch-1";
    let large = vec![0; 2 * 1024 * 1024 + 1];
    let answer = send(&broker, Method::POST, path, Some(&token), large).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        broker.last_entry().error_type.as_deref(),
        Some("PayloadTooLarge")
    );
    let answer = send(
        &broker,
        Method::POST,
        "/kbs/v0/resource/a/b",
        Some(&token),
        "x",
    )
    .await;
    broker.assert_refused(&answer, "PluginInternalError");
}
