//! `cloister verify` on documents signed under a root made for the test, and on real ones where they are at hand.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use attestation::{AttestationRequest, Attester as _, Pcr, Pcrs};
use base64::Engine as _;
use sim::nsm::{SimNsm, SimPki};
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const MADE: Duration = Duration::from_secs(1_900_000_000);

/// Documents in every encoding, and their root.
fn world(debug: bool) -> TempDir {
    let made = SystemTime::UNIX_EPOCH + MADE;
    let pki = SimPki::generate(made);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("root.pem"), pki.root_pem()).unwrap();
    let value = if debug {
        Pcr::ZERO
    } else {
        Pcr::ZERO.extend(b"image")
    };
    let pcrs: Pcrs = (0..16).map(|index| (index, value)).collect();
    let nsm = SimNsm::new(pki, pcrs, Arc::new(move || made));
    let request = AttestationRequest {
        user_data: b"data",
        nonce: b"nonce",
        public_key: b"key",
    };
    let evidence = nsm.attest(&request).unwrap();
    let bytes = evidence.as_bytes();
    fs::write(dir.path().join("binary"), bytes).unwrap();
    fs::write(dir.path().join("hex"), format!("{}\n", hex::encode(bytes))).unwrap();
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    let lines: Vec<_> = base64
        .as_bytes()
        .chunks(76)
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    fs::write(dir.path().join("base64"), lines.join("\n")).unwrap();
    dir
}

fn verify(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloister"))
        .current_dir(dir)
        .arg("verify")
        .args(arguments)
        .output()
        .unwrap()
}

fn at(time: Duration) -> String {
    OffsetDateTime::from(SystemTime::UNIX_EPOCH + time)
        .format(&Rfc3339)
        .unwrap()
}

fn fails(output: &Output, code: i32, about: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(
        text.starts_with("error: ") && text.lines().count() == 1,
        "{text}"
    );
    for word in about {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

#[test]
fn a_document_in_any_encoding_is_shown_with_its_verdict() {
    let dir = world(false);
    for file in ["binary", "hex", "base64"] {
        let output = verify(dir.path(), &[file, "--root", "root.pem", "--at", &at(MADE)]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{file}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let pcr = Pcr::ZERO.extend(b"image").to_string();
        for word in [
            "authentic",
            "NOT AWS",
            pcr.as_str(),
            "2030-",
            hex::encode("nonce").as_str(),
        ] {
            assert!(text.contains(word), "{file}: {word} is not in: {text}");
        }
    }
}

#[test]
fn a_foreign_root_another_time_a_changed_byte_and_debug_mode_are_refused() {
    let dir = world(false);
    let made = at(MADE);
    fails(
        &verify(dir.path(), &["binary", "--at", &made]),
        77,
        &["binary", "trust anchor"],
    );
    let late = at(MADE + Duration::from_secs(4 * 3600));
    fails(
        &verify(dir.path(), &["binary", "--root", "root.pem", "--at", &late]),
        77,
        &["binary", "--at"],
    );
    let mut bytes = fs::read(dir.path().join("binary")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(dir.path().join("changed"), &bytes).unwrap();
    fails(
        &verify(
            dir.path(),
            &["changed", "--root", "root.pem", "--at", &made],
        ),
        77,
        &["changed", "signature"],
    );

    let dir = world(true);
    let output = verify(dir.path(), &["binary", "--root", "root.pem", "--at", &made]);
    fails(&output, 77, &["binary", "debug mode"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("REFUSED"));
}

#[test]
fn what_is_no_document_or_no_argument_is_one_line() {
    let dir = world(false);
    fs::write(dir.path().join("text"), "hello world").unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::write(dir.path().join("long"), vec![0x84; 100_000]).unwrap();
    for file in ["text", "empty", "long", "root.pem"] {
        fails(&verify(dir.path(), &[file]), 77, &[file]);
    }
    fails(&verify(dir.path(), &["missing"]), 64, &["missing"]);
    fails(
        &verify(dir.path(), &["binary", "--root", "text"]),
        64,
        &["text"],
    );
    assert_eq!(
        verify(dir.path(), &["binary", "--at", "noon"])
            .status
            .code(),
        Some(64)
    );
}

/// Real documents of AWS, each at its own time; the file name has the verdict.
#[test]
fn real_documents_get_the_verdict_in_their_names() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/nitro");
    let Ok(entries) = fs::read_dir(&dir) else {
        println!("skipped: no real documents at hand");
        return;
    };
    let files = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for file in files.filter(|file| file.ends_with(".bin")) {
        let bytes = fs::read(dir.join(&file)).unwrap();
        // CBOR: the text "timestamp", then an unsigned integer of eight bytes, milliseconds.
        let key = b"\x69timestamp\x1b";
        let start = bytes
            .windows(key.len())
            .position(|window| window == key)
            .unwrap()
            + key.len();
        let millis = u64::from_be_bytes(bytes[start..start + 8].try_into().unwrap());
        let output = verify(&dir, &[&file, "--at", &at(Duration::from_millis(millis))]);
        let expected = if file.starts_with("accept") { 0 } else { 77 };
        assert_eq!(
            output.status.code(),
            Some(expected),
            "{file}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
