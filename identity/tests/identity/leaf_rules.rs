use identity::{Error, leaf};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};

use crate::support::{LooseCa, WORKLOAD, extension, uri};

/// DER of `KeyUsage { digitalSignature }`.
const DIGITAL_SIGNATURE: &[u8] = &[3, 2, 7, 0x80];

fn check(change: impl FnOnce(&mut CertificateParams), expected: fn(&Error) -> bool) {
    let der = LooseCa::new().leaf(change);
    let error = leaf(&der).unwrap_err();
    assert!(expected(&error), "{error:?}");
}

#[test]
fn accepts_a_plain_svid_and_reads_it() {
    let ca = LooseCa::new();
    let (der, key) = ca.leaf_with_key(|params| params.serial_number = Some(vec![0x8f, 1].into()));
    let leaf = leaf(&der).unwrap();
    assert_eq!(leaf.id.to_string(), WORKLOAD);
    assert_eq!(leaf.serial, "8f01");
    assert_eq!(
        leaf.spki_der,
        rcgen::PublicKeyData::subject_public_key_info(&key)
    );
    assert!(leaf.not_before < leaf.not_after);
}

#[test]
fn accepts_a_dns_name_beside_the_id() {
    let der = LooseCa::new().leaf(|params| {
        params
            .subject_alt_names
            .insert(0, SanType::DnsName("db.test".try_into().unwrap()));
    });
    assert_eq!(leaf(&der).unwrap().id.to_string(), WORKLOAD);
}

#[test]
fn accepts_a_leaf_without_extended_key_usage() {
    let der = LooseCa::new().leaf(|params| params.extended_key_usages.clear());
    assert!(leaf(&der).is_ok());
}

#[test]
fn refuses_two_spiffe_ids() {
    check(
        |params| {
            params
                .subject_alt_names
                .push(uri("spiffe://one.test/other"))
        },
        |error| matches!(error, Error::UriNames { found: 2 }),
    );
}

#[test]
fn refuses_a_second_uri_of_another_scheme() {
    check(
        |params| params.subject_alt_names.push(uri("https://one.test/")),
        |error| matches!(error, Error::UriNames { found: 2 }),
    );
}

#[test]
fn refuses_no_uri_at_all() {
    check(
        |params| params.subject_alt_names = vec![SanType::DnsName("db.test".try_into().unwrap())],
        |error| matches!(error, Error::UriNames { found: 0 }),
    );
}

#[test]
fn refuses_a_second_name_extension() {
    // SEQUENCE { [6] "spiffe://one.test/x" }
    let mut value = vec![0x30, 21, 0x86, 19];
    value.extend_from_slice(b"spiffe://one.test/x");
    check(
        |params| params.custom_extensions.push(extension(17, true, &value)),
        |error| matches!(error, Error::Encoding(_)),
    );
}

#[test]
fn refuses_an_id_without_a_path() {
    check(
        |params| params.subject_alt_names = vec![uri("spiffe://one.test")],
        |error| matches!(error, Error::MissingPath { .. }),
    );
}

#[test]
fn refuses_names_that_are_not_spiffe_ids() {
    for name in [
        "https://one.test/a",
        "spiffe://One.test/a",
        "SPIFFE://one.test/a",
        "spiffe://one.test/a/",
        "spiffe://one.test//a",
        "spiffe://one.test/../a",
        "spiffe://one.test/a?b",
        "spiffe://one.test/a#b",
        "spiffe://one.test:80/a",
        "spiffe://u@one.test/a",
        "spiffe://one.test/%41",
        "spiffe:///a",
    ] {
        check(
            |params| params.subject_alt_names = vec![uri(name)],
            |error| matches!(error, Error::SpiffeId),
        );
    }
}

#[test]
fn refuses_a_ca_as_leaf() {
    check(
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        |error| matches!(error, Error::CaLeaf),
    );
}

#[test]
fn refuses_missing_basic_constraints() {
    check(
        |params| params.is_ca = IsCa::NoCa,
        |error| matches!(error, Error::MissingBasicConstraints),
    );
}

#[test]
fn refuses_key_cert_sign() {
    check(
        |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign),
        |error| matches!(error, Error::SigningKeyUsage("keyCertSign")),
    );
}

#[test]
fn refuses_crl_sign() {
    check(
        |params| params.key_usages.push(KeyUsagePurpose::CrlSign),
        |error| matches!(error, Error::SigningKeyUsage("cRLSign")),
    );
}

#[test]
fn refuses_missing_key_usage() {
    check(
        |params| params.key_usages.clear(),
        |error| matches!(error, Error::MissingKeyUsage),
    );
}

#[test]
fn refuses_a_key_usage_that_is_not_critical() {
    check(
        |params| {
            params.key_usages.clear();
            params
                .custom_extensions
                .push(extension(15, false, DIGITAL_SIGNATURE));
        },
        |error| matches!(error, Error::KeyUsageNotCritical),
    );
}

#[test]
fn refuses_a_key_usage_without_digital_signature() {
    check(
        |params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement],
        |error| matches!(error, Error::MissingDigitalSignature),
    );
}

#[test]
fn refuses_one_sided_extended_key_usage() {
    check(
        |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        |error| matches!(error, Error::ExtendedKeyUsage("serverAuth")),
    );
    check(
        |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        |error| matches!(error, Error::ExtendedKeyUsage("clientAuth")),
    );
}

#[test]
fn refuses_an_empty_subject_beside_a_name_that_is_not_critical() {
    let mut value = vec![0x30, 32, 0x86, 30];
    value.extend_from_slice(WORKLOAD.as_bytes());
    check(
        |params| {
            params.subject_alt_names.clear();
            params.custom_extensions.push(extension(17, false, &value));
        },
        |error| matches!(error, Error::NameNotCritical),
    );
    // With a subject the same extension is fine.
    let der = LooseCa::new().leaf(|params| {
        params.subject_alt_names.clear();
        params.custom_extensions.push(extension(17, false, &value));
        params
            .distinguished_name
            .push(DnType::CommonName, "someone");
    });
    assert!(leaf(&der).is_ok());
}

#[test]
fn refuses_trailing_bytes_and_oversize() {
    let mut der = LooseCa::new().leaf(|_| {}).to_vec();
    der.push(0);
    assert!(matches!(leaf(&der), Err(Error::Encoding("trailing bytes"))));
    assert!(matches!(
        leaf(&vec![0x30; 17 * 1024]),
        Err(Error::Encoding("too large"))
    ));
    assert!(leaf(&[]).is_err());
}

proptest! {
    #[test]
    fn never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _verdict = leaf(&bytes);
    }

    #[test]
    fn never_panics_on_a_damaged_certificate(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        use std::sync::LazyLock;
        static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| LooseCa::new().leaf(|_| {}).to_vec());
        let mut der = GOOD.clone();
        for (at, value) in edits {
            let at = at.index(der.len());
            der[at] = value;
        }
        if let Some(cut) = cut {
            der.truncate(cut.index(der.len()));
        }
        let _verdict = leaf(&der);
    }
}
