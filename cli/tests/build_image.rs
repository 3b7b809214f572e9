//! `cloister build-image`, as an operator runs it.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The smallest file that passes for a static program.
fn program() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01".to_vec();
    elf.resize(64, 0);
    // e_machine (x86-64), e_phoff and e_phentsize; no program headers.
    for (at, value) in [(18, 62), (32, 64), (54, 56)] {
        *elf.get_mut(at).unwrap() = value;
    }
    elf
}

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        bench.put("bzImage", b"a kernel");
        bench.put("init", &program());
        bench.put("enclave", &program());
        bench.put("enclave.toml", b"spiffe_id = 'x'\n");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    fn build(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_cloister"))
            .current_dir(self.0.path())
            .args(["build-image", "--kernel", "bzImage", "--init", "init"])
            .args(["--enclave", "enclave", "--config", "enclave.toml"])
            .args(more)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn refused(&self, more: &[&str], code: i32, about: &str) {
        let output = self.build(more);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(about), "{error}");
        assert!(!self.path("build.partial").exists());
    }
}

#[test]
fn writes_the_image_and_the_configuration_in_it() {
    let bench = Bench::new();
    bench.put("models.toml", b"[[models]]\nname = 'chat'\n");
    // As people write a directory.
    let output = bench.build(&["--out", "build/", "--model-policy", "models.toml"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("PCR0 ") && text.contains("PCR2 "), "{text}");
    let config = fs::read_to_string(bench.path("build/enclave.toml")).unwrap();
    assert_eq!(config, "spiffe_id = 'x'\n\n[[models]]\nname = 'chat'\n");
    let image = fs::read(bench.path("build/app.eif")).unwrap();
    let inside = |text: &str| image.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(inside(&config));
    // Nobody said where the parts came from.
    assert!(!bench.path("build/provenance.json").exists());
}

#[test]
fn refuses_to_write_over_something() {
    let bench = Bench::new();
    fs::create_dir(bench.path("build")).unwrap();
    bench.refused(&["--out", "build/"], 64, "exists already");
}

#[test]
fn refuses_a_model_policy_that_decides_about_more_than_models() {
    let bench = Bench::new();
    for policy in [
        "[trust]\ndomain = 'evil'\n[[models]]\nname = 'chat'\n",
        "models = 1\n",
        "",
        "not toml",
    ] {
        bench.put("models.toml", policy.as_bytes());
        let more = ["--out", "build", "--model-policy", "models.toml"];
        bench.refused(&more, 64, "models.toml: is no model policy");
    }
}

#[test]
fn refuses_parts_that_are_none() {
    let bench = Bench::new();
    bench.refused(
        &["--out", "build", "--eif-key", "key.pem"],
        64,
        "--eif-certificate",
    );
    bench.put("init", b"#!/bin/sh");
    bench.refused(&["--out", "build"], 64, "init: is no ELF program");
    fs::remove_file(bench.path("bzImage")).unwrap();
    bench.put("init", &program());
    bench.refused(&["--out", "build"], 64, "bzImage");
}

#[test]
fn refuses_facts_that_do_not_fit() {
    let bench = Bench::new();
    bench.put("facts.json", b"{\"source\": 1}");
    bench.put("metadata.json", b"{}");
    bench.put("Cargo.lock", b"");
    let facts = ["--facts", "facts.json", "--cargo-metadata", "metadata.json"];
    let more = [
        &["--out", "build"][..],
        &facts,
        &["--cargo-lock", "Cargo.lock"],
    ]
    .concat();
    bench.refused(&more, 64, "facts.json");
    bench.refused(
        &[&["--out", "build"][..], &facts].concat(),
        64,
        "--cargo-lock",
    );
}
