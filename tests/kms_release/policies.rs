//! What the service decides: by the key's policy, the document's registers, the context.

use attestation::{Pcr, Pcrs};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms_client::{EncryptionContext, Error, RecipientKey};
use serde_json::json;
use sim::nsm::{SimNsm, SimPki};

use crate::world::{HOST, MANIFEST, SECRET, World, arn, context, context_json, pcrs};

fn refused(outcome: Result<Vec<u8>, Error>) -> (String, String) {
    match outcome {
        Err(Error::Refused { kind, message }) => (kind, message),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("released"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attested_enclave_gets_its_key_to_a_new_recipient_each_time() {
    let world = World::start().await;
    let ciphertext = world.wrapped("image", &context()).await;
    for _ in 0..2 {
        let secret = world
            .released("image", pcrs(), &ciphertext, &context())
            .await
            .unwrap();
        assert_eq!(secret, SECRET);
    }
    let recipients: Vec<_> = world
        .kms
        .events()
        .into_iter()
        .filter_map(|event| event.recipient)
        .collect();
    assert_eq!(recipients.len(), 2);
    assert_ne!(recipients[0], recipients[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_made_by_the_service_opens_again_only_in_its_context() {
    let world = World::start().await;
    let client = world.client(world.host());
    let made = client
        .generate_data_key(&world.nsm(pcrs()), &arn("image"), &context())
        .await;
    let (secret, wrapped) = made.unwrap();
    assert_eq!(secret.expose().len(), 32);
    let again = world
        .released("image", pcrs(), &wrapped, &context())
        .await
        .unwrap();
    assert_eq!(again, secret.expose());
    let other = EncryptionContext::model("demo", 2, MANIFEST);
    assert_eq!(
        refused(world.released("image", pcrs(), &wrapped, &other).await).0,
        "InvalidCiphertextException"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_image_is_denied_whichever_register_differs() {
    let world = World::start().await;
    let ciphertext = world.wrapped("image", &context()).await;
    for index in [0, 1, 2] {
        let mut other = pcrs();
        other.insert(index, Pcr::ZERO.extend(b"another"));
        let (kind, message) = refused(
            world
                .released("image", other, &ciphertext, &context())
                .await,
        );
        assert_eq!(kind, "AccessDeniedException");
        assert_eq!(
            message,
            format!(
                "User: {HOST} is not authorized to perform: kms:Decrypt on resource: {} with an explicit deny in a resource-based policy",
                arn("image")
            )
        );
    }
    // A register that no policy names may be anything.
    let mut moved = pcrs();
    moved.insert(4, Pcr::ZERO.extend(b"another instance"));
    assert!(
        world
            .released("image", moved, &ciphertext, &context())
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debug_enclave_is_denied() {
    let world = World::start().await;
    let ciphertext = world.wrapped("image", &context()).await;
    let debug: Pcrs = (0..16).map(|index| (index, Pcr::ZERO)).collect();
    let (kind, _) = refused(
        world
            .released("image", debug, &ciphertext, &context())
            .await,
    );
    assert_eq!(kind, "AccessDeniedException");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_under_another_root_is_refused() {
    let world = World::start().await;
    let ciphertext = world.wrapped("image", &context()).await;
    let pki = SimPki::generate((world.clock())());
    let foreign: std::sync::Arc<dyn attestation::Attester> =
        std::sync::Arc::new(SimNsm::new(pki, pcrs(), world.clock()));
    let outcome = world
        .client(world.host())
        .decrypt(&foreign, &arn("image"), &ciphertext, &context())
        .await;
    let (kind, _) = refused(outcome.map(|secret| secret.expose().to_vec()));
    assert_eq!(kind, "ValidationException");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_or_altered_document_is_refused() {
    let world = World::start().await;
    let ciphertext = world.wrapped("null", &context()).await;
    let key = RecipientKey::generate().unwrap();
    let document = world.document(pcrs(), key.spki_der());
    let ciphertext = STANDARD.encode(ciphertext);
    // A caller whose own credentials last.
    let call = async |document: &str| {
        let body = json!({"KeyId": arn("null"), "CiphertextBlob": ciphertext, "EncryptionContext": context_json(),
            "Recipient": {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": document}});
        let (status, answer) = world
            .raw(&world.principals[1], "Decrypt", &body, |_| {})
            .await;
        (
            status,
            answer["__type"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let refused = (400, "ValidationException".to_owned());
    assert_eq!(call(&document).await.0, 200);
    let mut altered = STANDARD.decode(&document).unwrap();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    assert_eq!(call(&STANDARD.encode(altered)).await, refused);
    assert_eq!(call("").await, refused);
    assert_eq!(call("AAAA").await, refused);
    // Not the document's own time decides but its leaf's: three hours.
    world.pass(3 * 3600 - 60);
    assert_eq!(call(&document).await.0, 200);
    world.pass(120);
    assert_eq!(call(&document).await, refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_document_is_good_and_of_no_use_to_who_replays_it() {
    let world = World::start().await;
    let ciphertext = world.wrapped("image", &context()).await;
    let enclave = RecipientKey::generate().unwrap();
    let document = world.document(pcrs(), enclave.spki_der());
    let body = json!({"KeyId": arn("image"), "CiphertextBlob": STANDARD.encode(&ciphertext), "EncryptionContext": context_json(),
        "Recipient": {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": document}});
    let thief = RecipientKey::generate().unwrap();
    for _ in 0..2 {
        let (status, answer) = world.raw(world.host(), "Decrypt", &body, |_| {}).await;
        assert_eq!((status, &answer["Plaintext"]), (200, &json!("")));
        let envelope = STANDARD
            .decode(answer["CiphertextForRecipient"].as_str().unwrap())
            .unwrap();
        assert!(thief.open(&envelope).is_err());
        assert_eq!(**enclave.open(&envelope).unwrap(), *SECRET);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_document_the_policy_alone_stands_between_a_caller_and_the_plaintext() {
    let world = World::start().await;
    let call = async |key: &str| {
        let ciphertext = STANDARD.encode(world.wrapped(key, &context()).await);
        let body = json!({"KeyId": arn(key), "CiphertextBlob": ciphertext, "EncryptionContext": context_json()});
        world.raw(world.host(), "Decrypt", &body, |_| {}).await
    };
    for key in ["image", "null"] {
        let (status, error) = call(key).await;
        assert_eq!(
            (status, &error["__type"]),
            (400, &json!("AccessDeniedException")),
            "{key}"
        );
        assert!(
            error["Message"]
                .as_str()
                .unwrap()
                .ends_with("with an explicit deny in a resource-based policy")
        );
    }
    // A key whose policy does not look at documents: the owner's mistake, and why the Terraform denies it three times.
    let (status, answer) = call("open").await;
    assert_eq!(
        (status, &answer["Plaintext"]),
        (200, &json!(STANDARD.encode(SECRET)))
    );
    let body =
        json!({"KeyId": arn("image"), "KeySpec": "AES_256", "EncryptionContext": context_json()});
    let (_, error) = world
        .raw(world.host(), "GenerateDataKey", &body, |_| {})
        .await;
    assert_eq!(error["__type"], "AccessDeniedException");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_wraps_and_he_cannot_unwrap() {
    let world = World::start().await;
    let outcome = world
        .client(world.host())
        .encrypt(&arn("image"), SECRET, &context())
        .await;
    let (kind, message) = refused(outcome);
    assert_eq!(kind, "AccessDeniedException");
    assert!(
        message.ends_with("because no resource-based policy allows the kms:Encrypt action"),
        "{message}"
    );
    let ciphertext = world.wrapped("image", &context()).await;
    let owner = world.client(&world.principals[1]);
    let outcome = owner
        .decrypt(&world.nsm(pcrs()), &arn("image"), &ciphertext, &context())
        .await;
    assert_eq!(
        refused(outcome.map(|s| s.expose().to_vec())).0,
        "AccessDeniedException"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ciphertext_of_another_model_epoch_or_manifest_is_refused() {
    let world = World::start().await;
    let other = "0".repeat(64);
    for wrong in [
        EncryptionContext::model("other", 1, MANIFEST),
        EncryptionContext::model("demo", 2, MANIFEST),
        EncryptionContext::model("demo", 1, &other),
    ] {
        let substituted = world.wrapped("image", &wrong).await;
        let outcome = world
            .released("image", pcrs(), &substituted, &context())
            .await;
        assert_eq!(refused(outcome).0, "InvalidCiphertextException");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ciphertext_of_another_key_or_of_none_is_refused() {
    let world = World::start().await;
    let substituted = world.wrapped("other", &context()).await;
    let outcome = world
        .released("image", pcrs(), &substituted, &context())
        .await;
    assert_eq!(refused(outcome).0, "IncorrectKeyException");
    let mut altered = world.wrapped("image", &context()).await;
    *altered.last_mut().unwrap() ^= 1;
    for ciphertext in [altered, b"nonsense".to_vec()] {
        let outcome = world
            .released("image", pcrs(), &ciphertext, &context())
            .await;
        assert_eq!(refused(outcome).0, "InvalidCiphertextException");
    }
    let outcome = world.released("absent", pcrs(), b"x", &context()).await;
    assert_eq!(refused(outcome).0, "NotFoundException");
}
