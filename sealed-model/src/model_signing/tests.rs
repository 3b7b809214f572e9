use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

fn files() -> [(&'static str, Sha256Digest); 4] {
    [
        ("b-c", digest("1")),
        ("b/d", digest("2")),
        ("a.txt", digest("3")),
        ("sub/.git/h", digest("4")),
    ]
}

fn statement(signer: &SigningKey) -> Value {
    let bytes = sign_model("m", files(), signer).unwrap();
    let Ok(Content::Envelope(envelope)) = sigstore::parse(&bytes, MAX_BUNDLE) else {
        panic!("a bundle of ours has an envelope");
    };
    let keys = [signer.public().unwrap()];
    let (payload, _) = envelope.verify(&keys).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// What is said of a statement that a trusted key has signed, whatever is in it.
fn signed(statement: &Value, signer: &SigningKey) -> Result<SignedModel, Error> {
    let envelope = Envelope::sign(IN_TOTO, statement.to_string().as_bytes(), signer).unwrap();
    let bundle = sigstore::write(String::new(), Content::Envelope(envelope)).unwrap();
    SignedModel::verify(&bundle, &[signer.public().unwrap()]).map(|(model, _)| model)
}

#[test]
fn a_statement_lists_folder_by_folder_and_its_digest_covers_all() {
    let signer = SigningKey::generate().unwrap();
    let statement = statement(&signer);
    let names: Vec<_> = statement["predicate"]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a.txt", "b/d", "b-c", "sub/.git/h"]);
    let raw: Vec<u8> = ["3", "2", "1", "4"]
        .iter()
        .flat_map(|text| *digest(text).as_bytes())
        .collect();
    assert_eq!(
        statement["subject"],
        json!([{"name": "m", "digest": {"sha256": Sha256Digest::of(&raw)}}])
    );
    let model = signed(&statement, &signer).unwrap();
    model.expect(files().into_iter()).unwrap();
    assert_eq!((model.name(), model.files().len()), ("m", 4));
    assert!(model.expect(files().into_iter().take(3)).is_err());
    let other = files().into_iter().map(|(path, _)| (path, digest("1")));
    assert!(model.expect(other).is_err());
}

#[test]
fn a_signature_of_another_key_or_over_another_payload_is_refused() {
    let (ours, other) = (
        SigningKey::generate().unwrap(),
        SigningKey::generate().unwrap(),
    );
    let bytes = sign_model("m", files(), &ours).unwrap();
    let keys = [other.public().unwrap(), ours.public().unwrap()];
    let (_, key) = SignedModel::verify(&bytes, &keys).unwrap();
    assert_eq!(key, &keys[1]);
    for keys in [&keys[..1], &[]] {
        let error = SignedModel::verify(&bytes, keys).unwrap_err();
        assert!(error.to_string().contains("none of the keys"), "{error}");
    }
    let bundle: Value = serde_json::from_slice(&bytes).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut changed = bundle.clone();
        change(&mut changed);
        SignedModel::verify(changed.to_string().as_bytes(), &keys)
    };
    changed(&|b| b["verificationMaterial"]["tlogEntries"] = json!([])).unwrap();
    changed(&|b| b["dsseEnvelope"]["signatures"][0]["keyid"] = json!("")).unwrap();
    for change in [
        (|b| b["mediaType"] = json!("application/vnd.dev.sigstore.bundle.v0.2+json"))
            as fn(&mut Value),
        |b| b["dsseEnvelope"]["payloadType"] = json!("text/plain"),
        |b| b["dsseEnvelope"]["payload"] = json!("e30="),
        |b| b["dsseEnvelope"]["payload"] = json!("!"),
        |b| b["dsseEnvelope"]["signatures"] = json!([]),
        |b| b["dsseEnvelope"]["signatures"][0]["sig"] = json!("AAAA"),
        |b| {
            let one = b["dsseEnvelope"]["signatures"][0].clone();
            b["dsseEnvelope"]["signatures"] = json!([one, one]);
        },
        |b| b["verificationMaterial"] = json!({"certificate": {"rawBytes": ""}}),
        |b| b["unknown"] = json!(1),
    ] {
        let outcome = changed(&change);
        assert!(
            matches!(outcome, Err(Error::ModelSignature { .. })),
            "{outcome:?}"
        );
    }
}

#[test]
fn each_thing_that_a_signed_statement_must_not_say_is_refused() {
    let signer = SigningKey::generate().unwrap();
    let good = statement(&signer);
    let refused = |pointer: &str, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value.clone();
        let outcome = signed(&changed, &signer);
        assert!(
            matches!(outcome, Err(Error::ModelSignature { .. })),
            "{pointer} = {value}: {outcome:?}"
        );
    };
    refused("/_type", json!("https://in-toto.io/Statement/v0.1"));
    refused(
        "/predicateType",
        json!("https://model_signing/Digests/v0.1"),
    );
    refused("/subject", json!([]));
    refused("/subject/0/digest/sha256", json!("00".repeat(32)));
    refused("/subject/0/digest", json!({"sha512": "00"}));
    refused("/predicate/serialization/method", json!("shards"));
    refused("/predicate/serialization/hash_type", json!("blake3"));
    refused("/predicate/serialization/allow_symlinks", json!("yes"));
    refused("/predicate/resources", json!([]));
    refused("/predicate/resources/0/algorithm", json!("blake2b"));
    refused("/predicate/resources/0/digest", json!("00"));
    refused("/predicate/resources/0/name", json!("b/d"));
    for name in ["", "/etc/passwd", "../a", "a/../b", "a//b", "./a", "a\0"] {
        refused("/predicate/resources/0/name", json!(name));
    }
    // In another order the digest is another one.
    let mut swapped = good.clone();
    let resources = swapped["predicate"]["resources"].as_array_mut().unwrap();
    resources.swap(0, 1);
    assert!(signed(&swapped, &signer).is_err());
    // v1.0: what a reader does not know in the predicate it passes over.
    let mut later = good.clone();
    later["predicate"]["later"] = json!(1);
    later["predicate"]["serialization"]["later"] = json!(1);
    signed(&later, &signer).unwrap();
    let mut less = good;
    let serialization = less["predicate"]["serialization"].as_object_mut().unwrap();
    serialization.remove("ignore_paths");
    signed(&less, &signer).unwrap();
}

proptest! {
    #[test]
    fn no_input_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        drop(SignedModel::verify(&bytes, &[]));
        drop(SignedModel::parse(&bytes));
    }

    #[test]
    fn no_change_of_a_statement_makes_the_reader_panic(at in any::<prop::sample::Index>(), with in ".{0,8}") {
        let signer = SigningKey::generate().unwrap();
        let text = statement(&signer).to_string();
        let at = at.index(text.len());
        if text.is_char_boundary(at) {
            let mut changed = text.clone();
            changed.insert_str(at, &with);
            drop(SignedModel::parse(changed.as_bytes()));
            drop(SignedModel::parse(&text.as_bytes()[..at]));
        }
    }
}
