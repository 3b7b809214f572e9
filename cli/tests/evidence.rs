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

use attestation::{
    AttestationRequest, Attester as _, Binding, BootId, EvidenceBundle, EvidencePolicy, Pcr, Pcrs,
    ReferenceValues, Sha256Digest, Sha384Digest, Subject,
};
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

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let made = at(MADE);
    verify(
        dir,
        &[arguments, &["--root", "root.pem", "--at", &made]].concat(),
    )
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_document_on_standard_input_and_its_own_time_are_taken() {
    let dir = world(false);
    for file in ["binary", "hex", "base64"] {
        let output = Command::new(env!("CARGO_BIN_EXE_cloister"))
            .current_dir(dir.path())
            .args(["verify", "-", "--root", "root.pem", "--at", "document"])
            .stdin(fs::File::open(dir.path().join(file)).unwrap())
            .output()
            .unwrap();
        assert!(stdout(&output).contains("authentic"), "{file}");
    }
}

#[test]
fn what_is_asked_is_judged_and_what_is_not_asked_is_said() {
    let dir = world(false);
    let pcr = Pcr::ZERO.extend(b"image").to_string();
    let other = Pcr::ZERO.extend(b"other").to_string();
    let text = stdout(&run(dir.path(), &["binary"]));
    assert!(text.contains("nonce         not asked"), "{text}");
    assert!(text.contains("freshness     not asked"), "{text}");

    let (right, wrong) = (format!("4={pcr}"), format!("4={other}"));
    let asked = ["binary", "--pcr", &right, "--max-age", "60"];
    let text = stdout(&run(dir.path(), &asked));
    assert!(text.contains("measurements  passed"), "{text}");
    assert!(text.contains("accepted"), "{text}");
    for (arguments, words) in [
        (vec!["--pcr", &wrong], ["measurements", "PCR4"]),
        (
            vec!["--pcr", &right, "--pcr", &format!("17={pcr}")],
            ["measurements", "absent"],
        ),
        (vec!["--nonce", &"07".repeat(32)], ["nonce", "challenge"]),
        (vec!["--nonce", &hex::encode("nonce")], ["nonce", "guessed"]),
        (vec!["--public-key", "00"], ["public-key", "SHA-256"]),
    ] {
        let output = run(dir.path(), &[&["binary"], &arguments[..]].concat());
        fails(&output, 77, &["binary", "refused at", words[0], words[1]]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("REFUSED at"), "{text}");
        assert!(text.contains("not reached"), "{text}");
    }
    let old = at(MADE + Duration::from_secs(61));
    let output = verify(
        dir.path(),
        &[
            "binary",
            "--root",
            "root.pem",
            "--at",
            &old,
            "--max-age",
            "60",
        ],
    );
    fails(&output, 77, &["freshness", "not fresh"]);
}

#[test]
fn expectations_that_cannot_be_meant_are_refused_before_anything_is_read() {
    let dir = world(false);
    let zeros = format!("0={}", "00".repeat(48));
    let one = format!("0={}", "01".repeat(48));
    for arguments in [
        &["--pcr", zeros.as_str()][..],
        &["--pcr", "0=01"],
        &["--pcr", "32=01"],
        &["--pcr", "+1=01"],
        &["--pcr", &one, "--pcr", &one],
        &["--nonce", "xyz"],
        &["--max-age", "-1"],
        &["--at", "noon"],
        &["--root", "hex"],
        &["--crl", "hex"],
        &["--policy", "hex"],
        &["--binding", "hex"],
        &["--connect", "host:1"],
        &["--svid", "hex"],
    ] {
        let output = verify(dir.path(), &[&["binary"], arguments].concat());
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
    assert_eq!(verify(dir.path(), &[]).status.code(), Some(64));
}

#[test]
fn a_debug_enclave_is_shown_only_for_inspection() {
    let dir = world(true);
    fails(
        &run(dir.path(), &["binary"]),
        77,
        &["debug", "--allow-debug"],
    );
    let text = stdout(&run(dir.path(), &["binary", "--allow-debug"]));
    assert!(text.contains("DEBUG MODE, for inspection only"), "{text}");
    assert!(text.contains("debug         waived"), "{text}");
    assert!(!text.contains("accepted"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&stdout(&run(
        dir.path(),
        &["binary", "--allow-debug", "--json"],
    )))
    .unwrap();
    assert_eq!(json["debug_waived"], true);
}

#[test]
fn the_json_report_has_every_step_the_chain_and_the_registers() {
    let dir = world(false);
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&run(dir.path(), &["binary", "--json"]))).unwrap();
    assert_eq!(json["accepted"], true);
    let steps: Vec<_> = json["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["step"].as_str().unwrap())
        .collect();
    assert_eq!(
        steps,
        [
            "structure",
            "chain",
            "signature",
            "debug",
            "nonce",
            "public-key",
            "binding",
            "measurements",
            "freshness",
            "config-digest",
            "models",
            "manifest"
        ]
    );
    assert_eq!(json["document"]["chain"].as_array().unwrap().len(), 5);
    assert_eq!(json["document"]["chain"][1]["path_length"], 2);
    assert_eq!(json["trust_anchor"]["aws_nitro"], false);
    assert_eq!(
        json["document"]["pcrs"]["0"],
        Pcr::ZERO.extend(b"image").to_string()
    );

    // A refused document is shown, too, and called refused.
    let made = at(MADE);
    let output = verify(dir.path(), &["binary", "--at", &made, "--json"]);
    assert_eq!(output.status.code(), Some(77));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["accepted"], false);
    assert_eq!(json["steps"][1]["verdict"], "refused");
    assert_eq!(json["steps"][2]["verdict"], "not reached");
}

/// A bundle around a document whose user data is a binding's, and the policy that accepts it.
fn bundled(dir: &Path) -> EvidenceBundle {
    let made = SystemTime::UNIX_EPOCH + MADE;
    let pki = SimPki::generate(made);
    fs::write(dir.join("root.pem"), pki.root_pem()).unwrap();
    let pcrs: Pcrs = (0..5).map(|i| (i, Pcr::ZERO.extend(&[i]))).collect();
    let images = ReferenceValues::try_new(vec![pcrs.clone()]).unwrap();
    let nsm = SimNsm::new(pki, pcrs, Arc::new(move || made));
    let binding = Binding {
        config_digest: Sha256Digest::of(b"config"),
        boot_id: BootId::from_bytes([1; 16]),
        subject: Subject::KeyRelease {
            runtime_data_sha384: Sha384Digest::of(b"runtime data"),
        },
    };
    let request = AttestationRequest {
        user_data: &binding.user_data(),
        nonce: &[7; 32],
        public_key: b"key",
    };
    let mut bundle = EvidenceBundle::new(nsm.attest(&request).unwrap());
    bundle.nonce = Some(vec![7; 32]);
    bundle.public_key = Some(b"key".to_vec());
    bundle.binding = Some(binding);
    bundle.policy = Some(EvidencePolicy {
        images,
        config_digest: Some(Sha256Digest::of(b"config")),
        models: vec![],
        max_age_s: Some(300),
    });
    bundle
}

#[test]
fn a_bundle_is_verified_offline_by_its_own_policy_or_by_the_readers() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundled(dir.path());
    fs::write(dir.path().join("bundle.json"), bundle.to_json().unwrap()).unwrap();
    let text = stdout(&run(dir.path(), &["bundle.json"]));
    for word in [
        "accepted: authentic, and nonce, public-key, binding, measurements, freshness, config-digest hold",
        "the bundle's own",
        "for key-release",
    ] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }

    let mine = toml::to_string(&bundle.policy).unwrap();
    fs::write(dir.path().join("mine.toml"), &mine).unwrap();
    let text = stdout(&run(dir.path(), &["bundle.json", "--policy", "mine.toml"]));
    assert!(text.contains("the given one"), "{text}");

    let config = Sha256Digest::of(b"config").to_string();
    let other = mine.replace(&config, &Sha256Digest::of(b"other").to_string());
    fs::write(dir.path().join("other.toml"), other).unwrap();
    fails(
        &run(dir.path(), &["bundle.json", "--policy", "other.toml"]),
        77,
        &["refused at config-digest", &config],
    );
    fs::write(dir.path().join("more.toml"), mine + "server_id = \"x\"\n").unwrap();
    fails(
        &run(dir.path(), &["bundle.json", "--policy", "more.toml"]),
        64,
        &["more.toml", "line", "server_id"],
    );
}

#[test]
fn a_bundle_with_any_part_exchanged_is_refused_at_that_step() {
    let dir = tempfile::tempdir().unwrap();
    let good = bundled(dir.path());
    let refused = |name: &str, change: &dyn Fn(&mut EvidenceBundle)| {
        let mut bundle = good.clone();
        change(&mut bundle);
        fs::write(dir.path().join(name), bundle.to_json().unwrap()).unwrap();
        let step = format!("refused at {name}");
        fails(&run(dir.path(), &[name]), 77, &[&step]);
    };
    refused("nonce", &|b| b.nonce = Some(vec![8; 32]));
    refused("public-key", &|b| b.public_key = Some(b"another".to_vec()));
    refused("binding", &|b| {
        b.binding.as_mut().unwrap().boot_id = BootId::from_bytes([2; 16]);
    });
    refused("config-digest", &|b| {
        b.policy.as_mut().unwrap().config_digest = Some(Sha256Digest::of(b"other"));
    });
    refused("manifest", &|b| b.manifests = vec![b"{}".to_vec()]);
    for (name, text) in [
        ("later", r#"{"format":"cloister-evidence/2"}"#),
        ("empty", "{}"),
        ("cut", "{"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
        fails(&run(dir.path(), &[name]), 77, &["refused at bundle"]);
    }
}

#[test]
fn a_document_is_saved_as_a_bundle_that_says_the_same_again() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundled(dir.path());
    fs::write(dir.path().join("document"), bundle.document.as_bytes()).unwrap();
    let text = bundle.binding.as_ref().unwrap().canonical_json();
    fs::write(dir.path().join("binding.json"), [&text[..], b"\n"].concat()).unwrap();
    let nonce = "07".repeat(32);
    let key = hex::encode("key");
    let asked = [
        "--nonce",
        &nonce,
        "--public-key",
        &key,
        "--binding",
        "binding.json",
        "--save",
        "saved.json",
    ];
    let first = stdout(&run(dir.path(), &[&["document"], &asked[..]].concat()));
    assert_eq!(first, stdout(&run(dir.path(), &["saved.json"])));
    // Nothing is overwritten.
    let again = run(dir.path(), &[&["document"], &asked[..]].concat());
    fails(&again, 64, &["saved.json", "exists already"]);
}

#[test]
fn a_revoked_authority_is_refused_by_the_given_list() {
    let dir = tempfile::tempdir().unwrap();
    let made = SystemTime::UNIX_EPOCH + MADE;
    let pki = SimPki::generate(made);
    let lists = SimPki::from_json(&pki.to_json()).unwrap();
    fs::write(dir.path().join("root.pem"), pki.root_pem()).unwrap();
    let pcrs: Pcrs = (0..5).map(|i| (i, Pcr::ZERO.extend(&[i]))).collect();
    let nsm = SimNsm::new(pki, pcrs, Arc::new(move || made));
    let request = AttestationRequest {
        user_data: b"data",
        nonce: b"nonce",
        public_key: b"key",
    };
    fs::write(
        dir.path().join("document"),
        nsm.attest(&request).unwrap().as_bytes(),
    )
    .unwrap();
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&run(dir.path(), &["document", "--json"]))).unwrap();
    let serial = hex::decode(json["document"]["chain"][2]["serial"].as_str().unwrap()).unwrap();
    for (name, serials) in [("clean.crl", vec![]), ("revoking.crl", vec![serial])] {
        let list = sim::nsm::revocation_list(made, &serials);
        let der = lists.revoke(sim::nsm::Rank::Regional, list).unwrap();
        fs::write(dir.path().join(name), der).unwrap();
    }
    stdout(&run(dir.path(), &["document", "--crl", "clean.crl"]));
    fails(
        &run(
            dir.path(),
            &["document", "--crl", "clean.crl", "--crl", "revoking.crl"],
        ),
        77,
        &["refused at chain", "certificate 2 is revoked"],
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
