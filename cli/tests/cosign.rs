//! cosign takes what we sign, and nothing that we would refuse; we take what cosign signs.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop, and say where it was skipped"
)]
mod published;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use published::{PROVENANCE, SBOM, done, keys, refused, root, verify, world};
use serde_json::json;

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
