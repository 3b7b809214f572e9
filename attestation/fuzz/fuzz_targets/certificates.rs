//! Certificates as a root, and as everything below AWS's root in a document that is otherwise well formed. None of them
//! can be signed by it.
#![no_main]

use std::time::{Duration, SystemTime};

use attestation::{Error, Evidence, TrustAnchor, Verifier};
use libfuzzer_sys::fuzz_target;

const ROOT: &[u8] = include_bytes!("../../src/aws_nitro_root_g1.pem");

fuzz_target!(|input: (&[u8], &[u8])| {
    let (authority, leaf) = input;
    for bytes in [authority, leaf] {
        if let Ok(anchor) = TrustAnchor::from_der(bytes) {
            assert!(!anchor.is_aws_nitro());
        }
        drop(TrustAnchor::from_pem(bytes));
    }
    if authority.is_empty() || leaf.is_empty() || authority.len() > 1024 || leaf.len() > 1024 {
        return;
    }
    let root = rustls_pki_types::CertificateDer::from_pem_slice(ROOT).expect("the root is PEM");
    let mut payload = vec![0xa6];
    for (name, value) in [
        ("module_id", text("i-0-enc0")),
        ("digest", text("SHA384")),
        ("timestamp", vec![0x1a, 0x60, 0, 0, 0]),
        ("pcrs", [vec![0xa1, 0], bytes(&[1; 48])].concat()),
        ("certificate", bytes(leaf)),
        ("cabundle", [vec![0x82], bytes(&root), bytes(authority)].concat()),
    ] {
        payload.extend(text(name));
        payload.extend(value);
    }
    let document = [
        &[0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0][..],
        &bytes(&payload),
        &bytes(&[2; 96]),
    ]
    .concat();
    let evidence = Evidence::from_bytes(document).expect("within bounds");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    let verdict = Verifier::new(TrustAnchor::aws_nitro()).authenticate(&evidence, now);
    assert!(matches!(verdict, Err(Error::Chain(_))), "{verdict:?}");
    assert_eq!(evidence.inspect().expect("well formed").certificates.len(), 3);
});

use rustls_pki_types::pem::PemObject as _;

fn head(major: u8, length: usize) -> Vec<u8> {
    let [high, low] = u16::try_from(length).expect("short").to_be_bytes();
    match length {
        0..24 => vec![major << 5 | low],
        24..256 => vec![major << 5 | 24, low],
        _ => vec![major << 5 | 25, high, low],
    }
}

fn bytes(value: &[u8]) -> Vec<u8> {
    [&head(2, value.len()), value].concat()
}

fn text(value: &str) -> Vec<u8> {
    [&head(3, value.len()), value.as_bytes()].concat()
}
