//! Describe, sign, verify and publish an enclave image from the command line; cosign agrees, and takes nothing that we refuse.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use attestation::ReferenceValues;
use serde_json::{Value, json};
use supply_chain::Sha256Digest;
use tempfile::TempDir;

const COMMIT: &str = "5aefc2d1a0b3c4d5e6f708192a3b4c5d6e7f8091";
const PROVENANCE: &str = "provenance.json.sigstore.json";
const SBOM: &str = "sbom.cdx.json.sigstore.json";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloister"))
        .current_dir(dir)
        .args(arguments)
        .output()
        .unwrap()
}

fn done(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(dir: &Path, arguments: &[&str], code: i32, about: &str) {
    let output = run(dir, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert!(
        error.contains(about) && error.lines().count() == 1,
        "{arguments:?}: {error}"
    );
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

fn metadata() -> &'static [u8] {
    static METADATA: OnceLock<Vec<u8>> = OnceLock::new();
    METADATA.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--quiet", "--locked", "--format-version", "1"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    })
}

fn sha256(path: &Path) -> String {
    Sha256Digest::of(&fs::read(path).unwrap()).to_string()
}

/// An image `NAME.eif` with its provenance and bill of materials, unsigned.
fn image(dir: &Path, name: &str, version: &str) {
    let at = |file: &str| dir.join(file);
    for part in ["kernel", "boot", "app"] {
        fs::write(at(part), format!("{part} of {version}")).unwrap();
    }
    let eif = format!("{name}.eif");
    done(
        dir,
        &[
            "build-eif",
            "--kernel",
            "kernel",
            "--cmdline",
            "panic=30",
            "--ramdisk",
            "boot",
            "--ramdisk",
            "app",
            "--out",
            &eif,
        ],
    );
    let digest = |text: &str| Sha256Digest::of(text.as_bytes()).to_string();
    let build = json!({
        "name": "cloister-chat",
        "version": version,
        "image": {"name": eif, "sha256": sha256(&at(&eif))},
        "command_line": "panic=30",
        "config_sha256": digest("enclave.toml"),
        "model_policies": [],
        "source_date_epoch": null,
        "target": "x86_64-unknown-linux-gnu",
        "source": {"uri": null, "commit": COMMIT, "cargo_lock_sha256": sha256(&root().join("Cargo.lock"))},
        "kernel": {
            "version": "6.12.57",
            "licence": "GPL-2.0-only WITH Linux-syscall-note",
            "sha256": sha256(&at("kernel")),
            "config_sha256": null,
            "source_uri": "pkg:deb/debian/linux@6.12.57-1?arch=source",
            "source_sha256": digest("linux.tar"),
        },
        "files": [{"path": "app/enclave", "ramdisk": 2, "mode": 493, "size": 9, "sha256": sha256(&at("app")), "package": "enclave"}],
        "libraries": [],
        "tools": [{"name": "rustc", "version": "1.95.0", "licence": null}],
        "builder": "https://builder.example/v1",
    });
    fs::write(at("build.json"), build.to_string()).unwrap();
    fs::write(at("metadata.json"), metadata()).unwrap();
    for made in ["sbom.cdx.json", "provenance.json"] {
        drop(fs::remove_file(at(made)));
    }
    let lock = root().join("Cargo.lock");
    done(
        dir,
        &[
            "describe",
            "build.json",
            "--cargo-metadata",
            "metadata.json",
            "--lock",
            lock.to_str().unwrap(),
            "--package",
            "enclave",
            "--out-dir",
            ".",
        ],
    );
}

fn keys(dir: &Path, name: &str) {
    done(dir, &["keygen", "--out", name, "--only", "publisher"]);
}

/// Keys in `k`, and `app.eif` with everything signed.
fn world() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path(), "app", "1.0");
    keys(dir.path(), "k");
    sign(dir.path(), "k");
    dir
}

fn sign(dir: &Path, keys: &str) {
    let key = format!("{keys}/publisher.key.pem");
    for made in ["app.eif.sig", "app.eif.sigstore.json", PROVENANCE, SBOM] {
        drop(fs::remove_file(dir.join(made)));
    }
    done(dir, &["sign", "app.eif", "--key", &key]);
    done(
        dir,
        &[
            "attest",
            "provenance.json",
            "--image",
            "app.eif",
            "--key",
            &key,
        ],
    );
    done(
        dir,
        &[
            "attest",
            "sbom.cdx.json",
            "--image",
            "app.eif",
            "--key",
            &key,
        ],
    );
}

fn verify<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["verify-image", "app.eif", "--key", "k/publisher.pub.pem"];
    arguments.extend(["--provenance", PROVENANCE, "--sbom", SBOM]);
    arguments.extend(more);
    arguments
}

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

/// The versions of cosign that are installed; with CI=true there has to be one.
fn cosigns() -> Vec<PathBuf> {
    let found: Vec<_> = ["cosign", "cosign-2"]
        .iter()
        .map(|name| root().join("target/tools/bin").join(name))
        .filter(|path| path.is_file())
        .collect();
    if found.is_empty() {
        let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(
            !ci,
            "target/tools/bin/cosign is missing: run scripts/dev-tools"
        );
        println!("skipped: cosign is not installed (scripts/dev-tools brings it)");
    }
    found
}

fn cosign(tool: &Path, dir: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(tool)
        .current_dir(dir)
        .args(arguments)
        .env("COSIGN_PASSWORD", "only for this test")
        // No network, even where there is one.
        .envs(
            ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"]
                .map(|name| (name, "http://127.0.0.1:9")),
        )
        .env("HOME", dir)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What both versions take; version 2 has to be told of the bundle's format, and that no authority is trusted.
fn check<'a>(tool: &Path, command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![command, "--insecure-ignore-tlog=true"];
    if tool.ends_with("cosign-2") {
        arguments.extend(["--new-bundle-format", "--trusted-root", "no-root.json"]);
    }
    arguments.extend(more);
    arguments
}

#[test]
fn cosign_verifies_what_we_sign_and_nothing_else() {
    for tool in cosigns() {
        let dir = world();
        let path = dir.path();
        keys(path, "other");
        fs::write(path.join("another.eif"), "another image").unwrap();
        let no_root =
            json!({"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"});
        fs::write(path.join("no-root.json"), no_root.to_string()).unwrap();
        let blob = |key, file| {
            cosign(
                &tool,
                path,
                &check(
                    &tool,
                    "verify-blob",
                    &["--key", key, "--bundle", "app.eif.sigstore.json", file],
                ),
            )
        };
        let says = |key, kind, bundle, file| {
            let more = ["--key", key, "--type", kind, "--bundle", bundle, file];
            cosign(&tool, path, &check(&tool, "verify-blob-attestation", &more))
        };
        let (ours, other) = ("k/publisher.pub.pem", "other/publisher.pub.pem");
        assert_eq!(blob(ours, "app.eif"), Ok(()));
        assert_eq!(says(ours, "slsaprovenance1", PROVENANCE, "app.eif"), Ok(()));
        assert_eq!(says(ours, "cyclonedx", SBOM, "app.eif"), Ok(()));
        for wrong in [
            blob(other, "app.eif"),
            blob(ours, "another.eif"),
            says(other, "slsaprovenance1", PROVENANCE, "app.eif"),
            says(ours, "slsaprovenance1", PROVENANCE, "another.eif"),
            says(ours, "slsaprovenance1", SBOM, "app.eif"),
            says(ours, "cyclonedx", PROVENANCE, "app.eif"),
        ] {
            assert!(wrong.is_err());
        }
        if tool.ends_with("cosign-2") {
            let raw = [
                "verify-blob",
                "--key",
                ours,
                "--signature",
                "app.eif.sig",
                "--insecure-ignore-tlog=true",
            ];
            assert_eq!(
                cosign(&tool, path, &[&raw[..], &["app.eif"]].concat()),
                Ok(())
            );
            assert!(cosign(&tool, path, &[&raw[..], &["another.eif"]].concat()).is_err());
        }
    }
}

#[test]
fn we_verify_what_cosign_signs() {
    for tool in cosigns() {
        let dir = world();
        let path = dir.path();
        cosign(&tool, path, &["generate-key-pair"]).unwrap();
        fs::remove_file(path.join("app.eif.sigstore.json")).unwrap();
        let mut arguments = vec![
            "sign-blob",
            "--key",
            "cosign.key",
            "--yes",
            "--tlog-upload=false",
        ];
        arguments.extend(["--bundle", "app.eif.sigstore.json"]);
        arguments.push(match tool.ends_with("cosign-2") {
            true => "--new-bundle-format",
            false => "--use-signing-config=false",
        });
        arguments.push("app.eif");
        cosign(&tool, path, &arguments).unwrap();
        refused(path, &verify(&[]), 77, "signed by none");
        done(path, &verify(&["--key", "cosign.pub"]));
        refused(
            path,
            &verify(&["--key", "cosign.pub", "--signature", "app.eif"]),
            77,
            "signature",
        );
    }
}
