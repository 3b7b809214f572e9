//! `gateway check-policy` and its schema, as an operator and a program that writes policies use them.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a failed unwrap is a failed test"
)]

use std::path::Path;
use std::process::{Command, Output};

const POLICY: &str = r#"
format = "cloister-gateway-policy/1"
serial = 4
server_ids = ["spiffe://cloister.dev/enclave/demo"]
trust_anchor = "aws-nitro"
images = [{ "0" = "PCR", "16" = "PCR" }]
config_digests = ["DIGEST"]
max_age_s = 60
[fleet]
roles = ["arn:aws:iam::123456789012:role/enclaves"]
[[models]]
name = "demo"
min_epoch = 3
manifest_sha256 = "DIGEST"
publishers = ["DIGEST"]
"#;

fn policy(dir: &Path, edit: impl FnOnce(String) -> String) -> String {
    let text = POLICY
        .replace("PCR", &"01".repeat(48))
        .replace("DIGEST", &"02".repeat(32));
    let path = dir.join("policy.toml");
    std::fs::write(&path, edit(text)).unwrap();
    path.display().to_string()
}

fn gateway(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gateway"))
        .args(args)
        .output()
        .unwrap()
}

fn history(dir: &Path, serial: u64, sha256: &str) -> String {
    let path = dir.join("history.json");
    let text = format!(
        r#"{{"format":"cloister-gateway-policy-history/1","accepted":[{{"serial":{serial},"policy_sha256":"{sha256}","since":1}}]}}"#
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn says_what_a_policy_accepts_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = policy(dir.path(), |text| text);
    let absent = dir.path().join("history.json");
    let done = gateway(&["check-policy", &file, "--history", absent.to_str().unwrap()]);
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(0), "{text}");
    for word in [
        "spiffe://cloister.dev/enclave/demo",
        "AWS Nitro Enclaves",
        "image 0 PCR16",
        "demo from epoch 3",
        "the first policy here",
        "any: the parent is not pinned",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!absent.exists());
    let done = gateway(&["check-policy", &file, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(json["serial"], 4);
    assert_eq!(json["fleet"]["pcr3"].as_array().unwrap().len(), 1);
}

#[test]
fn refuses_with_a_line_and_a_code_for_each_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = policy(dir.path(), |text| text);
    let newer = history(dir.path(), 5, &"03".repeat(32));
    let cases = [
        (
            gateway(&["check-policy", &file, "--history", &newer]),
            77,
            "goes back",
        ),
        (
            gateway(&[
                "check-policy",
                &file,
                "--history",
                &history(dir.path(), 4, &"03".repeat(32)),
            ]),
            77,
            "raise the serial",
        ),
        (
            gateway(&[
                "check-policy",
                &policy(dir.path(), |text| text.replace("serial", "serail")),
            ]),
            64,
            "serail",
        ),
        (
            gateway(&["check-policy", "/nowhere/policy.toml"]),
            64,
            "cannot be read",
        ),
        (gateway(&["check-policy"]), 64, "POLICY"),
        (gateway(&[]), 64, "--config"),
    ];
    for (done, code, word) in cases {
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{said}");
        assert!(said.contains(word), "{word}: {said}");
    }
    std::fs::write(dir.path().join("history.json"), "{").unwrap();
    let done = gateway(&[
        "check-policy",
        &policy(dir.path(), |text| text),
        "--history",
        &newer,
    ]);
    assert_eq!(done.status.code(), Some(66));
}

/// Whatever the gateway refuses for its form, an editor with the schema refuses, and the reverse.
#[test]
fn the_schema_agrees_with_the_gateway() {
    let python = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/tools/py/bin/python3"
    );
    if !Path::new(python).is_file() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "jsonschema for Python is missing: run scripts/dev-tools"
        );
        println!("skipped: jsonschema for Python is not installed (scripts/dev-tools brings it)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let schema = gateway(&["policy-schema"]).stdout;
    std::fs::write(dir.path().join("schema.json"), schema).unwrap();
    let digest = "02".repeat(32);
    let many = format!("\"{digest}\", ").repeat(65);
    let one = format!("config_digests = [\"{digest}\"]");
    let several = format!("config_digests = [{many}]");
    let edits: [(&str, &str); 16] = [
        ("", ""),
        ("max_age_s = 60", "max_age_s = 3601"),
        ("max_age_s = 60", "max_age_s = 0"),
        ("max_age_s = 60", "reattest_s = 3600"),
        ("serial = 4", "serial = 0"),
        ("serial = 4", ""),
        ("policy/1", "policy/2"),
        ("/enclave/demo", ""),
        (
            "\"0\" =",
            "\"not_after\" = \"2027-01-01T00:00:00Z\", \"0\" =",
        ),
        ("\"0\" =", "\"until\" = \"2027-01-01T00:00:00Z\", \"0\" ="),
        ("\"0\" =", "\"32\" ="),
        ("\"0\" =", "\"1\" ="),
        (":role/", ":user/"),
        ("min_epoch = 3", "min_epoch = -3"),
        ("min_epoch = 3", "min_epoch = 3\nextra = 1"),
        (&one, &several),
    ];
    for (from, to) in edits {
        let file = policy(dir.path(), |text| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        let ours = gateway(&["check-policy", &file]);
        let theirs = Command::new(python)
            .args([
                "-c",
                "import json, sys, tomllib, jsonschema\n\
                 schema = json.load(open(sys.argv[1]))\n\
                 jsonschema.Draft202012Validator.check_schema(schema)\n\
                 jsonschema.validate(tomllib.load(open(sys.argv[2], 'rb')), schema, jsonschema.Draft202012Validator)",
                dir.path().join("schema.json").to_str().unwrap(),
                &file,
            ])
            .output()
            .unwrap();
        assert_eq!(
            ours.status.success(),
            theirs.status.success(),
            "{to:?}: gateway {}; jsonschema {}",
            String::from_utf8_lossy(&ours.stderr),
            String::from_utf8_lossy(&theirs.stderr)
        );
    }
}
