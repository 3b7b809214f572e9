//! Whatever arrives, the verifier answers, and only an unchanged document is accepted.
#![expect(clippy::unwrap_used, reason = "a test: a panic is a failure")]

use std::sync::LazyLock;
use std::time::Duration;

use attestation::{
    Appraisal, Binding, BootId, Error, Evidence, Expected, ReferenceValues, Sha256Digest,
    Sha384Digest, Subject, Verifier,
};
use proptest::prelude::*;

mod support;
use support::{Genuine, NONCE, PUBLIC_KEY, genuine};

static BINDING: LazyLock<Binding> = LazyLock::new(|| Binding {
    config_digest: Sha256Digest::of(b"config"),
    boot_id: BootId::from_bytes([1; 16]),
    subject: Subject::KeyRelease {
        runtime_data_sha384: Sha384Digest::of(b"runtime data"),
    },
});

static GENUINE: LazyLock<Genuine<1>> = LazyLock::new(|| genuine(&BINDING.user_data()));

fn verify(document: &[u8]) -> Result<(), Error> {
    let image = GENUINE
        .pcrs
        .iter()
        .filter(|(index, _)| **index < 3)
        .map(|(i, v)| (*i, *v))
        .collect();
    let accepted = ReferenceValues::try_new(vec![image]).unwrap();
    let expected = Expected {
        nonce: NONCE,
        public_key: PUBLIC_KEY,
        binding: &BINDING,
        measurements: Appraisal::Reference(&accepted),
        max_age: Duration::from_secs(60),
    };
    let evidence = Evidence::from_bytes(document.to_vec())?;
    Verifier::new(GENUINE.anchor.clone())
        .verify(&evidence, &expected, GENUINE.now)
        .map(drop)
}

/// The one change that keeps a document's meaning: COSE lets the tag be there or not.
fn is_tagged_original(document: &[u8]) -> bool {
    document.split_first() == Some((&0xd2, GENUINE.evidence[0].as_bytes()))
}

#[test]
fn the_unchanged_document_is_accepted_with_and_without_its_tag() {
    let original = GENUINE.evidence[0].as_bytes();
    assert_eq!(verify(original), Ok(()));
    assert_eq!(verify(&[&[0xd2], original].concat()), Ok(()));
}

#[test]
fn every_truncation_is_refused() {
    let original = GENUINE.evidence[0].as_bytes();
    for length in 1..original.len() {
        assert!(
            matches!(verify(&original[..length]), Err(Error::Structure(_))),
            "{length}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_refused(document in prop::collection::vec(any::<u8>(), 0..2048)) {
        prop_assert!(verify(&document).is_err());
    }

    #[test]
    fn arbitrary_payloads_in_a_true_envelope_are_refused(payload in prop::collection::vec(any::<u8>(), 24..255)) {
        let length = u8::try_from(payload.len()).unwrap();
        let document = [&[0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0, 0x58, length][..], &payload, &[0x58, 96], &[1; 96]];
        prop_assert!(matches!(verify(&document.concat()), Err(Error::Structure(_))));
    }

    #[test]
    fn a_changed_byte_is_refused(position in any::<prop::sample::Index>(), change in 1..=u8::MAX) {
        let mut document = GENUINE.evidence[0].as_bytes().to_vec();
        let position = position.index(document.len());
        document[position] ^= change;
        prop_assert!(verify(&document).is_err(), "byte {position} changed by {change:#x}");
    }

    #[test]
    fn a_spliced_document_is_refused(
        at in any::<prop::sample::Index>(),
        removed in 0..64_usize,
        inserted in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let original = GENUINE.evidence[0].as_bytes();
        let at = at.index(original.len());
        let end = (at + removed).min(original.len());
        let document = [&original[..at], &inserted, &original[end..]].concat();
        if document != original && !is_tagged_original(&document) {
            prop_assert!(verify(&document).is_err());
        }
    }
}
