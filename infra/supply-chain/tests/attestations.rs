//! Signed statements: whose, about what, and in which form; everything else is refused.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]
mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use supply_chain::{
    Artifact, Blob, Bundle, CYCLONEDX_BOM, Envelope, Error, Provenance, SLSA_PROVENANCE,
    SigningKey, bom_sha256, provenance, sbom, sbom_statement, unsigned_statement,
};
use support::{COMMIT, build, crates, digest, keys};

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// An envelope as anyone can make one: any payload, any type, signed for real.
fn envelope(key: &SigningKey, payload_type: &str, payload: &[u8]) -> Value {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    let message = [head.as_bytes(), payload].concat();
    let digest = supply_chain::Sha256Digest::of(&message);
    json!({
        "payload": STANDARD.encode(payload),
        "payloadType": payload_type,
        "signatures": [{"keyid": "", "sig": STANDARD.encode(key.sign_digest(&digest).unwrap())}],
    })
}

fn statement() -> Value {
    serde_json::from_slice(&provenance(&build(), &[]).unwrap()).unwrap()
}

fn in_toto(key: &SigningKey, statement: &Value) -> Value {
    envelope(
        key,
        "application/vnd.in-toto+json",
        statement.to_string().as_bytes(),
    )
}

fn parse(value: &Value) -> Result<Envelope, Error> {
    Envelope::parse(value.to_string().as_bytes())
}

#[test]
fn what_was_signed_is_what_is_read() {
    let (key, public) = keys();
    let (_, other) = keys();
    let signed = Envelope::sign(&provenance(&build(), &[]).unwrap(), &key).unwrap();
    let read = Envelope::parse(&signed.to_bytes().unwrap()).unwrap();
    let trusted = [other, public.clone()];
    let (statement, by) = read.verify(&trusted).unwrap();
    assert_eq!(by, &public);
    assert_eq!(statement.names(&digest("the image")).unwrap(), "app.eif");
    let said = Provenance::of(&statement).unwrap();
    assert_eq!((said.name(), said.version()), ("cloister-chat", "1.2.0"));
    assert_eq!(said.commit().unwrap(), COMMIT);
    assert_eq!(said.config_sha256().unwrap(), digest("enclave.toml"));
}

#[test]
fn refuses_another_key_or_none() {
    let (key, _) = keys();
    let (_, other) = keys();
    let signed = Envelope::sign(&provenance(&build(), &[]).unwrap(), &key).unwrap();
    for keys in [&[other][..], &[]] {
        assert!(matches!(signed.verify(keys), Err(Error::Signature { .. })));
    }
}

#[test]
fn refuses_a_changed_payload_and_a_changed_type() {
    let (key, public) = keys();
    let mut statement = statement();
    let good = in_toto(&key, &statement);
    assert!(
        parse(&good)
            .unwrap()
            .verify(std::slice::from_ref(&public))
            .is_ok()
    );

    statement["subject"][0]["digest"]["sha256"] = json!(digest("another image").to_string());
    let mut changed = good.clone();
    changed["payload"] = json!(STANDARD.encode(statement.to_string()));
    let error = parse(&changed)
        .unwrap()
        .verify(std::slice::from_ref(&public))
        .unwrap_err();
    assert!(matches!(error, Error::Signature { .. }), "{error}");

    // Signed for another purpose: genuine, and refused by its type before anything else.
    let other = envelope(
        &key,
        "application/vnd.cloister.sealed-model.manifest.v1+json",
        b"{}",
    );
    assert!(matches!(parse(&other), Err(Error::Unexpected { .. })));
    let mut retyped = other;
    retyped["payloadType"] = json!("application/vnd.in-toto+json");
    assert!(parse(&retyped).unwrap().verify(&[public]).is_err());
}

#[test]
fn refuses_none_two_or_repeated_signatures() {
    let (key, _) = keys();
    let (second, _) = keys();
    let good = in_toto(&key, &statement());
    let sig = good["signatures"][0].clone();
    let other = in_toto(&second, &statement())["signatures"][0].clone();
    for signatures in [
        json!([]),
        json!([sig, other]),
        json!([sig, sig]),
        json!(sig),
        Value::Null,
    ] {
        let mut envelope = good.clone();
        envelope["signatures"] = signatures;
        assert!(
            matches!(parse(&envelope), Err(Error::Malformed { .. })),
            "{envelope}"
        );
    }
    let text = good.to_string().replacen('{', "{\"payload\":\"e30=\",", 1);
    assert!(Envelope::parse(text.as_bytes()).is_err(), "a payload twice");
}

#[test]
fn refuses_unknown_members_of_envelope_and_bundle() {
    let (key, public) = keys();
    let mut envelope = in_toto(&key, &statement());
    envelope["extra"] = json!(1);
    assert!(parse(&envelope).is_err());

    let signed = Envelope::sign(&provenance(&build(), &[]).unwrap(), &key).unwrap();
    let good: Value =
        serde_json::from_slice(&Bundle::of_statement(&signed, &public).unwrap()).unwrap();
    let edits: &[fn(&mut Value)] = &[
        |b| b["extra"] = json!(1),
        |b| b["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.2"),
        |b| b["verificationMaterial"] = json!({"certificate": {"rawBytes": ""}}),
        |b| b["verificationMaterial"]["certificate"] = json!({"rawBytes": ""}),
        |b| b["dsseEnvelope"]["payloadType"] = json!("text/plain"),
        |b| {
            b["messageSignature"] = json!({"messageDigest": {"algorithm": "SHA2_256", "digest": ""}, "signature": "MEUC"})
        },
        |b| {
            b.as_object_mut().unwrap().remove("dsseEnvelope");
        },
    ];
    assert!(matches!(
        Bundle::parse(good.to_string().as_bytes()),
        Ok(Bundle::Statement(_))
    ));
    for edit in edits {
        let mut bundle = good.clone();
        edit(&mut bundle);
        assert!(
            Bundle::parse(bundle.to_string().as_bytes()).is_err(),
            "{bundle}"
        );
    }
}

#[test]
fn refuses_a_signature_over_another_digest_than_sha_256() {
    let (key, public) = keys();
    let blob = Blob::read(b"image".as_slice()).unwrap();
    let bytes = Bundle::of_blob(&blob, &blob.sign(&key).unwrap(), &public).unwrap();
    let mut bundle: Value = serde_json::from_slice(&bytes).unwrap();
    let Bundle::Blob(signature) = Bundle::parse(&bytes).unwrap() else {
        panic!("{bundle}")
    };
    assert!(blob.verify(&signature, &[public]).is_ok());
    bundle["messageSignature"]["messageDigest"]["algorithm"] = json!("SHA2_512");
    assert!(Bundle::parse(bundle.to_string().as_bytes()).is_err());
}

#[test]
fn refuses_signed_payloads_that_are_no_statement_of_a_known_version() {
    let (key, public) = keys();
    let edits: &[fn(&mut Value)] = &[
        |s| s["_type"] = json!("https://in-toto.io/Statement/v2"),
        |s| s["_type"] = json!(1),
        |s| s["subject"] = json!([]),
        |s| s["subject"] = json!([{"name": "app.eif", "digest": {"sha512": "00"}}]),
        |s| s["subject"][0]["digest"]["sha1"] = json!("00"),
        |s| s["subject"][0]["uri"] = json!("https://x.example"),
        |s| s["extra"] = json!({}),
        |s| {
            s.as_object_mut().unwrap().remove("predicate");
        },
    ];
    for edit in edits {
        let mut statement = statement();
        edit(&mut statement);
        let signed = parse(&in_toto(&key, &statement)).unwrap();
        assert!(
            signed.verify(std::slice::from_ref(&public)).is_err(),
            "{statement}"
        );
        assert!(
            Envelope::sign(statement.to_string().as_bytes(), &key).is_err(),
            "{statement}"
        );
    }
    for payload in ["", "{}", "[]", "\u{0}"] {
        let signed = parse(&envelope(
            &key,
            "application/vnd.in-toto+json",
            payload.as_bytes(),
        ))
        .unwrap();
        assert!(
            signed.verify(std::slice::from_ref(&public)).is_err(),
            "{payload}"
        );
    }
}

fn provenance_of(edit: impl FnOnce(&mut Value)) -> Result<Provenance, Error> {
    let (key, public) = keys();
    let mut value = statement();
    edit(&mut value);
    let keys = [public];
    let (statement, _) = parse(&in_toto(&key, &value))
        .unwrap()
        .verify(&keys)
        .unwrap();
    Provenance::of(&statement)
}

#[test]
fn refuses_a_provenance_of_another_kind() {
    assert!(provenance_of(|_| ()).is_ok());
    let edits: &[fn(&mut Value)] = &[
        |s| s["predicateType"] = json!("https://slsa.dev/provenance/v0.2"),
        |s| s["predicateType"] = json!("https://slsa.dev/provenance/v1 "),
        |s| s["predicateType"] = json!(CYCLONEDX_BOM),
        |s| {
            s["predicate"]["buildDefinition"]["buildType"] =
                json!("https://slsa-framework.github.io/other")
        },
        |s| s["predicate"]["buildDefinition"]["extra"] = json!(1),
        |s| s["predicate"]["buildDefinition"]["externalParameters"]["debug"] = json!(true),
        |s| s["predicate"]["buildDefinition"]["externalParameters"]["config"] = json!({}),
        |s| s["predicate"]["buildDefinition"]["resolvedDependencies"] = json!([]),
        |s| {
            s["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"]["gitCommit"] =
                json!("main")
        },
        |s| s["predicate"] = json!({}),
        |s| s["predicate"] = Value::Null,
    ];
    for edit in edits {
        assert!(provenance_of(edit).is_err());
    }
    assert_eq!(PROVENANCE, SLSA_PROVENANCE);
}

#[test]
fn a_statement_about_other_files_does_not_serve_for_this_one() {
    let (key, public) = keys();
    let keys = [public];
    let (statement, _) = parse(&in_toto(&key, &statement()))
        .unwrap()
        .verify(&keys)
        .unwrap();
    assert!(statement.names(&digest("another image")).is_err());
    assert!(matches!(
        statement.expect(CYCLONEDX_BOM),
        Err(Error::Unexpected { .. })
    ));

    let image = Blob::read(b"another image".as_slice()).unwrap();
    assert!(unsigned_statement(&image, provenance(&build(), &[]).unwrap()).is_err());
    let image = Blob::read(b"the image".as_slice()).unwrap();
    assert!(unsigned_statement(&image, provenance(&build(), &[]).unwrap()).is_ok());
}

#[test]
fn an_attested_bill_of_materials_is_the_file_it_was_made_from() {
    let (key, public) = keys();
    let bytes = sbom(&build(), &crates()).unwrap();
    let image = build().image;
    let signed = Envelope::sign(&sbom_statement(&image, &bytes).unwrap(), &key).unwrap();
    let keys = [public];
    let (statement, _) = signed.verify(&keys).unwrap();
    assert_eq!(
        bom_sha256(&statement).unwrap(),
        supply_chain::Sha256Digest::of(&bytes)
    );
    assert!(statement.expect(CYCLONEDX_BOM).is_ok());
    assert!(Provenance::of(&statement).is_err());
}

#[test]
fn refuses_a_bill_of_materials_of_another_image_or_version() {
    let bytes = sbom(&build(), &crates()).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let other = Artifact {
        sha256: digest("another image"),
        ..build().image
    };
    assert!(matches!(
        sbom_statement(&other, &bytes),
        Err(Error::Digest { .. })
    ));
    for changed in [
        text.replace("\"specVersion\":\"1.6\"", "\"specVersion\":\"1.7\""),
        text.replace("\"CycloneDX\"", "\"SPDX\""),
        "{}".into(),
        String::new(),
    ] {
        assert!(sbom_statement(&build().image, changed.as_bytes()).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        drop(Envelope::parse(&bytes));
        drop(Bundle::parse(&bytes));
    }

    /// Cut or changed anywhere, a signed statement is refused or says what it said.
    #[test]
    fn no_change_of_a_byte_changes_what_is_believed(at in 0usize..4000, byte in any::<u8>()) {
        let key = SigningKey::from_pem(include_str!("../../../sealed-model/tests/data/openssl-p256.key.pem")).unwrap();
        let keys = [key.public().unwrap()];
        let good = Envelope::sign(&provenance(&build(), &[]).unwrap(), &key).unwrap();
        let (said, _) = good.verify(&keys).unwrap();
        let mut bytes = good.to_bytes().unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok((statement, _)) = Envelope::parse(&bytes).and_then(|e| e.verify(&keys)) {
            prop_assert_eq!(statement, said);
        }
    }
}
