//! The list of published images: entries are only added, and only sensible ones.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]
mod support;

use std::fs;

use proptest::prelude::*;
use serde_json::Value;
use supply_chain::{
    Artifact, Blob, Error, Event, LogFile, MeasurementLog, Pin, PublishedImage, PublisherKey,
    Registers, Revocation, Sha256Digest, SigningKey, Timestamp, provenance, sbom,
};
use support::{COMMIT, build, crates, digest, keys};

fn image(version: u8) -> PublishedImage {
    PublishedImage {
        name: "chat".into(),
        version: format!("1.{version}"),
        pcrs: Registers {
            pcr0: [version; 48].into(),
            pcr1: [1; 48].into(),
            pcr2: [2; 48].into(),
            pcr8: None,
        },
        eif_sha256: digest(&format!("eif {version}")),
        config_sha256: digest("config"),
        sbom_sha256: digest("sbom"),
        provenance_sha256: digest("provenance"),
        git_commit: COMMIT.into(),
    }
}

fn published(version: u8) -> Event {
    Event::Published(Box::new(image(version)))
}

fn revoked(sequence: u64) -> Event {
    Event::Revoked(Revocation {
        sequence,
        reason: "a hole in the TLS stack".into(),
    })
}

fn at(minute: u8) -> Timestamp {
    format!("2026-11-25T10:{minute:02}:00Z").parse().unwrap()
}

/// Two images, of which the first was revoked.
fn log(key: &SigningKey) -> MeasurementLog {
    MeasurementLog::start(published(1), at(1), key)
        .and_then(|log| log.append(published(2), at(2), key))
        .and_then(|log| log.append(revoked(1), at(3), key))
        .unwrap()
}

fn text(log: &MeasurementLog) -> String {
    String::from_utf8(log.to_bytes().unwrap()).unwrap()
}

fn read(text: &str, keys: &[PublisherKey]) -> Result<MeasurementLog, Error> {
    MeasurementLog::read(text.as_bytes(), keys)
}

fn problem(result: Result<MeasurementLog, Error>) -> String {
    result.unwrap_err().to_string()
}

/// What is refused for it, and the edit.
type Edit = (&'static str, fn(&mut PublishedImage));

#[test]
fn what_was_written_is_read_and_says_what_is_active() {
    let (key, public) = keys();
    let log = log(&key);
    let read = read(&text(&log), &[public]).unwrap();
    assert_eq!(read, log);
    let active: Vec<_> = read
        .active(None)
        .map(|p| p.image.version.as_str())
        .collect();
    assert_eq!(active, ["1.2"]);
    assert_eq!(read.active(Some("chat")).count(), 1);
    assert_eq!(read.active(Some("other")).count(), 0);
    let first = read.publications().next().unwrap();
    assert_eq!(first.revoked.unwrap().1, "a hole in the TLS stack");
    assert_eq!(read.head().unwrap().sequence, 3);
}

#[test]
fn it_is_one_json_document_with_one_line_per_entry() {
    let (key, _) = keys();
    let text = text(&log(&key));
    assert_eq!(text.lines().count(), 5);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["entries"][1]["entry"]["published"]["version"], "1.2");
    assert_eq!(value["entries"][0]["entry"]["previous"], Value::Null);
    let first = serde_json_canonicalizer::to_vec(&value["entries"][0]["entry"]).unwrap();
    let chained = &value["entries"][1]["entry"]["previous"];
    assert_eq!(chained, &Sha256Digest::of(&first).to_string());
}

#[test]
fn several_keys_may_sign_but_each_entry_needs_a_trusted_one() {
    let (old, old_public) = keys();
    let (new, new_public) = keys();
    let log = log(&old).append(published(3), at(4), &new).unwrap();
    let text = text(&log);
    assert!(read(&text, &[old_public.clone(), new_public.clone()]).is_ok());
    for keys in [&[old_public][..], &[new_public], &[]] {
        assert!(problem(read(&text, keys)).contains("signed by none"));
    }
}

#[test]
fn refuses_an_entry_that_was_changed_moved_removed_or_doubled() {
    let (key, public) = keys();
    let keys = [public];
    let text = text(&log(&key));
    let lines: Vec<&str> = text.lines().collect();
    let with = |order: &[usize]| {
        let entries: Vec<_> = order
            .iter()
            .map(|&i| lines[i].trim_end_matches(','))
            .collect();
        format!("{}\n{}\n{}\n", lines[0], entries.join(",\n"), lines[4])
    };
    assert!(read(&with(&[1, 2, 3]), &keys).is_ok());
    for (order, about) in [
        (&[2, 1, 3][..], "out of place"),
        (&[1, 3, 2], "out of place"),
        (&[2, 3], "out of place"),
        (&[1, 3], "out of place"),
        (&[1, 1, 2, 3], "out of place"),
    ] {
        assert!(
            problem(read(&with(order), &keys)).contains(about),
            "{order:?}"
        );
    }
    assert!(
        problem(read(&with(&[]), &keys)).contains("no entry") || read(&with(&[]), &keys).is_err()
    );
    for (from, to) in [
        ("\"1.2\"", "\"1.9\""),
        ("10:02:00", "10:01:30"),
        ("hole in", "gap in"),
        ("\"sequence\":1}", "\"sequence\":2}"),
    ] {
        assert!(
            problem(read(&text.replace(from, to), &keys)).contains("signed by none"),
            "{from}"
        );
    }
}

#[test]
fn refuses_entries_spliced_from_another_list_of_the_same_signer() {
    let (key, public) = keys();
    let one = text(&log(&key));
    let other = MeasurementLog::start(published(7), at(1), &key)
        .and_then(|log| log.append(published(8), at(2), &key))
        .unwrap();
    let other = text(&other);
    let [ours, theirs]: [Vec<&str>; 2] = [one.lines().collect(), other.lines().collect()];
    let spliced = format!("{}\n{}\n{}\n{}\n", ours[0], ours[1], theirs[2], ours[4]);
    assert!(problem(read(&spliced, &[public])).contains("does not name the entry before"));
}

#[test]
fn refuses_every_other_way_to_write_the_same_list() {
    let (key, public) = keys();
    let keys = [public];
    let good = text(&log(&key));
    let value: Value = serde_json::from_str(&good).unwrap();
    for other in [
        value.to_string(),
        format!("{value:#}\n"),
        good.trim_end().to_owned(),
        format!("{good}\n"),
        format!(" {good}"),
        good.replace("\"keyid\":", "\"keyid\": "),
        good.replacen("\"keyid\"", "\"\\u006beyid\"", 1),
        good.replace("cloister-measurements-v1", "cloister-measurements-v2"),
        good.replacen("{\"entry\"", "{\"extra\":1,\"entry\"", 1),
        good.replacen("{\"entry\"", "{\"keyid\":\"\",\"entry\"", 1),
        good.replacen(
            "\"format\"",
            "\"format\":\"cloister-measurements-v1\",\"format\"",
            1,
        ),
        good.replacen("\"previous\":null,", "", 1),
        good.replacen("{\"entries\"", "{\"note\":\"\",\"entries\"", 1),
        "[]".into(),
        "{}".into(),
        String::new(),
    ] {
        assert!(read(&other, &keys).is_err(), "{other}");
    }
}

#[test]
fn refuses_registers_in_upper_case_or_of_another_index() {
    let (key, public) = keys();
    let keys = [public];
    let event = || {
        let mut image = image(1);
        image.pcrs.pcr0 = [0xab; 48].into();
        Event::Published(Box::new(image))
    };
    let good = text(&MeasurementLog::start(event(), at(1), &key).unwrap());
    assert!(read(&good, &keys).is_ok());
    let pcr = "ab".repeat(48);
    for other in [
        good.replace(&pcr, &pcr.to_uppercase()),
        good.replace(&pcr, &pcr[2..]),
        good.replacen("\"0\":", "\"00\":", 1),
        good.replacen("\"2\":", "\"3\":", 1),
        good.replacen("\"1\":", "\"0\":", 1),
    ] {
        assert!(read(&other, &keys).is_err(), "{other}");
    }
}

#[test]
fn refuses_to_publish_twice_or_what_was_revoked() {
    let (key, _) = keys();
    let cases: &[Edit] = &[
        ("this image", |i| i.eif_sha256 = digest("eif 1")),
        ("these measurements", |i| i.pcrs = image(1).pcrs),
        ("these measurements", |i| {
            i.pcrs = image(1).pcrs;
            i.pcrs.pcr8 = Some([8; 48].into());
        }),
        ("name and version", |i| i.version = "1.1".into()),
    ];
    for (about, edit) in cases {
        let mut again = image(9);
        edit(&mut again);
        let text = problem(log(&key).append(Event::Published(Box::new(again)), at(4), &key));
        assert!(text.contains(about) && text.contains("entry 1"), "{text}");
    }
}

#[test]
fn refuses_to_publish_a_debug_enclave_or_nonsense() {
    let (key, _) = keys();
    let cases: &[Edit] = &[
        ("PCR0", |i| i.pcrs.pcr0 = [0; 48].into()),
        ("PCR1", |i| i.pcrs.pcr1 = [0; 48].into()),
        ("PCR2", |i| i.pcrs.pcr2 = [0; 48].into()),
        ("PCR8", |i| i.pcrs.pcr8 = Some([0; 48].into())),
        ("name", |i| i.name = "chat\n".into()),
        ("version", |i| i.version = "\"".into()),
        ("git_commit", |i| i.git_commit = "HEAD".into()),
    ];
    for (about, edit) in cases {
        let mut image = image(9);
        edit(&mut image);
        let text = problem(MeasurementLog::start(
            Event::Published(Box::new(image)),
            at(4),
            &key,
        ));
        assert!(text.contains(about), "{text}");
    }
}

#[test]
fn refuses_to_revoke_what_is_not_there_or_revoked_already() {
    let (key, _) = keys();
    for (sequence, about) in [
        (1, "revoked already"),
        (3, "no earlier"),
        (4, "no earlier"),
        (0, "no earlier"),
    ] {
        let text = problem(log(&key).append(revoked(sequence), at(4), &key));
        assert!(text.contains(about), "{sequence}: {text}");
    }
    assert!(problem(MeasurementLog::start(revoked(1), at(1), &key)).contains("no earlier"));
    for reason in [
        String::new(),
        " ".into(),
        "a\u{1b}[2J".into(),
        "x".repeat(257),
    ] {
        let event = Event::Revoked(Revocation {
            sequence: 2,
            reason,
        });
        assert!(problem(log(&key).append(event, at(4), &key)).contains("reason"));
    }
}

#[test]
fn refuses_an_entry_dated_before_the_last() {
    let (key, _) = keys();
    assert!(problem(log(&key).append(published(3), at(2), &key)).contains("dated before"));
    assert!(log(&key).append(published(3), at(3), &key).is_ok());
}

#[test]
fn refuses_times_that_are_not_whole_seconds_of_utc() {
    for text in [
        "2026-11-25T10:00:00+00:00",
        "2026-11-25T11:00:00+01:00",
        "2026-11-25T10:00:00.5Z",
        "2026-11-25t10:00:00z",
        "2026-11-25 10:00:00Z",
        "2026-02-30T10:00:00Z",
        "1764064800",
        "",
    ] {
        assert!(text.parse::<Timestamp>().is_err(), "{text}");
    }
    assert_eq!(
        Timestamp::try_from(std::time::UNIX_EPOCH)
            .unwrap()
            .to_string(),
        "1970-01-01T00:00:00Z"
    );
}

#[test]
fn a_pin_refuses_an_older_list_and_a_digest_also_a_rewritten_one() {
    let (key, _) = keys();
    let new = log(&key);
    let old = MeasurementLog::start(published(1), at(1), &key).unwrap();
    let rewritten = old
        .clone()
        .append(published(2), at(2), &key)
        .and_then(|log| log.append(published(3), at(3), &key))
        .unwrap();
    let head = new.head().unwrap();
    let by_hash: Pin = head.hash.to_string().parse().unwrap();
    let by_number: Pin = head.sequence.to_string().parse().unwrap();
    for pin in [&by_hash, &by_number] {
        assert!(new.require(pin).is_ok());
        assert!(
            new.clone()
                .append(published(5), at(9), &key)
                .unwrap()
                .require(pin)
                .is_ok()
        );
        assert!(matches!(old.require(pin), Err(Error::Rollback(_))));
    }
    assert!(
        rewritten.require(&by_number).is_ok(),
        "a number cannot tell"
    );
    assert!(matches!(
        rewritten.require(&by_hash),
        Err(Error::Rollback(_))
    ));
    for text in [
        "",
        "0",
        "-1",
        "1.5",
        "abc",
        &"g".repeat(64),
        &"a".repeat(63),
    ] {
        assert!(text.parse::<Pin>().is_err(), "{text}");
    }
}

#[test]
fn a_list_is_added_to_by_one_process_at_a_time_and_replaced_whole() {
    let (key, public) = keys();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("measurements.json");
    let file = LogFile::lock(&path).unwrap();
    assert!(file.read().unwrap().is_none());
    assert!(
        matches!(LogFile::lock(&path), Err(Error::Io { .. })),
        "somebody adds already"
    );
    file.replace(&log(&key)).unwrap();
    drop(file);

    let file = LogFile::lock(&path).unwrap();
    let bytes = file.read().unwrap().unwrap();
    assert_eq!(
        MeasurementLog::read(&bytes, &[public]).unwrap(),
        log_again(&bytes, &key)
    );
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["measurements.json"], "no temporary file is left");
}

fn log_again(bytes: &[u8], key: &SigningKey) -> MeasurementLog {
    MeasurementLog::read(bytes, &[key.public().unwrap()]).unwrap()
}

#[test]
fn a_file_that_is_too_large_is_not_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("measurements.json");
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = LogFile::lock(&path).unwrap().read().unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn an_image_is_published_as_its_provenance_and_bill_of_materials_describe_it() {
    let mut build = build();
    build.image.sha256 = digest("bytes of the image");
    let blob = Blob::read(b"bytes of the image".as_slice()).unwrap();
    let pcrs = || image(1).pcrs;
    let bom = sbom(&build, &crates()).unwrap();
    let also = |bom: &[u8]| Artifact {
        name: "sbom.cdx.json".into(),
        sha256: Sha256Digest::of(bom),
    };
    let statement = provenance(&build, &[also(&bom)]).unwrap();
    let described = PublishedImage::describe(&blob, pcrs(), &statement, &bom).unwrap();
    assert_eq!(described.name, "cloister-chat");
    assert_eq!(described.sbom_sha256, Sha256Digest::of(&bom));
    assert_eq!(described.provenance_sha256, Sha256Digest::of(&statement));

    let other = Blob::read(b"bytes of another image".as_slice()).unwrap();
    assert!(PublishedImage::describe(&other, pcrs(), &statement, &bom).is_err());
    let without = provenance(&build, &[]).unwrap();
    assert!(
        PublishedImage::describe(&blob, pcrs(), &without, &bom).is_err(),
        "does not name the sbom"
    );
    build.image.sha256 = digest("bytes of another image");
    let wrong = sbom(&build, &crates()).unwrap();
    build.image.sha256 = digest("bytes of the image");
    let statement = provenance(&build, &[also(&wrong)]).unwrap();
    assert!(
        PublishedImage::describe(&blob, pcrs(), &statement, &wrong).is_err(),
        "sbom of another image"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        drop(MeasurementLog::read(&bytes, &[]));
    }

    /// Not one byte is free: neither cut nor changed nor added is the list accepted.
    #[test]
    fn no_byte_can_be_changed(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>()) {
        let key = SigningKey::from_pem(include_str!("../../../sealed-model/tests/data/openssl-p256.key.pem")).unwrap();
        let keys = [key.public().unwrap()];
        let mut bytes = log(&key).to_bytes().unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
        prop_assert!(MeasurementLog::read(&bytes, &keys).is_err());
    }
}
