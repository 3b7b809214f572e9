use identity::issue::{csr, key_and_csr, new_svid, new_svid_der};
use identity::{Error, Svid, leaf, pem};
use rcgen::{
    Attribute, CertificateParams, DistinguishedName, DnType, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, SanType,
};

use crate::support::{HOUR, WORKLOAD, id, now, root, uri};

fn request(change: impl FnOnce(&mut CertificateParams), key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(WORKLOAD)];
    change(&mut params);
    params.serialize_request(key).unwrap().der().to_vec()
}

fn refused(der: &[u8], reason: &str) {
    let error = csr(der).unwrap_err();
    assert!(error.to_string().contains(reason), "{error}");
}

#[test]
fn a_request_leads_to_an_svid_for_its_key() {
    let authority = root("one.test");
    let (key, request) = key_and_csr(&id(WORKLOAD)).unwrap();
    let wish = csr(&request).unwrap();
    assert_eq!(wish.id.to_string(), WORKLOAD);
    let chain = authority
        .issue(&wish.id, &wish.spki_der, HOUR, now())
        .unwrap();
    let svid = Svid::from_der(chain, key).unwrap();
    assert_eq!(svid.leaf().spki_der, wish.spki_der);
    assert_eq!(
        svid.leaf().not_before,
        now() - std::time::Duration::from_secs(10)
    );
    assert_eq!(svid.leaf().not_after, now() + HOUR);
}

#[test]
fn an_svid_never_outlives_its_authority() {
    let authority = root("one.test");
    let svid = new_svid(&authority, &id(WORKLOAD), 1000 * HOUR, now()).unwrap();
    assert_eq!(svid.leaf().not_after, authority.not_after());
}

#[test]
fn the_same_key_gets_a_new_serial_each_time() {
    let authority = root("one.test");
    let (_, request) = key_and_csr(&id(WORKLOAD)).unwrap();
    let spki = csr(&request).unwrap().spki_der;
    let serial = || {
        let chain = authority.issue(&id(WORKLOAD), &spki, HOUR, now()).unwrap();
        leaf(&chain[0]).unwrap().serial
    };
    assert_ne!(serial(), serial());
}

#[test]
fn an_authority_issues_in_its_own_domain_and_only_to_workloads() {
    let authority = root("one.test");
    let (_, request) = key_and_csr(&id(WORKLOAD)).unwrap();
    let spki = csr(&request).unwrap().spki_der;
    let issue = |name: &str| authority.issue(&id(name), &spki, HOUR, now());
    assert!(matches!(issue("spiffe://two.test/a"), Err(Error::Issue(_))));
    assert!(matches!(
        issue("spiffe://one.test"),
        Err(Error::MissingPath { .. })
    ));
    assert!(
        authority
            .issue(&id(WORKLOAD), b"not a key", HOUR, now())
            .is_err()
    );
}

#[test]
fn an_issuer_below_the_root_cannot_delegate() {
    let issuer = root("one.test").intermediate(now(), HOUR).unwrap();
    assert!(matches!(
        issuer.intermediate(now(), HOUR).err(),
        Some(Error::Issue(_))
    ));
}

#[test]
fn refuses_requests_that_ask_for_anything_else() {
    let key = KeyPair::generate().unwrap();
    assert!(csr(&request(|_| {}, &key)).is_ok());
    let more =
        |params: &mut CertificateParams| params.subject_alt_names.push(uri("spiffe://one.test/b"));
    refused(&request(more, &key), "exactly one uri name");
    let dns = |params: &mut CertificateParams| {
        params
            .subject_alt_names
            .push(SanType::DnsName("db.test".try_into().unwrap()));
    };
    refused(&request(dns, &key), "exactly one uri name");
    refused(
        &request(|params| params.subject_alt_names.clear(), &key),
        "exactly one uri name",
    );
    let subject = |params: &mut CertificateParams| {
        params
            .distinguished_name
            .push(DnType::CommonName, "someone");
    };
    refused(&request(subject, &key), "subject is not empty");
    let usage =
        |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    refused(&request(usage, &key), "more than a name");
    let domain = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![uri("spiffe://one.test")];
    };
    refused(&request(domain, &key), "no path");
}

#[test]
fn refuses_requests_with_a_second_attribute() {
    let key = KeyPair::generate().unwrap();
    let with = |attribute: Attribute| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(WORKLOAD)];
        let request = params.serialize_request_with_attributes(&key, vec![attribute]);
        request.unwrap().der().to_vec()
    };
    // An extension request of its own (RFC 2985 §5.4.2): basic constraints, cA true.
    let authority = Attribute {
        oid: &[1, 2, 840, 113_549, 1, 9, 14],
        values: [
            &[
                0x31, 0x13, 0x30, 0x11, 0x30, 0x0f, 0x06, 0x03, 0x55, 0x1d, 0x13,
            ][..],
            &[0x01, 0x01, 0xff, 0x04, 0x05, 0x30, 0x03, 0x01, 0x01, 0xff],
        ]
        .concat(),
    };
    refused(&with(authority), "more than a name");
    let password = Attribute {
        oid: &[1, 2, 840, 113_549, 1, 9, 7],
        values: vec![0x31, 0x04, 0x0c, 0x02, b'h', b'i'],
    };
    refused(&with(password), "more than a name");
}

#[test]
fn refuses_requests_with_another_key_or_a_broken_signature() {
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    refused(&request(|_| {}, &other), "p-256");
    let mut der = request(|_| {}, &KeyPair::generate().unwrap());
    let last = der.len() - 1;
    der[last] ^= 1;
    refused(&der, "signature");
    refused(b"noise", "pkcs#10");
    refused(&vec![0x30; 5000], "too large");
}

#[test]
fn an_svid_needs_its_own_key() {
    let authority = root("one.test");
    let (chain, key) = new_svid_der(&authority, &id(WORKLOAD), HOUR, now()).unwrap();
    let (other, _) = key_and_csr(&id(WORKLOAD)).unwrap();
    assert!(matches!(
        Svid::from_der(chain.clone(), other).err(),
        Some(Error::KeyMismatch)
    ));
    let text = pem::encode_private_key(&key);
    assert!(Svid::from_pem(&pem::encode_certificates(&chain), &text).is_ok());
    assert!(matches!(
        Svid::from_pem("", &text).err(),
        Some(Error::Pem(_))
    ));
}
