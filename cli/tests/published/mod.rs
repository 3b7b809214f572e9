//! An enclave image with everything that is said of it, made and signed from the command line.
#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "shared by two tests, which stop where their world cannot be set up"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::json;
use supply_chain::Sha256Digest;
use tempfile::TempDir;

pub const COMMIT: &str = "5aefc2d1a0b3c4d5e6f708192a3b4c5d6e7f8091";
pub const PROVENANCE: &str = "provenance.json.sigstore.json";
pub const SBOM: &str = "sbom.cdx.json.sigstore.json";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloister"))
        .current_dir(dir)
        .args(arguments)
        .output()
        .unwrap()
}

pub fn done(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn refused(dir: &Path, arguments: &[&str], code: i32, about: &str) {
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
pub fn image(dir: &Path, name: &str, version: &str) {
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

pub fn keys(dir: &Path, name: &str) {
    done(dir, &["keygen", "--out", name, "--only", "publisher"]);
}

/// Keys in `k`, and `app.eif` with everything signed.
pub fn world() -> TempDir {
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

pub fn verify<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["verify-image", "app.eif", "--key", "k/publisher.pub.pem"];
    arguments.extend(["--provenance", PROVENANCE, "--sbom", SBOM]);
    arguments.extend(more);
    arguments
}
