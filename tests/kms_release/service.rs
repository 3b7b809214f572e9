//! The whole service with KMS in it: every program in a process of its own, the broker without a single model key.

use bytes::Bytes;
use serde_json::{Value, json};
use sim::stack::{self, Error, Stack};
use tests::models;

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_boots_with_keys_from_kms_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = tests::options(models::both(dir.path()));
    options.kms = true;
    let stack = Stack::start(options).await.unwrap();
    let endpoint = format!("tcp://127.0.0.1:{}", stack.port());
    let prompt = json!({"model": models::CHAT, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4});
    let (status, body) = stack::post_json(
        &endpoint,
        "/v1/chat/completions",
        Bytes::from(prompt.to_string()),
    )
    .await
    .unwrap();
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["object"], "chat.completion");

    // The broker has no key, so these came from KMS. Whose credentials it was asked with is in no log.
    let log = |role: &str| std::fs::read_to_string(stack.layout.log(role)).unwrap();
    let credentials = std::fs::read_to_string(stack.layout.path("aws.json")).unwrap();
    let credentials: Value = serde_json::from_str(&credentials).unwrap();
    let secret = credentials["SecretAccessKey"].as_str().unwrap();
    for role in ["kms", "host", "enclave", "kbs", "gateway"] {
        assert!(!log(role).contains(secret), "{role}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_the_key_policy_does_not_know_ends_with_77() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = tests::options(models::both(dir.path()));
    options.kms = true;
    options.before_start = Some(Box::new(tests::spoil_kms_policy));
    match Stack::start(options).await {
        Err(Error::Ended {
            role: "enclave",
            code,
            tail,
        }) => {
            assert_eq!(code, 77, "{tail}");
            assert!(tail.starts_with("KMS released no key for model"), "{tail}");
            assert!(tail.contains("AccessDeniedException"), "{tail}");
            assert_eq!(tail.lines().count(), 1, "{tail}");
        }
        Err(other) => panic!("{other}"),
        Ok(stack) => {
            stack.stop().await;
            panic!("it booted");
        }
    }
}
