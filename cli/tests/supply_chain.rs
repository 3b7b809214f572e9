//! Describe, sign, verify and publish an enclave image from the command line.
mod published;

use std::fs;

use attestation::ReferenceValues;
use published::{COMMIT, PROVENANCE, SBOM, done, image, keys, refused, verify, world};
use serde_json::{Value, json};

fn append<'a>(eif: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "measurements",
        "append",
        eif,
        "--provenance",
        "provenance.json",
    ];
    arguments.extend(["--sbom", "sbom.cdx.json", "--key", "k/publisher.key.pem"]);
    arguments.extend(more);
    arguments
}

fn log<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["measurements", command, "--key", "k/publisher.pub.pem"];
    arguments.extend(more);
    arguments
}

#[test]
fn what_was_signed_is_verified_and_shown() {
    let dir = world();
    let text = done(
        dir.path(),
        &verify(&[
            "--commit",
            COMMIT,
            "--builder",
            "https://builder.example/v1",
        ]),
    );
    for shown in [
        "cloister-chat 1.0",
        COMMIT,
        "PCR0",
        "PCR2",
        "https://builder.example/v1",
    ] {
        assert!(text.contains(shown), "{text}");
    }
    done(dir.path(), &verify(&["--signature", "app.eif.sig"]));
}

#[test]
fn refuses_another_key_commit_builder_or_configuration() {
    let dir = world();
    keys(dir.path(), "other");
    let mut other = verify(&[]);
    other[3] = "other/publisher.pub.pem";
    refused(dir.path(), &other, 77, "signed by none");
    for option in ["--commit", "--builder", "--config"] {
        refused(
            dir.path(),
            &verify(&[option, "something else"]),
            77,
            "is not what was asked for",
        );
    }
}

#[test]
fn refuses_an_image_that_changed_or_was_exchanged() {
    let dir = world();
    image(dir.path(), "next", "2.0");
    fs::copy(dir.path().join("next.eif"), dir.path().join("app.eif")).unwrap();
    refused(dir.path(), &verify(&[]), 77, "signed by none");
    // Even if its own signature is genuine, what was said of another image is not said of it.
    fs::remove_file(dir.path().join("app.eif.sig")).unwrap();
    fs::remove_file(dir.path().join("app.eif.sigstore.json")).unwrap();
    done(
        dir.path(),
        &["sign", "app.eif", "--key", "k/publisher.key.pem"],
    );
    refused(dir.path(), &verify(&[]), 77, "about other files");

    let mut bytes = fs::read(dir.path().join("app.eif")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(dir.path().join("app.eif"), bytes).unwrap();
    refused(dir.path(), &verify(&[]), 77, "CRC-32");
}

#[test]
fn refuses_one_artefact_in_the_place_of_another() {
    let dir = world();
    let with = |signature, provenance, sbom| {
        vec![
            "verify-image",
            "app.eif",
            "--key",
            "k/publisher.pub.pem",
            "--signature",
            signature,
            "--provenance",
            provenance,
            "--sbom",
            sbom,
        ]
    };
    let good = "app.eif.sigstore.json";
    refused(
        dir.path(),
        &with(PROVENANCE, PROVENANCE, SBOM),
        77,
        "the other kind",
    );
    refused(dir.path(), &with(good, good, SBOM), 77, "the other kind");
    refused(dir.path(), &with(good, SBOM, SBOM), 77, "predicate type");
    refused(
        dir.path(),
        &with(good, PROVENANCE, PROVENANCE),
        77,
        "predicate type",
    );
    refused(
        dir.path(),
        &with(good, "provenance.json", SBOM),
        77,
        "bundle",
    );
    refused(
        dir.path(),
        &with(good, "missing.json", SBOM),
        64,
        "missing.json",
    );
}

#[test]
fn refuses_a_bill_of_materials_that_the_provenance_does_not_know() {
    let dir = world();
    let path = dir.path().join("sbom.cdx.json");
    let text = fs::read_to_string(&path)
        .unwrap()
        .replace("\"version\":1}", "\"version\":2}");
    assert_ne!(text, fs::read_to_string(&path).unwrap());
    fs::write(&path, text).unwrap();
    fs::remove_file(dir.path().join(SBOM)).unwrap();
    done(
        dir.path(),
        &[
            "attest",
            "sbom.cdx.json",
            "--image",
            "app.eif",
            "--key",
            "k/publisher.key.pem",
        ],
    );
    refused(dir.path(), &verify(&[]), 77, "about other files");
}

#[test]
fn nothing_is_attested_of_another_image_and_nothing_overwritten() {
    let dir = world();
    image(dir.path(), "next", "2.0");
    let attest = |document| {
        vec![
            "attest",
            document,
            "--image",
            "app.eif",
            "--key",
            "k/publisher.key.pem",
        ]
    };
    refused(
        dir.path(),
        &attest("provenance.json"),
        77,
        "about other files",
    );
    refused(dir.path(), &attest("sbom.cdx.json"), 77, "SHA-256");
    refused(dir.path(), &attest("build.json"), 77, "build.json");
    refused(
        dir.path(),
        &["sign", "app.eif", "--key", "k/publisher.key.pem"],
        64,
        "exists already",
    );
    fs::write(
        dir.path().join("trap"),
        "DSSEv1 28 application/vnd.in-toto+json 2 {}",
    )
    .unwrap();
    refused(
        dir.path(),
        &["sign", "trap", "--key", "k/publisher.key.pem"],
        64,
        "DSSE",
    );
    refused(
        dir.path(),
        &["sign", "app.eif", "--key", "k/publisher.pub.pem"],
        64,
        "publisher.pub.pem",
    );
}

#[test]
fn images_are_published_revoked_and_become_a_policy() {
    let dir = world();
    let path = dir.path();
    refused(path, &append("app.eif", &[]), 64, "--new begins a list");
    done(
        path,
        &append("app.eif", &["--new", "--time", "2025-11-25T10:00:00Z"]),
    );
    refused(path, &append("app.eif", &["--new"]), 64, "there already");
    refused(path, &append("app.eif", &[]), 77, "again");
    let old = fs::read(path.join("measurements.json")).unwrap();
    done(
        path,
        &verify(&["--measurements", "measurements.json", "--at-least", "1"]),
    );

    image(path, "next", "2.0");
    refused(path, &append("app.eif", &[]), 77, "about other files");
    done(
        path,
        &append("next.eif", &["--time", "2025-11-25T11:00:00Z"]),
    );
    let gateway = |more: &[&str]| {
        let mut arguments = log("policy", &["--format", "gateway"]);
        arguments.extend(more);
        let line = done(path, &arguments);
        let table: toml::Table = line.parse().unwrap();
        let values: ReferenceValues = table["images"].clone().try_into().unwrap();
        values.images().len()
    };
    assert_eq!(gateway(&[]), 2);
    let revoke = [
        "measurements",
        "revoke",
        "1",
        "--reason",
        "a hole",
        "--key",
        "k/publisher.key.pem",
    ];
    let pin = done(path, &revoke)
        .lines()
        .find_map(|l| l.strip_prefix("pin").map(|p| p.trim().to_owned()))
        .unwrap();
    assert_eq!(gateway(&[]), 1);
    assert_eq!(gateway(&["--name", "cloister-chat", "--at-least", &pin]), 1);
    let measured = done(path, &["measure", "next.eif", "--format", "gateway"]);
    assert_eq!(
        done(path, &log("policy", &["--format", "gateway"])),
        measured
    );
    refused(
        path,
        &log("policy", &["--format", "gateway", "--name", "other"]),
        77,
        "no image",
    );

    let listed: Value =
        serde_json::from_str(&done(path, &log("list", &["--format", "json"]))).unwrap();
    assert_eq!(listed[0]["status"], "revoked");
    assert_eq!(listed[1]["image"]["git_commit"], COMMIT);
    refused(
        path,
        &verify(&["--measurements", "measurements.json"]),
        77,
        "a hole",
    );

    // The old list is genuine; only the pin tells.
    fs::write(path.join("measurements.json"), old).unwrap();
    done(path, &log("verify", &[]));
    refused(path, &log("verify", &["--at-least", &pin]), 77, "older");
    refused(
        path,
        &log("policy", &["--format", "gateway", "--at-least", "3"]),
        77,
        "older",
    );
    let mut later = append("next.eif", &[]);
    later.extend(["--at-least", &pin]);
    refused(path, &later, 77, "older");
}

#[test]
fn a_policy_for_kbs_releases_a_key_to_what_is_published_only() {
    let dir = world();
    done(dir.path(), &append("app.eif", &["--new"]));
    image(dir.path(), "next", "2.0");
    done(dir.path(), &append("next.eif", &[]));
    let revoke = [
        "measurements",
        "revoke",
        "1",
        "--reason",
        "old",
        "--key",
        "k/publisher.key.pem",
    ];
    done(dir.path(), &revoke);
    refused(
        dir.path(),
        &log("policy", &["--format", "kbs"]),
        64,
        "--key-id",
    );
    let policy = done(
        dir.path(),
        &log(
            "policy",
            &["--format", "kbs", "--key-id", "models/chat/epoch-1"],
        ),
    );
    let allowed = |eif: &str, key: &str| {
        let measured: Value =
            serde_json::from_str(&done(dir.path(), &["measure", eif, "--format", "json"])).unwrap();
        let mut engine = regorus::Engine::new();
        engine
            .add_policy("policy.rego".into(), policy.clone())
            .unwrap();
        let data =
            json!({"plugin": "resource", "resource-path": key.split('/').collect::<Vec<_>>()});
        engine
            .add_data(regorus::Value::from_json_str(&data.to_string()).unwrap())
            .unwrap();
        let input = json!({"nitro": {"pcrs": measured["pcrs"]}});
        engine.set_input(regorus::Value::from_json_str(&input.to_string()).unwrap());
        engine
            .eval_bool_query("data.policy.allow".into(), false)
            .unwrap()
    };
    assert!(allowed("next.eif", "models/chat/epoch-1"));
    assert!(!allowed("next.eif", "models/chat/epoch-2"));
    assert!(!allowed("app.eif", "models/chat/epoch-1"), "revoked");
}

#[test]
fn a_list_of_another_signer_is_refused_until_he_is_trusted() {
    let dir = world();
    let path = dir.path();
    done(path, &append("app.eif", &["--new"]));
    keys(path, "new");
    image(path, "next", "2.0");
    let mut other = append("next.eif", &[]);
    other[8] = "new/publisher.key.pem";
    refused(path, &other, 77, "signed by none");
    other.extend(["--trust", "k/publisher.pub.pem"]);
    done(path, &other);
    refused(path, &log("verify", &[]), 77, "signed by none");
    done(path, &log("verify", &["--key", "new/publisher.pub.pem"]));
}
