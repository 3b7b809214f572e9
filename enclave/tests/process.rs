//! The program as an operator meets it when it cannot start: an exit code and one line that says what to do.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use identity::TrustDomain;
use identity::issue::Authority;
use sealed_model::SigningKey;
use tempfile::TempDir;

struct Ended {
    code: i32,
    stderr: String,
}

fn enclave(arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_enclave"))
        .args(arguments)
        .output()
        .unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn with_config(text: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("enclave.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn start(path: &Path) -> Ended {
    enclave(&["--config", path.to_str().unwrap()])
}

fn good(folder: &Path) -> String {
    let domain = TrustDomain::new("cloister.dev").unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let root = Authority::generate_root(&domain, now, Duration::from_secs(3600)).unwrap();
    format!(
        r#"
spiffe_id = "spiffe://cloister.dev/enclave/demo"
[listen]
serve = "unix://{folder}/enclave.sock"
control = "unix://{folder}/control.sock"
[trust]
domain = "cloister.dev"
bundle = """{bundle}"""
callers = ["cloister.dev"]
[broker]
endpoint = "unix://{folder}/kbs.sock"
spiffe_id = "spiffe://cloister.dev/kbs"
[[models]]
name = "demo"
source = "unix://{folder}/models.sock"
package = "demo"
publishers = ["""{publisher}"""]
min_epoch = 1
[authorization]
policy = "permit(principal, action, resource);"
"#,
        folder = folder.display(),
        bundle = root.cert_pem(),
        publisher = SigningKey::generate().unwrap().public().unwrap().to_pem(),
    )
}

#[test]
fn wrong_usage_ends_with_64_and_help_with_0() {
    assert_eq!(enclave(&[]).code, 64);
    assert_eq!(enclave(&["--mock"]).code, 64);
    assert_eq!(enclave(&["--config", "x", "--log-format", "xml"]).code, 64);
    assert_eq!(enclave(&["--help"]).code, 0);
}

#[test]
fn a_configuration_that_cannot_be_used_ends_with_64_and_one_line() {
    let (_folder, path) = with_config("spiffe_id = 5");
    for path in [path.as_path(), Path::new("/nonexistent/enclave.toml")] {
        let ended = start(path);
        assert_eq!(ended.code, 64, "{}", ended.stderr);
        let expected = format!("error: config {}: ", path.display());
        assert!(ended.stderr.starts_with(&expected), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn outside_an_enclave_it_ends_with_69_and_nothing_ever_listened() {
    if Path::new("/dev/nsm").exists() {
        println!("skipped: this machine has a secure module");
        return;
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("enclave.toml");
    std::fs::write(&path, good(folder.path())).unwrap();
    let ended = start(&path);
    assert_eq!(ended.code, 69, "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .starts_with("error: the platform: cannot open /dev/nsm"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(!folder.path().join("enclave.sock").exists());
    assert!(!folder.path().join("control.sock").exists());
}
