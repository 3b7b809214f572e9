use std::path::PathBuf;

use super::*;
use attestation::TrustAnchor;

/// Documents of real enclaves, kept beside the project; `None` (said) where they are absent.
fn vector(name: &str) -> Option<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/nitro");
    if !folder.is_dir() {
        eprintln!("skipped: {} is absent", folder.display());
        return None;
    }
    Some(std::fs::read(folder.join(name)).unwrap())
}

const SHIPPED: &str = include_str!("../../policies/measured-images.rego");
const PATH: &str = "models/demo/epoch-1";

fn run(document: &Stored, policy: &str, paths: &[&str]) -> Report {
    run_at(document, policy, paths, None)
}

fn run_at(document: &Stored, policy: &str, paths: &[&str], at: Option<SystemTime>) -> Report {
    let resources: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
    let mut run = DryRun {
        policy,
        verifier: Verifier::new(TrustAnchor::aws_nitro()),
        at,
        attestation_policy: None,
        references: References::new(),
        resources: &resources,
        query: &HashMap::new(),
    };
    let mut report = Report {
        text: String::new(),
        denied: None,
    };
    if let Err(reason) = run.judge(document, &mut report) {
        report.denied = Some(reason);
    }
    report
}

/// The shipped policy for the image of this document.
fn policy_for(document: &Stored) -> String {
    let now = document.evidence.claimed_time().unwrap();
    let verifier = Verifier::new(TrustAnchor::aws_nitro());
    let document = verifier.authenticate(&document.evidence, now).unwrap();
    (0..3).fold(SHIPPED.to_owned(), |policy, index| {
        let placeholder = format!("<PCR{index}: 96 hex digits>");
        policy.replace(&placeholder, &document.pcrs[&index].to_string())
    })
}

#[test]
fn real_documents_are_allowed_by_a_policy_for_their_image_and_denied_by_others() {
    for name in [
        "accept_signed_image_2022.bin",
        "accept_2024.bin",
        "accept_indefinite_map_2025.bin",
        "accept_pcr16_2025.bin",
    ] {
        let Some(bytes) = vector(name) else { return };
        let document = Stored::parse(&bytes).unwrap();
        let policy = policy_for(&document);
        let report = run(&document, &policy, &[PATH]);
        assert_eq!(report.denied, None, "{}", report.text);
        assert!(
            report.text.contains("models/demo/epoch-1: allowed"),
            "{}",
            report.text
        );
        assert!(
            report.text.contains("unknown    config_digest, boot_id"),
            "{}",
            report.text
        );

        let report = run(&document, SHIPPED, &[PATH]);
        assert_eq!(report.denied.as_deref(), Some("1 of 1 would be denied"));
        for line in [
            "models/demo/epoch-1: denied",
            "because PCR0, PCR1 and PCR2 are those of no listed image",
            "  measured = false",
            "  model_key = true",
        ] {
            assert!(report.text.contains(line), "{line}: {}", report.text);
        }

        // One denied is one too many.
        let report = run(&document, &policy, &[PATH, "other/demo/epoch-1"]);
        assert_eq!(report.denied.as_deref(), Some("1 of 2 would be denied"));
    }
}

#[test]
fn real_documents_that_no_broker_would_take_are_denied_whatever_the_policy_says() {
    let yes = "package policy\nallow := true\n";
    for (name, why) in [
        ("reject_debug_2022.bin", "debug"),
        ("reject_debug_2023.bin", "debug"),
        ("reject_bad_signature_2024.bin", "signature"),
        ("reject_foreign_root.bin", "trust anchor"),
    ] {
        let Some(bytes) = vector(name) else { return };
        let report = run(&Stored::parse(&bytes).unwrap(), yes, &[PATH]);
        assert!(report.denied.unwrap().contains(why), "{name}");
        assert!(!report.text.contains("allowed"));
    }
}

#[test]
fn a_document_is_judged_at_the_time_that_is_named() {
    let Some(bytes) = vector("accept_2024.bin") else {
        return;
    };
    let document = Stored::parse(&bytes).unwrap();
    let made = document.evidence.claimed_time().unwrap();
    let day = std::time::Duration::from_secs(24 * 3600);
    let report = run_at(&document, &policy_for(&document), &[PATH], Some(made + day));
    assert!(
        report.denied.unwrap().contains("trust anchor"),
        "its certificate has ended"
    );
}

#[test]
fn binary_base64_and_json_are_the_same_document() {
    let Some(bytes) = vector("accept_2024.bin") else {
        return;
    };
    let base64 = STANDARD.encode(&bytes);
    let wrapped: Vec<_> = base64.as_bytes().chunks(64).collect();
    let lines = wrapped.join(&b'\n');
    let digest = Sha256Digest::of(b"config");
    let json = json!({"document": base64, "config_digest": digest, "boot_id": "00".repeat(16)});
    let parsed: Vec<_> = [
        bytes.clone(),
        base64.clone().into_bytes(),
        format!("{base64}\n").into_bytes(),
        lines,
        json!({"document": base64}).to_string().into_bytes(),
        json.to_string().into_bytes(),
    ]
    .iter()
    .map(|form| Stored::parse(form).unwrap())
    .collect();
    for stored in &parsed {
        assert_eq!(stored.evidence.as_bytes(), bytes);
    }
    assert_eq!(parsed.last().unwrap().config_digest, Some(digest));
    assert!(parsed.last().unwrap().boot_id.is_some());
    let by_config = "package policy\nallow if input.nitro.config_digest == data.query.want\n";
    let by_config = by_config.replace("data.query.want", &format!("\"{digest}\""));
    let by_config = by_config.replace("allow if", "import rego.v1\nallow if");
    assert_eq!(
        run(parsed.last().unwrap(), &by_config, &[PATH]).denied,
        None
    );
    assert!(run(&parsed[0], &by_config, &[PATH]).denied.is_some());
}

#[test]
fn what_is_no_document_is_a_usage_error_and_no_verdict() {
    for bytes in [
        &b""[..],
        b"AAAA",
        b"not a document",
        b"{",
        b"{}",
        b"{\"document\": 1}",
        b"{\"document\": \"AAAA\"}",
        b"\x84\x00",
    ] {
        assert!(Stored::parse(bytes).is_err(), "{bytes:?}");
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
        proptest::prop_assert!(Stored::parse(&bytes).is_err());
    }

    #[test]
    fn arbitrary_members_are_refused_without_a_panic(document in ".{0,64}", digest in ".{0,64}", key in ".{0,64}") {
        let json = json!({
            "tee-evidence": {"primary_evidence": {"document": document, "config_digest": digest}},
            "runtime-data": {"nonce": "", "tee-pubkey": key},
        });
        proptest::prop_assert!(Stored::parse(json.to_string().as_bytes()).is_err());
    }
}
