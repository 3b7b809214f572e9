//! The key policy of `infra/aws`, as Terraform writes it, decided by the service on true documents.

use std::sync::Arc;

use attestation::{Pcr, Pcrs};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms_client::{CredentialSource, Error};
use serde_json::json;

use crate::world::{World, arn, context, context_json, credentials, principal};

const KEY: &str = "terraform";
const OTHER_ROLE: &str = "arn:aws:iam::111122223333:role/other";
const ADMIN: &str = "arn:aws:iam::111122223333:role/key-admin";

/// The registers of an image of that policy: each holds its letter and number over and over.
fn image(letter: u8, registers: &[u8]) -> Pcrs {
    let mut pcrs: Pcrs = (0..16).map(|index| (index, Pcr::ZERO)).collect();
    for index in registers {
        pcrs.insert(*index, Pcr::from_bytes([letter << 4 | index; 48]));
    }
    pcrs
}

fn first() -> Pcrs {
    image(0xa, &[0, 1, 2])
}

fn second() -> Pcrs {
    image(0xb, &[0, 1, 2, 8])
}

async fn is_denied(world: &World, pcrs: Pcrs, ciphertext: &[u8]) -> bool {
    match world.released(KEY, pcrs, ciphertext, &context()).await {
        Err(Error::Refused { kind, .. }) => kind == "AccessDeniedException",
        Err(other) => panic!("{other}"),
        Ok(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_its_images_gets_the_key() {
    let world = World::start().await;
    let ciphertext = world.wrapped(KEY, &context()).await;
    let mut elsewhere = second();
    elsewhere.insert(4, Pcr::ZERO.extend(b"any instance"));
    for pcrs in [first(), second(), elsewhere] {
        assert!(
            world
                .released(KEY, pcrs, &ciphertext, &context())
                .await
                .is_ok()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_measurement_is_denied() {
    let world = World::start().await;
    let ciphertext = world.wrapped(KEY, &context()).await;
    for register in [0, 1, 2] {
        let mut other = first();
        other.insert(register, Pcr::ZERO.extend(b"another"));
        assert!(is_denied(&world, other, &ciphertext).await, "{register}");
        // Of two accepted images, one register here and the others there.
        let mut mixed = first();
        mixed.insert(register, second()[&register]);
        assert!(is_denied(&world, mixed, &ciphertext).await, "{register}");
    }
    // The second image counts only with the signature that its statement names.
    assert!(is_denied(&world, image(0xb, &[0, 1, 2]), &ciphertext).await);
    let mut signed_by_others = second();
    signed_by_others.insert(8, Pcr::ZERO.extend(b"another"));
    assert!(is_denied(&world, signed_by_others, &ciphertext).await);
    let debug = image(0, &[]);
    assert!(is_denied(&world, debug, &ciphertext).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_document_nobody_gets_it() {
    let world = World::start().await;
    let ciphertext = world.wrapped(KEY, &context()).await;
    let blob = STANDARD.encode(ciphertext);
    for caller in &world.principals {
        for (operation, extra) in [
            ("Decrypt", json!({"CiphertextBlob": blob})),
            ("GenerateDataKey", json!({"KeySpec": "AES_256"})),
        ] {
            let mut body = json!({"KeyId": arn(KEY), "EncryptionContext": context_json()});
            let members = body.as_object_mut().unwrap();
            members.extend(extra.as_object().unwrap().clone());
            let (status, answer) = world.raw(caller, operation, &body, |_| {}).await;
            assert_eq!(status, 400, "{operation} {}", caller.arn);
            assert_eq!(answer["__type"], "AccessDeniedException", "{operation}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_another_role_nor_an_administrator_gets_it_with_a_right_document() {
    let others = [
        principal(OTHER_ROLE, "AKIAOTHER", None),
        principal(ADMIN, "AKIAADMIN", None),
    ];
    let world = World::start_with(&others).await;
    let ciphertext = world.wrapped(KEY, &context()).await;
    for caller in others.iter().chain(&world.principals[1..2]) {
        let client = world.client_with(CredentialSource::Fixed(Arc::new(credentials(caller))));
        let answer = client
            .decrypt(&world.nsm(first()), &arn(KEY), &ciphertext, &context())
            .await;
        assert!(
            matches!(&answer, Err(Error::Refused { kind, .. }) if kind == "AccessDeniedException"),
            "{}",
            caller.arn
        );
    }
}
