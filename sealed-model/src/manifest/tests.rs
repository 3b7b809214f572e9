use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn manifest() -> Value {
    let digest = "00".repeat(32);
    json!({
        "format": FORMAT,
        "name": "demo",
        "epoch": 3,
        "key_id": "models/demo/epoch-3",
        "key_check": digest,
        "created": "2026-11-20T12:00:00Z",
        "model_sig_sha256": digest,
        "bom_sha256": digest,
        "files": [
            {"path": "1_Pooling/config.json", "size": 0, "sha256": digest, "sealed_size": 56, "segments_sha256": digest},
            {"path": "model.safetensors", "size": 1, "sha256": digest, "sealed_size": 57, "segments_sha256": digest},
        ],
    })
}

fn parse(value: &Value) -> Result<Manifest, Error> {
    Manifest::parse(&serde_json::to_vec(value).unwrap())
}

#[test]
fn a_manifest_comes_back_as_it_was_written() {
    let parsed = parse(&manifest()).unwrap();
    assert_eq!(
        Manifest::parse(&parsed.to_bytes().unwrap()).unwrap(),
        parsed
    );
}

#[test]
fn each_inconsistency_is_refused() {
    let refuses = |pointer: &str, value: Value| {
        let mut changed = manifest();
        *changed.pointer_mut(pointer).unwrap() = value.clone();
        let outcome = parse(&changed);
        assert!(
            matches!(outcome, Err(Error::Manifest { .. })),
            "{pointer} = {value}: {outcome:?}"
        );
    };
    refuses("/name", json!("other"));
    refuses("/name", json!("../demo"));
    refuses("/epoch", json!(2));
    refuses("/epoch", json!(0));
    refuses("/epoch", json!(-1));
    refuses("/epoch", json!(3.5));
    refuses("/key_id", json!("models/demo/epoch-4"));
    refuses("/key_check", json!("00"));
    refuses("/created", json!("yesterday"));
    refuses("/files", json!([]));
    refuses("/files/0/path", json!("../config.json"));
    refuses("/files/0/path", json!("/config.json"));
    refuses("/files/0/path", json!("zzz.json"));
    refuses("/files/0/path", json!("Model.safetensors"));
    refuses("/files/0/path", json!("model.safetensors"));
    refuses("/files/0/size", json!(1));
    refuses("/files/0/size", json!(u64::MAX));
    refuses("/files/0/sealed_size", json!(57));
    refuses("/files/0/sha256", json!("zz".repeat(32)));
}

#[test]
fn fields_unknown_missing_or_twice_are_refused() {
    let mut extra = manifest();
    extra["extra"] = json!(1);
    assert!(parse(&extra).is_err());
    for field in [
        "name",
        "epoch",
        "key_id",
        "key_check",
        "created",
        "model_sig_sha256",
        "bom_sha256",
        "files",
    ] {
        let mut less = manifest();
        less.as_object_mut().unwrap().remove(field);
        assert!(parse(&less).is_err(), "{field}");
    }
    let twice = manifest()
        .to_string()
        .replacen('{', r#"{"name":"demo","#, 1);
    assert!(Manifest::parse(twice.as_bytes()).is_err());
}

#[test]
fn another_format_is_named() {
    let mut later = json!({"format": "cloister-sealed-model/2", "anything": true});
    assert!(
        matches!(parse(&later), Err(Error::UnknownFormat { found, .. }) if found.ends_with("/2"))
    );
    later["format"] = json!("x".repeat(100_000));
    assert!(
        parse(&later).unwrap_err().to_string().len() < 200,
        "a message stays one line"
    );
}

#[test]
fn bounds_hold_before_anything_is_parsed() {
    let long = vec![b' '; usize::try_from(MAX_MANIFEST_BYTES).unwrap() + 1];
    assert!(matches!(
        Manifest::parse(&long),
        Err(Error::Manifest { .. })
    ));
    let mut many = manifest();
    let entry = many["files"][0].clone();
    many["files"] = (0..=MAX_FILES)
        .map(|i| {
            let mut entry = entry.clone();
            entry["path"] = json!(format!("f{i:04}.json"));
            entry
        })
        .collect();
    assert!(matches!(parse(&many), Err(Error::Manifest { problem }) if problem.contains("513")));
    let mut vast = manifest();
    vast["files"].as_array_mut().unwrap().push(json!({}));
    let size = 1u64 << 40;
    let sealed = Layout::new(size).unwrap().ciphertext_len();
    for (index, name) in ["a.gguf", "b.gguf", "c.gguf"].into_iter().enumerate() {
        vast["files"][index] = json!({"path": name, "size": size, "sha256": "00".repeat(32), "sealed_size": sealed, "segments_sha256": "00".repeat(32)});
    }
    assert!(
        matches!(parse(&vast), Err(Error::Manifest { problem }) if problem.contains("2199023255552"))
    );
    vast["files"].as_array_mut().unwrap().pop();
    parse(&vast).unwrap();
    let nested = "[".repeat(100_000);
    assert!(Manifest::parse(nested.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn no_input_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        drop(Manifest::parse(&bytes));
    }

    #[test]
    fn no_mutation_of_a_manifest_makes_the_parser_panic(at in any::<prop::sample::Index>(), with in ".{0,8}") {
        let text = manifest().to_string();
        let at = at.index(text.len());
        if text.is_char_boundary(at) {
            let mut changed = text.clone();
            changed.insert_str(at, &with);
            drop(Manifest::parse(changed.as_bytes()));
            drop(Manifest::parse(&text.as_bytes()[..at]));
        }
    }
}

#[test]
fn what_a_manifest_says_cannot_steer_a_terminal() {
    for text in [
        "{\"format\": \"\\u001b[2Jowned\"}".to_owned(),
        format!("{{\"format\": \"{FORMAT}\", \"\\u001b[2Jowned\": 1}}"),
    ] {
        let error = Manifest::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error:?}");
        assert!(
            error.contains("owned") || error.contains("missing"),
            "{error:?}"
        );
    }
}
