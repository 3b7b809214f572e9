//! Enclave images: what `cloister` builds, measures and compares, and that those who decide can use what it prints.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]

use std::fs;
use std::process::{Command, Output};

use attestation::{Pcr, ReferenceValues};
use serde_json::{Value, json};
use tempfile::TempDir;

const ROLE: &str = "arn:aws:iam::123456789012:role/enclave";
const INSTANCE: &str = "i-0123456789abcdef0";

fn world() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("kernel", "the kernel"),
        ("boot", "first ramdisk"),
        ("app", "second"),
    ] {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn run(dir: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloister"))
        .current_dir(dir)
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn build(dir: &TempDir, cmdline: &str, ramdisks: &[&str], out: &str) -> Output {
    let mut arguments = vec!["build-eif", "--kernel", "kernel", "--cmdline", cmdline];
    for ramdisk in ramdisks {
        arguments.extend(["--ramdisk", ramdisk]);
    }
    arguments.extend(["--out", out]);
    run(dir, &arguments)
}

fn built(dir: &TempDir, out: &str) {
    stdout(&build(dir, "console=ttyS0", &["boot", "app"], out), 0);
}

fn refused(output: &Output, code: i32, about: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.starts_with("error: "), "{text}");
    for word in about {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

fn measured(dir: &TempDir, arguments: &[&str]) -> String {
    stdout(&run(dir, &[&["measure", "a.eif"], arguments].concat()), 0)
}

/// By the definition, without the crate under test.
fn expected(parts: &[&str]) -> String {
    let digest = attestation::Sha384Digest::of(parts.concat().as_bytes());
    Pcr::ZERO.extend(digest.as_bytes()).to_string()
}

#[test]
fn two_builds_are_equal_and_measured_as_defined() {
    let dir = world();
    built(&dir, "a.eif");
    built(&dir, "b.eif");
    assert_eq!(
        fs::read(dir.path().join("a.eif")).unwrap(),
        fs::read(dir.path().join("b.eif")).unwrap()
    );
    let json: Value = serde_json::from_str(&measured(&dir, &["--format", "json"])).unwrap();
    let (kernel, boot, app) = ("the kernel", "first ramdisk", "second");
    let line = "console=ttyS0";
    assert_eq!(
        json["pcrs"],
        json!({
            "0": expected(&[kernel, line, boot, app]),
            "1": expected(&[kernel, line, boot]),
            "2": expected(&[app]),
        })
    );
    assert_eq!(json["command_line"], line);
    assert_eq!(json["ramdisks"][1]["size"], 6);
    let text = measured(&dir, &["--role", ROLE, "--instance", INSTANCE]);
    for word in [
        "ramdisk 2",
        "PCR8",
        &expected(&[app]),
        &Pcr::ZERO.extend(ROLE.as_bytes()).to_string(),
        &Pcr::ZERO.extend(INSTANCE.as_bytes()).to_string(),
    ] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

#[test]
fn the_kms_condition_names_each_register() {
    let dir = world();
    built(&dir, "a.eif");
    let text = measured(&dir, &["--format", "kms", "--role", ROLE]);
    let block: Value = serde_json::from_str(&text).unwrap();
    let conditions = block["Condition"]["StringEqualsIgnoreCase"]
        .as_object()
        .unwrap();
    let keys: Vec<_> = conditions.keys().collect();
    assert_eq!(
        keys,
        [0, 1, 2, 3]
            .map(|n| format!("kms:RecipientAttestation:PCR{n}"))
            .iter()
            .collect::<Vec<_>>()
    );
    assert_eq!(conditions[keys[2]], expected(&["second"]));
}

#[test]
fn the_rego_policy_allows_this_image_this_key_and_nothing_else() {
    let dir = world();
    built(&dir, "a.eif");
    let key = "models/chat/epoch-3";
    let policy = measured(&dir, &["--format", "rego", "--key-id", key]);
    let json: Value = serde_json::from_str(&measured(&dir, &["--format", "json"])).unwrap();
    let allows = |pcrs: &Value, plugin: &str, path: &str| {
        let mut engine = regorus::Engine::new();
        engine
            .add_policy("policy.rego".into(), policy.clone())
            .unwrap();
        let path: Vec<_> = path.split('/').collect();
        let data = json!({"plugin": plugin, "resource-path": path, "query": {}});
        engine.add_data(regorus::Value::from(data)).unwrap();
        engine.set_input(regorus::Value::from(json!({"nitro": {"pcrs": pcrs}})));
        engine.eval_rule("data.policy.allow".into()).unwrap() == regorus::Value::from(true)
    };
    let good = &json["pcrs"];
    assert!(allows(good, "resource", key));
    assert!(!allows(good, "resource", "models/chat/epoch-4"));
    assert!(!allows(good, "other", key));
    assert!(!allows(&json!({}), "resource", key));
    for register in ["0", "1", "2"] {
        let mut pcrs = good.clone();
        pcrs[register] = "00".repeat(48).into();
        assert!(!allows(&pcrs, "resource", key), "{register}");
        pcrs.as_object_mut().unwrap().remove(register);
        assert!(!allows(&pcrs, "resource", key), "{register}");
    }
}

#[test]
fn the_gateways_line_is_a_list_of_reference_values() {
    #[derive(serde::Deserialize)]
    struct Policy {
        images: ReferenceValues,
    }
    let dir = world();
    built(&dir, "a.eif");
    let text = measured(&dir, &["--format", "gateway", "--instance", INSTANCE]);
    let policy: Policy = toml::from_str(&text).unwrap();
    let [image] = policy.images.images() else {
        panic!("{text}");
    };
    assert_eq!(
        image.registers.keys().copied().collect::<Vec<_>>(),
        [0, 1, 2, 4]
    );
    assert_eq!(image.registers[&2].to_string(), expected(&["second"]));
}

#[test]
fn diff_names_what_changed_and_the_registers_that_follow() {
    let dir = world();
    built(&dir, "a.eif");
    built(&dir, "same.eif");
    stdout(&build(&dir, "quiet", &["boot", "app"], "line.eif"), 0);
    stdout(
        &build(&dir, "console=ttyS0", &["boot", "kernel"], "app.eif"),
        0,
    );
    stdout(&build(&dir, "console=ttyS0", &["boot"], "less.eif"), 0);
    let diff = |other: &str, code| stdout(&run(&dir, &["diff", "a.eif", other]), code);
    assert_eq!(diff("same.eif", 0), "no register differs\n");
    let text = diff("line.eif", 1);
    assert!(
        text.starts_with("command line: moves PCR0 PCR1\n"),
        "{text}"
    );
    assert!(text.contains("+ \"quiet\""), "{text}");
    assert!(
        text.ends_with("differ: PCR0 PCR1; equal: PCR2 PCR8\n"),
        "{text}"
    );
    let text = diff("app.eif", 1);
    assert!(text.starts_with("ramdisk 2: moves PCR0 PCR2\n"), "{text}");
    assert!(
        text.ends_with("differ: PCR0 PCR2; equal: PCR1 PCR8\n"),
        "{text}"
    );
    assert!(diff("less.eif", 1).contains("+ absent"));
}

#[test]
fn a_changed_or_foreign_file_is_refused_with_its_name() {
    let dir = world();
    built(&dir, "a.eif");
    let mut bytes = fs::read(dir.path().join("a.eif")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(dir.path().join("changed.eif"), &bytes).unwrap();
    refused(
        &run(&dir, &["measure", "changed.eif"]),
        77,
        &["changed.eif", "CRC-32"],
    );
    refused(
        &run(&dir, &["measure", "kernel"]),
        77,
        &["kernel", "ends inside the header"],
    );
    refused(&run(&dir, &["measure", "missing"]), 64, &["missing"]);
    refused(
        &run(&dir, &["diff", "a.eif", "changed.eif"]),
        77,
        &["changed.eif"],
    );
}

#[test]
fn arguments_that_would_give_a_wrong_register_are_refused() {
    let dir = world();
    built(&dir, "a.eif");
    let measure = |arguments: &[&str]| run(&dir, &[&["measure", "a.eif"], arguments].concat());
    for role in [
        "enclave",
        "arn:aws:iam::123456789012:instance-profile/enclave",
        "arn:aws:sts::123456789012:assumed-role/enclave/i-0",
        "arn:aws:iam::1234:role/enclave",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:role/enclave\n",
    ] {
        refused(&measure(&["--role", role]), 64, &["PCR3"]);
    }
    for instance in ["0123456789abcdef0", "i-123", "i-0123456789ABCDEF0"] {
        refused(&measure(&["--instance", instance]), 64, &["instance"]);
    }
    refused(&measure(&["--format", "rego"]), 64, &["--key-id"]);
    refused(
        &measure(&["--key-id", "models/chat/epoch-1"]),
        64,
        &["rego"],
    );
    for key in ["a/b", "a/b/c/d", "a//c", "a/b/\"}"] {
        refused(
            &measure(&["--format", "rego", "--key-id", key]),
            64,
            &["models/chat"],
        );
    }
}

#[test]
fn a_build_that_fails_leaves_nothing_behind() {
    let dir = world();
    built(&dir, "a.eif");
    refused(
        &build(&dir, "", &["boot"], "a.eif"),
        64,
        &["a.eif", "exists"],
    );
    refused(
        &build(&dir, &"x".repeat(2048), &["boot"], "c.eif"),
        64,
        &["command line", "2047"],
    );
    refused(&build(&dir, "", &["missing"], "c.eif"), 64, &["missing"]);
    fs::write(dir.path().join("empty"), "").unwrap();
    refused(
        &build(&dir, "", &["boot", "empty"], "c.eif"),
        64,
        &["ramdisk is empty"],
    );
    let mut names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["a.eif", "app", "boot", "empty", "kernel"]);
}
