//! What the enclave believes of an answer, should somebody who speaks for the service be hostile.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms_client::{Error, OpenError, RecipientKey};
use serde_json::{Value, json};

use crate::world::{SECRET, World, arn, context, pcrs};

/// What a release comes to when each answer to `Decrypt` is changed like this.
async fn with(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Result<Vec<u8>, Error> {
    let world = World::start().await;
    let ciphertext = world.wrapped("image", &context()).await;
    world.kms.spoil(Box::new(move |operation, answer| {
        assert_eq!(operation, "Decrypt");
        change(answer);
    }));
    world
        .released("image", pcrs(), &ciphertext, &context())
        .await
}

fn envelope(answer: &Value) -> Vec<u8> {
    STANDARD
        .decode(answer["CiphertextForRecipient"].as_str().unwrap())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_answer_is_believed() {
    assert_eq!(with(|_| {}).await.unwrap(), SECRET);
    // The service may say more than we know of, and leave the plaintext out or empty.
    let more = with(|answer| {
        answer["KeyMaterialId"] = "x".into();
        answer["Plaintext"] = Value::Null;
    });
    assert_eq!(more.await.unwrap(), SECRET);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_another_key_is_refused() {
    for id in [
        arn("other").to_string(),
        "image".to_owned(),
        format!("{}x", arn("image")),
        arn("image").to_string().replace("key/", "alias/"),
    ] {
        let outcome = with(move |answer| answer["KeyId"] = id.clone().into()).await;
        assert!(matches!(outcome, Err(Error::AnotherKey { expected }) if expected == arn("image")));
    }
    let outcome = with(|answer| {
        answer.as_object_mut().unwrap().remove("KeyId");
    });
    assert!(matches!(outcome.await, Err(Error::Malformed { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plaintext_in_the_answer_is_refused_even_beside_a_right_envelope() {
    for keep in [true, false] {
        let outcome = with(move |answer| {
            answer["Plaintext"] = STANDARD.encode(SECRET).into();
            if !keep {
                answer
                    .as_object_mut()
                    .unwrap()
                    .remove("CiphertextForRecipient");
            }
        });
        let error = outcome.await.unwrap_err();
        assert!(matches!(error, Error::PlaintextReturned), "{error}");
        assert!(!error.to_string().contains(&STANDARD.encode(SECRET)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_envelope_is_refused_and_every_way_reads_the_same() {
    let mut lines = Vec::new();
    // From the head, from the key id, from the encrypted key, from the block before the last, so that the padding's length is another.
    for at in [1, 60, 200, -27] {
        let outcome = with(move |answer| {
            let mut bytes = envelope(answer);
            let at = if at < 0 {
                bytes.len().checked_add_signed(at).unwrap()
            } else {
                at.unsigned_abs()
            };
            bytes[at] ^= 1;
            answer["CiphertextForRecipient"] = STANDARD.encode(bytes).into();
        });
        lines.push(outcome.await.unwrap_err());
    }
    let cut = with(|answer| {
        let mut bytes = envelope(answer);
        bytes.truncate(bytes.len() - 2);
        answer["CiphertextForRecipient"] = STANDARD.encode(bytes).into();
    });
    lines.push(cut.await.unwrap_err());
    for error in lines {
        assert!(matches!(error, Error::Envelope(_)), "{error}");
        assert_eq!(
            error.to_string(),
            "the envelope in the answer was not made for us, or not rightly"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_for_another_recipient_is_refused() {
    let world = World::start().await;
    let ciphertext = world.wrapped("image", &context()).await;
    let other = RecipientKey::generate().unwrap();
    let body = json!({"KeyId": arn("image"), "CiphertextBlob": STANDARD.encode(&ciphertext), "EncryptionContext": crate::world::context_json(),
        "Recipient": {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": world.document(pcrs(), other.spki_der())}});
    let (_, theirs) = world.raw(world.host(), "Decrypt", &body, |_| {}).await;
    let theirs = theirs["CiphertextForRecipient"].clone();
    let outcome = with(move |answer| answer["CiphertextForRecipient"] = theirs.clone()).await;
    assert!(matches!(
        outcome,
        Err(Error::Envelope(OpenError::Recipient))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_whole_is_malformed() {
    type Change = fn(&mut Value);
    let changes: [Change; 7] = [
        |answer| answer["CiphertextForRecipient"] = Value::Null,
        |answer| answer["CiphertextForRecipient"] = "".into(),
        |answer| answer["CiphertextForRecipient"] = "not base64".into(),
        |answer| answer["CiphertextForRecipient"] = STANDARD.encode(vec![0; 6145]).into(),
        |answer| answer["EncryptionAlgorithm"] = "RSAES_OAEP_SHA_256".into(),
        |answer| answer["EncryptionAlgorithm"] = Value::Null,
        |answer| *answer = json!([]),
    ];
    for change in changes {
        let error = with(change).await.unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
    }
}
