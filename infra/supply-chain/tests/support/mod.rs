//! A build, its crates and keys to sign with.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "shared by several tests, each of which uses a part and stops where its world cannot be set up"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use supply_chain::{
    Artifact, Build, CrateGraph, ImageFile, Kernel, PublisherKey, Sha256Digest, SigningKey,
    SourceTree, Tool,
};

pub const COMMIT: &str = "5aefc2d1a0b3c4d5e6f708192a3b4c5d6e7f8091";
pub const BUILDER: &str = "https://builder.example/cloister/v1";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .and_then(Path::parent)
        .unwrap()
}

pub fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

pub fn keys() -> (SigningKey, PublisherKey) {
    let key = SigningKey::generate().unwrap();
    let public = key.public().unwrap();
    (key, public)
}

pub fn build() -> Build {
    let file = |path: &str, ramdisk, package: Option<&str>| ImageFile {
        path: path.into(),
        ramdisk,
        mode: 0o755,
        size: 4096,
        sha256: digest(path),
        package: package.map(Into::into),
    };
    Build {
        name: "cloister-chat".into(),
        version: "1.2.0".into(),
        image: Artifact {
            name: "app.eif".into(),
            sha256: digest("the image"),
        },
        command_line: "reboot=k panic=30 init=/init".into(),
        config_sha256: digest("enclave.toml"),
        model_policies: vec![Artifact {
            name: "chat.cedar".into(),
            sha256: digest("chat.cedar"),
        }],
        source_date_epoch: Some(1_764_064_800),
        target: "x86_64-unknown-linux-gnu".into(),
        source: SourceTree {
            uri: Some("git+https://code.example/cloister".into()),
            commit: COMMIT.into(),
            cargo_lock_sha256: digest("Cargo.lock"),
        },
        kernel: Kernel {
            version: "6.12.57".into(),
            licence: "GPL-2.0-only WITH Linux-syscall-note".into(),
            sha256: digest("bzImage"),
            config_sha256: Some(digest(".config")),
            source_uri: "pkg:deb/debian/linux@6.12.57-1?arch=source".into(),
            source_sha256: digest("linux_6.12.57.orig.tar.xz"),
        },
        files: vec![
            file("app/enclave", 2, Some("enclave")),
            file("app/enclave.toml", 2, None),
            file("init", 1, None),
        ],
        libraries: vec![Tool {
            name: "rust-std".into(),
            version: "1.95.0".into(),
            licence: Some("MIT OR Apache-2.0".into()),
        }],
        tools: vec![Tool {
            name: "rustc".into(),
            version: "1.95.0 (59807616e 2026-04-14)".into(),
            licence: None,
        }],
        builder: BUILDER.into(),
    }
}

/// `cargo metadata` of this workspace, and its lock file.
pub fn workspace() -> &'static (Vec<u8>, Vec<u8>) {
    static WORKSPACE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    WORKSPACE.get_or_init(|| {
        (
            metadata(root()),
            std::fs::read(root().join("Cargo.lock")).unwrap(),
        )
    })
}

pub fn crates() -> CrateGraph {
    static CRATES: OnceLock<CrateGraph> = OnceLock::new();
    let resolve = || {
        let (metadata, lock) = workspace();
        CrateGraph::from_cargo(metadata, lock, &["enclave"]).unwrap()
    };
    CRATES.get_or_init(resolve).clone()
}

pub fn metadata(workspace: &Path) -> Vec<u8> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--quiet", "--locked", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(workspace)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    output.stdout
}

/// What cargo itself says is linked, as `name version` sorted.
pub fn cargo_tree(workspace: &Path, packages: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO"));
    command
        .args([
            "tree", "--quiet", "--locked", "--prefix", "none", "--format", "{p}",
        ])
        .args(["--edges", "normal,no-proc-macro"])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .current_dir(workspace);
    for package in packages {
        command.args(["--package", package]);
    }
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.contains("(proc-macro)"))
        .filter_map(|line| {
            let (name, rest) = line.split_once(" v")?;
            Some(format!("{name} {}", rest.split(' ').next()?))
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

/// A tool that `scripts/dev-tools` installs. Where it is absent, its test says so and is skipped; with CI=true that fails.
pub fn tool(path: &str) -> Option<PathBuf> {
    let tool = root().join("target/tools").join(path);
    if tool.is_file() {
        return Some(tool);
    }
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "target/tools/{path} is missing: run scripts/dev-tools"
    );
    println!("skipped: target/tools/{path} is not installed (scripts/dev-tools brings it)");
    None
}
