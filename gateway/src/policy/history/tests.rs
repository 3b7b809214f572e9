use std::time::Duration;

use attestation::{Pcr, ReferenceValues, TrustAnchor};
use identity::SpiffeId;

use super::super::{Fleet, ModelRule, ServerIds};
use super::*;

fn policy(serial: u64, min_epoch: u64) -> Policy {
    let id = SpiffeId::new("spiffe://cloister.test/enclave/demo").unwrap();
    Policy {
        serial,
        server_ids: ServerIds::try_new(vec![id]).unwrap(),
        trust_anchor: TrustAnchor::aws_nitro(),
        images: ReferenceValues::try_new(vec![[(0, Pcr::ZERO.extend(b"image"))].into()]).unwrap(),
        fleet: Fleet::default(),
        config_digests: vec![Sha256Digest::of(b"configuration")],
        models: vec![ModelRule {
            name: "demo".to_owned(),
            min_epoch,
            manifest_sha256: None,
            publishers: Vec::new(),
        }],
        max_age: Duration::from_secs(300),
        reattest: Duration::from_secs(600),
    }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn a_policy_may_stay_or_be_followed_by_a_higher_serial() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.json");
    let mut history = History::open(&path).unwrap();
    history.accept(&policy(3, 1), at(10)).unwrap();
    history.accept(&policy(3, 1), at(20)).unwrap();
    history.accept(&policy(7, 2), at(30)).unwrap();
    let read = History::open(&path).unwrap();
    let kept: Vec<_> = read
        .accepted()
        .iter()
        .map(|a| (a.serial, a.since))
        .collect();
    assert_eq!(kept, [(3, 10), (7, 30)]);
    assert_eq!(read.accepted()[1].policy_sha256, policy(7, 2).digest());
}

#[test]
fn refuses_to_go_back_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.json");
    History::open(&path)
        .unwrap()
        .accept(&policy(7, 2), at(10))
        .unwrap();
    let mut history = History::open(&path).unwrap();
    let before = fs::read(&path).unwrap();
    let back = history.accept(&policy(6, 2), at(20)).unwrap_err();
    assert!(
        matches!(
            back,
            HistoryError::GoesBack {
                enforced: 7,
                offered: 6,
                ..
            }
        ),
        "{back}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    history.accept(&policy(7, 2), at(20)).unwrap();
}

#[test]
fn refuses_another_policy_under_the_same_serial() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::open(&dir.path().join("history.json")).unwrap();
    history.accept(&policy(7, 2), at(10)).unwrap();
    let changed = history.accept(&policy(7, 1), at(20)).unwrap_err();
    assert!(
        matches!(changed, HistoryError::SameSerial { serial: 7, .. }),
        "{changed}"
    );
    assert!(changed.to_string().contains("raise the serial"));
}

#[test]
fn a_history_that_is_none_refuses_every_policy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.json");
    let digest = policy(1, 1).digest();
    let entry =
        |serial: u64| format!(r#"{{"serial":{serial},"policy_sha256":"{digest}","since":1}}"#);
    let file = |format: &str, entries: &[String]| {
        format!(
            r#"{{"format":"{format}","accepted":[{}]}}"#,
            entries.join(",")
        )
    };
    for text in [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        file("cloister-gateway-policy-history/2", &[entry(1)]),
        // An order that was never written: someone cut it up.
        file(FORMAT, &[entry(5), entry(4)]),
        file(FORMAT, &[entry(5), entry(5)]),
        file(FORMAT, &[entry(1)]).replace("since", "sinze"),
        "x".repeat(usize::try_from(MAX_BYTES).unwrap() + 1),
    ] {
        fs::write(&path, &text).unwrap();
        assert!(
            matches!(History::open(&path), Err(HistoryError::Broken { .. })),
            "{text:.80}"
        );
    }
    fs::write(&path, file(FORMAT, &[entry(4), entry(5)])).unwrap();
    assert_eq!(History::open(&path).unwrap().accepted().len(), 2);
}

#[test]
fn what_cannot_be_remembered_is_not_enforced() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::open(&dir.path().join("gone/history.json")).unwrap();
    let lost = history.accept(&policy(1, 1), at(10)).unwrap_err();
    assert!(matches!(lost, HistoryError::Write { .. }), "{lost}");
    assert!(history.accepted().is_empty());
}

#[test]
fn keeps_the_newest_and_stays_readable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.json");
    let mut history = History::open(&path).unwrap();
    for serial in 1..=MOST as u64 + 20 {
        history.accept(&policy(serial, 1), at(serial)).unwrap();
    }
    let read = History::open(&path).unwrap();
    assert_eq!(read.accepted().len(), MOST);
    assert_eq!(read.accepted()[0].serial, 21);
}
