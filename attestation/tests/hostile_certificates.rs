//! Certificates and revocation lists with any byte changed, cut or invented: answered, never accepted.
#![expect(clippy::unwrap_used, reason = "a test: a panic is a failure")]

use std::sync::LazyLock;

use attestation::{RevocationLists, TrustAnchor};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, RevokedCertParams, SerialNumber,
    date_time_ymd,
};

static ROOT_AND_LIST: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(&key).unwrap().der().to_vec();
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2030, 1, 1),
        next_update: date_time_ymd(2030, 1, 2),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(7),
            revocation_time: date_time_ymd(2030, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&Issuer::new(params, key)).unwrap();
    (root, list.der().to_vec())
});

#[test]
fn the_unchanged_ones_are_read() {
    assert!(TrustAnchor::from_der(&ROOT_AND_LIST.0).is_ok());
    assert_eq!(
        RevocationLists::from_bytes(&ROOT_AND_LIST.1).unwrap().len(),
        1
    );
}

#[test]
fn every_truncation_is_refused() {
    let (root, list) = &*ROOT_AND_LIST;
    for length in 0..root.len() {
        assert!(TrustAnchor::from_der(&root[..length]).is_err(), "{length}");
    }
    for length in 0..list.len() {
        assert!(
            RevocationLists::from_bytes(&list[..length]).is_err(),
            "{length}"
        );
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let (root, list) = &*ROOT_AND_LIST;
    assert!(TrustAnchor::from_der(&[root.as_slice(), &[0]].concat()).is_err());
    assert!(RevocationLists::from_bytes(&[list.as_slice(), &[0]].concat()).is_err());
    assert!(RevocationLists::from_bytes(&[list.as_slice(), list].concat()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_neither(bytes in prop::collection::vec(any::<u8>(), 0..1024)) {
        prop_assert!(TrustAnchor::from_der(&bytes).is_err());
        prop_assert!(TrustAnchor::from_pem(&bytes).is_err());
        prop_assert!(RevocationLists::from_bytes(&bytes).is_err());
    }

    #[test]
    fn bytes_that_begin_as_a_sequence_are_neither(mut bytes in prop::collection::vec(any::<u8>(), 2..1024)) {
        bytes[0] = 0x30;
        prop_assert!(TrustAnchor::from_der(&bytes).is_err());
        prop_assert!(RevocationLists::from_bytes(&bytes).is_err());
    }

    /// A root's own signature proves nothing, so a changed one may be read: as another root.
    #[test]
    fn a_changed_root_is_another_or_none(position in any::<prop::sample::Index>(), change in 1..=u8::MAX) {
        let original = &ROOT_AND_LIST.0;
        let mut changed = original.clone();
        changed[position.index(original.len())] ^= change;
        if let Ok(anchor) = TrustAnchor::from_der(&changed) {
            prop_assert_ne!(anchor.fingerprint(), TrustAnchor::from_der(original).unwrap().fingerprint());
        }
    }

    #[test]
    fn a_changed_list_is_answered(position in any::<prop::sample::Index>(), change in 1..=u8::MAX) {
        let mut changed = ROOT_AND_LIST.1.clone();
        let position = position.index(changed.len());
        changed[position] ^= change;
        if let Ok(lists) = RevocationLists::from_bytes(&changed) {
            prop_assert_eq!(lists.len(), 1);
        }
    }
}
