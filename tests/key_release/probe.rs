//! `key-release-probe` against a broker, as its user runs it.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use attestation::{Pcr, Pcrs};

use crate::broker::{BROKER_ID, Broker, KEY_ID, SECRET, Setup, policy};
use crate::passport::jwks;
use crate::trustee::{self, Trustee};

fn probe(dir: &Path, url: &str, more: &[&str]) -> Output {
    probe_by("kbs", dir, url, more)
}

fn probe_by(mode: &str, dir: &Path, url: &str, more: &[&str]) -> Output {
    Command::new(tests::program("key-release-probe"))
        .current_dir(dir)
        .args(["--mode", mode, "--url", url, "--resource", KEY_ID])
        .args(["--spiffe-id", BROKER_ID, "--bundle", "bundle.pem"])
        .args(more)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A broker of today that trusts the module which a first run of the probe made, and knows its registers.
async fn set_up(dir: &Path) -> Broker {
    std::fs::write(
        dir.join("bundle.pem"),
        Broker::start().await.root.cert_pem(),
    )
    .unwrap();
    let first = probe(dir, "tcp://127.0.0.1:1", &[]);
    assert_eq!(first.status.code(), Some(69), "{}", said(&first));
    let known: Pcrs = (0..3)
        .map(|index| (index, Pcr::ZERO.extend(b"key-release-probe")))
        .collect();
    assert!(
        said(&first).contains(&known[&0].to_string()),
        "{}",
        said(&first)
    );
    let now = tests::clock()()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let root = std::fs::read_to_string(dir.join("probe-module.json.root.pem")).unwrap();
    let broker = Broker::with(Setup {
        policy: Some(policy(&known)),
        // The probe's document is made a moment after the broker's clock was stopped.
        start: now + Duration::from_secs(2),
        anchor: Some(root),
        ..Setup::default()
    })
    .await;
    std::fs::write(dir.join("bundle.pem"), broker.root.cert_pem()).unwrap();
    broker
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_obtains_a_resource_step_by_step_and_shows_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = set_up(dir.path()).await;
    let url = broker.listen.to_string();
    let output = probe(dir.path(), &url, &["--out", "secret"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let steps = [
        "connected",
        "challenge",
        "evidence made",
        "evidence accepted",
        "resource",
        "in all",
    ];
    let mut rest = text.as_str();
    for step in steps {
        let (_, after) = rest
            .split_once(step)
            .unwrap_or_else(|| panic!("no {step}: {text}"));
        rest = after;
    }
    let file = dir.path().join("secret");
    assert_eq!(std::fs::read(&file).unwrap(), SECRET);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!text.contains(std::str::from_utf8(SECRET).unwrap()));
    assert!(!text.contains(&hex::encode(SECRET)));
    assert_eq!(broker.last_entry().outcome, "released");

    // Nothing that exists is written over.
    let again = probe(dir.path(), &url, &["--out", "secret"]);
    assert_eq!(again.status.code(), Some(69), "{}", said(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_says_who_refused_and_what_to_look_at() {
    let dir = tempfile::tempdir().unwrap();
    let broker = set_up(dir.path()).await;
    let url = broker.listen.to_string();
    let other = format!("0={}", Pcr::ZERO.extend(b"another"));
    let denied = probe(dir.path(), &url, &["--pcr", &other]);
    assert_eq!(denied.status.code(), Some(77), "{}", said(&denied));
    assert!(
        said(&denied).contains("PolicyDeny; its policy"),
        "{}",
        said(&denied)
    );

    let foreign = probe(dir.path(), &url, &["--module", "another.json"]);
    assert_eq!(foreign.status.code(), Some(77), "{}", said(&foreign));
    assert!(
        said(&foreign).contains("AttestationError"),
        "{}",
        said(&foreign)
    );

    for wrong in [
        ["--mode", "passport"].as_slice(),
        &["--pcr", "16=00"],
        &["--pcr", "0=00"],
        &["--ca", "bundle.pem"],
    ] {
        let output = probe(dir.path(), &url, wrong);
        assert_eq!(
            output.status.code(),
            Some(64),
            "{wrong:?}: {}",
            said(&output)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_takes_a_passport_to_a_server_that_is_not_ours() {
    if !trustee::python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let broker = set_up(dir.path()).await;
    let url = broker.listen.to_string();
    let trusting = Trustee::start(&broker, jwks(&broker).await).await;
    std::fs::write(dir.path().join("trustee.pem"), trusting.root_pem()).unwrap();
    let there = trusting.url();
    let more = [
        "--trustee-url",
        &there,
        "--trustee-ca",
        "trustee.pem",
        "--out",
        "secret",
    ];
    let output = probe_by("passport", dir.path(), &url, &more);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), SECRET);
    assert!(!said(&output).contains(&hex::encode(SECRET)));
    assert!(!broker.outcomes().contains(&"released".to_owned()));

    // A server with another root gets no token.
    let foreign = ["--trustee-url", &there, "--trustee-ca", "bundle.pem"];
    let output = probe_by("passport", dir.path(), &url, &foreign);
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
}
