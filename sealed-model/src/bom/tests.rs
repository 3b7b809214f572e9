use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{SigningKey, sign_model};

const CARD: &str = "---\r
language:\r
- en\r
- 'de'\r
license: apache-2.0 # as the base\r
base_model: [BAAI/bge-base, \"my own: base\"]
pipeline_tag: sentence-similarity
library_name: \"sentence-transformers\"
datasets:
  - s2orc
  - nested: value
widget:
- source_sentence: x
  sentences:
    - y
license: mit
---
# Card
license: gpl-3.0
";

fn made(facts: &Facts) -> Value {
    let signer = SigningKey::generate().unwrap();
    let digest = Sha256Digest::of(b"x");
    let files = [FileEntry {
        path: "model.safetensors".into(),
        size: 1,
        sha256: digest,
        sealed_size: 57,
        segments_sha256: digest,
    }];
    let sig = sign_model("demo", [("model.safetensors", digest)], &signer).unwrap();
    let (model, _) = SignedModel::verify(&sig, &[signer.public().unwrap()])
        .map(|(model, _)| (model, ()))
        .unwrap();
    let created = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    let bytes = bom("demo", created, facts, &model, &files).unwrap();
    assert_eq!(bytes, bom("demo", created, facts, &model, &files).unwrap());
    let bom: Value = serde_json::from_slice(&bytes).unwrap();
    let content = &bom["metadata"]["component"]["hashes"][0]["content"];
    assert_eq!(content, &json!(model.digest()));
    bom
}

#[test]
fn front_matter_gives_its_top_level_values_and_lists() {
    let card = front_matter(CARD);
    let list = |key: &str| card[key].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(list("language"), ["en", "de"]);
    assert_eq!(
        list("license"),
        ["apache-2.0"],
        "the first, without comment"
    );
    assert_eq!(list("base_model"), ["BAAI/bge-base", "my own: base"]);
    assert_eq!(list("library_name"), ["sentence-transformers"]);
    assert_eq!(list("datasets"), ["s2orc"]);
    assert!(list("widget").is_empty());
}

#[test]
fn what_is_no_front_matter_says_nothing() {
    for text in [
        "",
        "# Model\nlicense: mit\n",
        "---\nlicense: mit\n",
        " ---\nlicense: mit\n---\n",
        "---\nlicense:\n  mit\n---",
        "---\nlicense: |\n  mit\n---",
        "---\nlicense: &a mit: b\n---",
        "---\nlicense: \u{1b}[2J\n---",
        "---\nlicense: null\n---",
    ] {
        let card = front_matter(text);
        assert!(card.values().all(Vec::is_empty), "{text:?}: {card:?}");
    }
    let long = format!("---\n{}---\n", "a: b\n".repeat(100_000));
    assert!(front_matter(&long).is_empty());
    let many = format!("---\ntags:\n{}---\n", "- x\n".repeat(1000));
    assert_eq!(front_matter(&many)["tags"].len(), MAX_ITEMS_OF_A_LIST);
}

const MAX_ITEMS_OF_A_LIST: usize = 64;

#[test]
fn a_bill_says_what_card_configuration_and_weights_say() {
    let mut facts = Facts {
        config: Some(json!({
            "model_type": "bert", "architectures": ["BertModel"],
            "quantization_config": {"quant_method": "gptq", "bits": 4},
        })),
        card: front_matter(CARD),
        ..Facts::default()
    };
    facts.count(&[("F32".to_owned(), 5)].into());
    facts.count(&[("F32".to_owned(), 2), ("I64".to_owned(), 1)].into());
    let bom = made(&facts);
    let model = &bom["metadata"]["component"];
    assert_eq!(
        model["licenses"],
        json!([{"license": {"id": "Apache-2.0", "acknowledgement": "declared"}}])
    );
    assert_eq!(
        model["pedigree"]["ancestors"],
        json!([
            {"type": "machine-learning-model", "name": "BAAI/bge-base", "purl": "pkg:huggingface/BAAI/bge-base"},
            {"type": "machine-learning-model", "name": "my own: base"},
        ])
    );
    assert_eq!(
        model["modelCard"],
        json!({
            "modelParameters": {
                "task": "sentence-similarity",
                "inputs": [{"format": "text"}], "outputs": [{"format": "embedding"}],
                "architectureFamily": "bert", "modelArchitecture": "BertModel",
                "datasets": [{"type": "dataset", "name": "s2orc"}],
            },
            "properties": [
                {"name": "cloister:language", "value": "en"},
                {"name": "cloister:language", "value": "de"},
                {"name": "cloister:library", "value": "sentence-transformers"},
                {"name": "cloister:parameters", "value": "8"},
                {"name": "cloister:parameters:F32", "value": "7"},
                {"name": "cloister:parameters:I64", "value": "1"},
                {"name": "cloister:quantization", "value": "gptq, 4 bit"},
            ],
        })
    );
    assert_eq!(bom["components"][0]["hashes"][0]["alg"], "SHA-256");
    assert_eq!(bom["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
}

#[test]
fn a_gguf_file_speaks_for_itself_and_what_nobody_says_is_left_out() {
    let tiny = include_bytes!("../../tests/data/tiny.gguf");
    let mut facts = Facts::default();
    facts.gguf(gguf::check(tiny.as_slice(), tiny.len() as u64).unwrap());
    let bom = made(&facts);
    let model = &bom["metadata"]["component"];
    assert_eq!(model["licenses"][0]["license"]["id"], "Apache-2.0");
    assert_eq!(
        model["pedigree"]["ancestors"][0]["purl"],
        "pkg:huggingface/org/Base"
    );
    let card = model["modelCard"].to_string();
    assert!(card.contains(r#""architectureFamily":"llama""#), "{card}");
    assert!(
        card.contains(r#"{"name":"cloister:quantization","value":"Q8_0"}"#),
        "{card}"
    );

    let bom = made(&Facts::default());
    let model = bom["metadata"]["component"].as_object().unwrap();
    assert!(!model.contains_key("licenses") && !model.contains_key("pedigree"));
}

#[test]
fn a_licence_that_spdx_does_not_list_keeps_its_name_and_link() {
    let licence = |front: &str| {
        let facts = Facts {
            card: front_matter(&format!("---\n{front}\n---\n")),
            ..Facts::default()
        };
        facts.licence()
    };
    assert_eq!(
        licence(
            "license: other\nlicense_name: qwen-research\nlicense_link: https://example.org/LICENSE"
        ),
        Some(
            json!({"name": "qwen-research", "url": "https://example.org/LICENSE", "acknowledgement": "declared"})
        )
    );
    assert_eq!(
        licence("license: llama3.1\nlicense_link: javascript:alert(1)"),
        Some(json!({"name": "llama3.1", "acknowledgement": "declared"}))
    );
    assert_eq!(
        licence("license: gpl-3.0").unwrap()["id"],
        json!("GPL-3.0-only")
    );
    assert_eq!(licence("license: []"), None);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(---\n)?([a-z]{0,4}:? ?[\\PC]{0,8}\n|- .{0,8}\n|---\n){0,12}") {
        let card = front_matter(&text);
        prop_assert!(card.values().flatten().all(|value| value.len() <= 200 && !value.chars().any(char::is_control)));
    }
}
