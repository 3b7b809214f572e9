//! The bill of materials of a package against the CycloneDX 1.6 schema, by a validator that is not ours.
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::World;

const CARD: &str = "---
license: other
license_name: our-own
license_link: https://example.org/licence
base_model: org/base
pipeline_tag: text-generation
language: [en]
datasets: [one, two]
---
";

#[test]
fn the_bill_of_a_package_is_valid_cyclonedx_whatever_the_model_says_of_itself() {
    let Some(python) = support::python("cyclonedx.validation.json, jsonschema") else {
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("infra/supply-chain/tests/cyclonedx_validate.py");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bom.cdx.json");
    let valid = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let output = Command::new(&python)
            .arg(&script)
            .arg(&path)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), error)
    };
    let plain = World::new();
    let described = World::new();
    described.write("README.md", CARD.as_bytes());
    let gguf = World::new();
    gguf.write("q8.gguf", &fs::read("tests/data/tiny.gguf").unwrap());
    for world in [plain, described, gguf] {
        let package = world.package();
        let bom = &package.0["bom.cdx.json"];
        assert_eq!(valid(bom), (true, String::new()));
        let mut parsed: Value = serde_json::from_slice(bom).unwrap();
        let files = parsed["components"].as_array().unwrap().len();
        assert_eq!(files, world.open(&package).unwrap().files().len());
        // That it can refuse.
        parsed["metadata"]["component"]["modelCard"]["extra"] = json!(1);
        assert!(!valid(parsed.to_string().as_bytes()).0);
    }
}
