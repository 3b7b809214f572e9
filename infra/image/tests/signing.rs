//! The signature section: what holds, and each way in which it does not.

mod support;

use image::{Error, Pcr, SignatureError, sign};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
use support::{OFFICIAL, SIGNED, inputs, packed, packed_inputs, read};

struct Signer {
    certificate: String,
    key: String,
}

#[expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]
impl Signer {
    fn new() -> Self {
        Self::with(&PKCS_ECDSA_P384_SHA384)
    }

    fn with(algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::new(Vec::new())
            .unwrap()
            .self_signed(&key);
        Self {
            certificate: certificate.unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn sign(&self, pcr0: &Pcr) -> Result<Vec<u8>, SignatureError> {
        sign(pcr0, self.certificate.as_bytes(), self.key.as_bytes())
    }
}

#[expect(clippy::unwrap_used, reason = "the fixture is an image")]
fn pcr0() -> Pcr {
    read(OFFICIAL).unwrap().measurements.pcr0
}

#[expect(clippy::unwrap_used, reason = "an accepted image is a failed test")]
fn refused(section: &[u8]) -> SignatureError {
    match read(&packed_inputs(Some(section))).unwrap_err() {
        Error::Signature(error) => error,
        error => panic!("{error}"),
    }
}

/// `section` with the first `from` replaced by `to`, both as CBOR arrays of small integers write them.
fn replaced(section: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = section
        .windows(from.len())
        .position(|window| window == from);
    let at = at.unwrap_or_else(|| panic!("{from:02x?} is not there"));
    [section.get(..at), Some(to), section.get(at + from.len()..)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .concat()
}

#[test]
fn an_image_we_sign_is_read_and_has_the_certificate_in_pcr8() {
    let signer = Signer::new();
    let image = read(&packed_inputs(Some(&signer.sign(&pcr0()).unwrap()))).unwrap();
    let signature = image.signature.unwrap();
    assert_eq!(image.measurements.pcr8, Some(signature.pcr8()));
    assert_eq!(
        signature.pcr8(),
        Pcr::first(signature.certificate_sha384().as_bytes())
    );
    assert_eq!(image.measurements.pcr0, pcr0());
}

#[test]
fn refuses_the_signature_of_another_image() {
    let signer = Signer::new();
    let section = signer.sign(&Pcr::first(b"another image")).unwrap();
    assert!(matches!(
        refused(&section),
        SignatureError::OtherImage { index: 0, .. }
    ));
    // One grafted from an official image.
    let (kernel, [a, ..]) = inputs();
    let section = SIGNED.get(OFFICIAL.len() + 12..).unwrap();
    let grafted = packed(&kernel, "", &[&a], Some(section)).unwrap();
    let error = read(&grafted).unwrap_err();
    assert!(
        matches!(error, Error::Signature(SignatureError::OtherImage { .. })),
        "{error}"
    );
}

#[test]
fn refuses_the_certificate_of_somebody_else() {
    let (ours, theirs) = (Signer::new(), Signer::new());
    let section = ours.sign(&pcr0()).unwrap();
    let [ours, theirs] = [&ours.certificate, &theirs.certificate].map(|pem| {
        // ASCII: one byte below 24, two above.
        pem.bytes()
            .flat_map(|byte| match byte {
                0..24 => vec![byte],
                _ => vec![0x18, byte],
            })
            .collect::<Vec<_>>()
    });
    if ours.len() != theirs.len() {
        println!("skipped: the two certificates have different lengths this time");
        return;
    }
    let error = refused(&replaced(&section, &ours, &theirs));
    assert!(matches!(error, SignatureError::Invalid), "{error}");
}

#[test]
fn a_changed_byte_is_refused_or_moves_pcr8_or_is_none_of_the_certificate() {
    let original = read(SIGNED).unwrap().signature.unwrap();
    let section = SIGNED.get(OFFICIAL.len() + 12..).unwrap();
    let key = b"isignature";
    let signature_at = section
        .windows(key.len())
        .position(|window| window == key)
        .unwrap();
    for at in (0..section.len()).step_by(5) {
        let mut section = section.to_vec();
        section[at] ^= 1;
        // Nobody signs the certificate's own signature, and white space in PEM is no part of it.
        if let Ok(image) = read(&packed_inputs(Some(&section))) {
            assert!(at < signature_at, "byte {at}");
            let signature = image.signature.unwrap();
            assert_eq!(
                signature.pcr8() == original.pcr8(),
                signature.certificate_der() == original.certificate_der(),
                "byte {at}"
            );
        }
    }
}

#[test]
fn refuses_what_is_not_one_signature_by_one_certificate() {
    let signer = Signer::new();
    let section = signer.sign(&pcr0()).unwrap();
    let entry = section.get(1..).unwrap();
    let two = [&[0x82], entry, entry].concat();
    assert!(matches!(refused(&two), SignatureError::Structure));
    assert!(matches!(refused(&[0x80]), SignatureError::Structure));
    assert!(matches!(
        refused(&[&section[..], &[0]].concat()),
        SignatureError::Structure
    ));
    assert!(matches!(refused(&[0x9b; 9]), SignatureError::Structure));
    // An array that claims 2^64-1 elements.
    assert!(matches!(
        refused(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255]),
        SignatureError::Structure
    ));
    let twice = Signer {
        certificate: signer.certificate.repeat(2),
        key: signer.key,
    };
    assert!(matches!(
        twice.sign(&pcr0()),
        Err(SignatureError::Certificate)
    ));
}

#[test]
fn refuses_an_algorithm_that_is_not_one() {
    // 44 a1 01 38 22: protected header {1: -35}, as integers of an array; -35 becomes -38.
    let section = Signer::new().sign(&pcr0()).unwrap();
    let from = [0x18, 0x44, 0x18, 0xa1, 0x01, 0x18, 0x38, 0x18, 0x22];
    let to = [0x18, 0x44, 0x18, 0xa1, 0x01, 0x18, 0x38, 0x18, 0x25];
    assert!(matches!(
        refused(&replaced(&section, &from, &to)),
        SignatureError::Algorithm
    ));
}

#[test]
fn signs_with_no_other_key_than_the_certificates() {
    let (a, b) = (Signer::new(), Signer::new());
    let mixed = Signer {
        certificate: a.certificate,
        key: b.key,
    };
    assert!(matches!(
        mixed.sign(&pcr0()),
        Err(SignatureError::SigningKey)
    ));
    let small = Signer::with(&PKCS_ECDSA_P256_SHA256);
    assert!(matches!(
        small.sign(&pcr0()),
        Err(SignatureError::SigningKey)
    ));
}
