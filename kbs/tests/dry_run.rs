//! `kbs policy test`, the program itself, on documents of real enclaves.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test code: a failed unwrap is a failed test, and a skipped one says so"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folder of real documents, kept beside the project; `None` (said) where it is absent.
fn vectors() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/nitro");
    if !folder.is_dir() {
        eprintln!("skipped: {} is absent", folder.display());
        return None;
    }
    Some(folder)
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("policies")
        .join(name)
}

fn kbs(policy: &Path, document: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kbs"))
        .args(["policy", "test", "--resource", "models/demo/epoch-1"])
        .arg("--policy")
        .arg(policy)
        .arg("--document")
        .arg(document)
        .args(more)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn a_signed_production_image_passes_the_policy_that_names_it() {
    let Some(vectors) = vectors() else { return };
    let document = vectors.join("accept_signed_image_2022.bin");
    let dir = tempfile::tempdir().unwrap();
    let shipped = shipped("measured-signer-role-epoch.rego");

    // What a person would do: run it, read the registers, fill them in.
    let output = kbs(&shipped, &document, &[]);
    assert_eq!(output.status.code(), Some(77), "{}", said(&output));
    let text = said(&output);
    for reason in ["no listed image", "no listed signer", "no listed role"] {
        assert!(text.contains(reason), "{text}");
    }
    let mut policy = std::fs::read_to_string(&shipped).unwrap();
    for index in [0, 1, 2, 3, 8] {
        let name = format!("pcr{index} ");
        let line = text.lines().find(|line| line.starts_with(&name)).unwrap();
        let value = line.split_whitespace().last().unwrap();
        policy = policy.replace(&format!("<PCR{index}: 96 hex digits>"), value);
    }
    let filled = dir.path().join("filled.rego");
    std::fs::write(&filled, policy).unwrap();
    let output = kbs(&filled, &document, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));

    // Another image, the same image later, and an epoch of another model.
    let other = vectors.join("accept_2024.bin");
    assert_eq!(kbs(&filled, &other, &[]).status.code(), Some(77));
    let late = kbs(&filled, &document, &["--at", "2030-01-01T00:00:00Z"]);
    assert_eq!(late.status.code(), Some(77));
    assert!(said(&late).contains("denied at attest"), "{}", said(&late));
    let more = ["--resource", "models/other/epoch-1"];
    let output = kbs(&filled, &document, &more);
    assert_eq!(output.status.code(), Some(77));
    assert!(said(&output).contains("1 of 2 would be denied"));
}

#[test]
fn an_attestation_policy_and_its_reference_values_are_seen_by_the_policy() {
    let Some(vectors) = vectors() else { return };
    let document = vectors.join("accept_2024.bin");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(
        path("affirming.rego"),
        "package policy\nimport rego.v1\ndefault allow := false\n\
         allow if input.submods.cpu0[\"ear.status\"] == \"affirming\"\n",
    )
    .unwrap();
    let attestation = shipped("attestation.rego");
    let attestation = attestation.to_str().unwrap();
    let text = said(&kbs(&path("affirming.rego"), &document, &[]));
    let register = |index: u8| {
        let name = format!("pcr{index} ");
        let line = text.lines().find(|line| line.starts_with(&name)).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    let values = format!(
        r#"{{"nitro_images": [{{"0": "{}", "1": "{}", "2": "{}"}}]}}"#,
        register(0),
        register(1),
        register(2)
    );
    std::fs::write(path("values.json"), values).unwrap();
    let values = path("values.json");
    let values = values.to_str().unwrap();
    let policy = path("affirming.rego");
    let judged = |more: &[&str]| kbs(&policy, &document, more).status.code();
    assert_eq!(judged(&[]), Some(77));
    assert_eq!(judged(&["--attestation-policy", attestation]), Some(77));
    let both = [
        "--attestation-policy",
        attestation,
        "--reference-values",
        values,
    ];
    assert_eq!(judged(&both), Some(0));
}

#[test]
fn what_cannot_be_judged_is_a_usage_error_and_no_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let deny = shipped("deny-all.rego");
    std::fs::write(path("bad.rego"), "package policy\nallow if {").unwrap();
    std::fs::write(path("other.rego"), "package other\nallow := true").unwrap();
    std::fs::write(path("document"), "AAAA").unwrap();
    for (policy, document, more) in [
        (deny.clone(), path("document"), &[][..]),
        (deny.clone(), path("absent"), &[]),
        (path("absent.rego"), path("document"), &[]),
        (path("bad.rego"), path("document"), &[]),
        (path("other.rego"), path("document"), &[]),
        (deny.clone(), path("document"), &["--at", "yesterday"]),
        (deny.clone(), path("document"), &["--query", "a"]),
        (deny.clone(), path("document"), &["--config-digest", "00"]),
        (deny, path("document"), &["--reference-values", "x"]),
    ] {
        let output = kbs(&policy, &document, more);
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(output.stdout.is_empty(), "{}", said(&output));
    }
}
