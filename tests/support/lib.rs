//! Support for the whole-service tests: a running stack, an observer on the wire, a look into a process's memory.

#![expect(
    clippy::disallowed_methods,
    reason = "a test's clock is the system's, as in main"
)]

pub mod gguf;
pub mod memory;
pub mod models;
pub mod tap;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use sim::stack::{Layout, Model, Options};

/// The workspace's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// `cloister-dev`, built beside this test.
///
/// # Panics
/// When it was not built.
pub fn cloister_dev() -> PathBuf {
    program("cloister-dev")
}

/// `name` of the simulator's crate, built beside this test.
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    // target/release/deps/<test> → target/release/<name>
    let test = std::env::current_exe().unwrap();
    let exe = test.parent().and_then(|p| p.parent()).unwrap().join(name);
    assert!(
        exe.is_file(),
        "{} is missing: cargo build --release -p sim",
        exe.display()
    );
    exe
}

/// The system clock, as `main` would inject it.
pub fn clock() -> Arc<dyn Fn() -> SystemTime + Send + Sync> {
    Arc::new(SystemTime::now)
}

/// Options for a run of the small random models, on free ports.
pub fn options(models: Vec<Model>) -> Options {
    Options::new(cloister_dev(), models, clock())
}

/// Whether a test whose tool is absent may be skipped; says so. With `CI=true` it may not.
///
/// # Panics
/// With `CI=true`.
pub fn skip(what: &str) {
    skip_with(what, "scripts/dev-tools");
}

/// As [`skip`], for what another script brings.
///
/// # Panics
/// With `CI=true`.
pub fn skip_with(what: &str, script: &str) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{what} is missing: {script} brings it"
    );
    eprintln!("skipped: {what} is not installed ({script} brings it)");
}

/// Makes the key policy of a run's KMS accept another image instead: one digit of its PCR0, in all statements.
pub fn spoil_kms_policy(layout: &Layout) {
    let path = layout.config("kms");
    let text = std::fs::read_to_string(&path).unwrap();
    let (_, rest) = text.split_once("kms:RecipientAttestation:PCR0").unwrap();
    // The first run of 96 hexadecimal digits after the register's name.
    let mut runs = rest.split(|c: char| !c.is_ascii_hexdigit());
    let digest = runs.find(|run| run.len() == 96).unwrap();
    let first = if digest.starts_with('0') { '1' } else { '0' };
    let other = format!("{first}{}", &digest[1..]);
    std::fs::write(&path, text.replace(digest, &other)).unwrap();
}
