use std::time::Duration;

use base64::Engine as _;
use identity::issue::{Authority, new_svid};
use identity::{BundleDocument, Error, MAX_CHAIN, TrustBundles};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;

use crate::support::{HOUR, LooseCa, WORKLOAD, domain, id, now, root, uri};

fn bundle(name: &str, certificates: &[&CertificateDer<'static>]) -> TrustBundles {
    let mut bundles = TrustBundles::new();
    let certificates = certificates.iter().map(|der| (*der).clone()).collect();
    bundles.insert(domain(name), certificates).unwrap();
    bundles
}

fn refused(
    bundles: &TrustBundles,
    chain: &[CertificateDer<'static>],
    expected: fn(&Error) -> bool,
) {
    let error = bundles.verify(chain, now()).unwrap_err();
    assert!(expected(&error), "{error:?}");
}

#[test]
fn accepts_leaf_and_intermediate_under_the_domains_root() {
    let root = root("one.test");
    let bundles = TrustBundles::from_pem(root.trust_domain(), &root.cert_pem()).unwrap();
    let direct = new_svid(&root, &id(WORKLOAD), HOUR, now()).unwrap();
    assert_eq!(direct.chain().len(), 1);
    let issuer = root.intermediate(now(), 12 * HOUR).unwrap();
    let below = new_svid(&issuer, &id(WORKLOAD), HOUR, now()).unwrap();
    assert_eq!(below.chain().len(), 2, "the root is not sent");
    for svid in [&direct, &below] {
        let leaf = bundles.verify(svid.chain(), now()).unwrap();
        assert_eq!(&leaf, svid.leaf());
    }
}

#[test]
fn refuses_a_root_of_the_same_name_from_another_trust_domain() {
    // Both roots carry the same subject; the leaf claims one.test but two.test's key signed it.
    let (one, two) = (LooseCa::new(), LooseCa::new());
    let mut bundles = bundle("one.test", &[&one.der]);
    bundles
        .insert(domain("two.test"), vec![two.der.clone()])
        .unwrap();
    refused(&bundles, &[two.leaf(|_| {})], |error| {
        matches!(error, Error::Untrusted { .. })
    });
    assert!(bundles.verify(&[one.leaf(|_| {})], now()).is_ok());
}

#[test]
fn refuses_a_chain_of_another_domains_bundle() {
    let (one, two) = (root("one.test"), root("two.test"));
    let bundles = TrustBundles::from_pem(two.trust_domain(), &two.cert_pem()).unwrap();
    let svid = new_svid(&one, &id(WORKLOAD), HOUR, now()).unwrap();
    refused(&bundles, svid.chain(), |error| {
        matches!(error, Error::UnknownTrustDomain(_))
    });
}

#[test]
fn refuses_everything_in_a_domain_whose_bundle_is_empty() {
    let ca = LooseCa::new();
    refused(&bundle("one.test", &[]), &[ca.leaf(|_| {})], |error| {
        matches!(error, Error::UnknownTrustDomain(_))
    });
}

#[test]
fn refuses_expired_and_not_yet_valid_leaves() {
    let ca = LooseCa::new();
    let bundles = bundle("one.test", &[&ca.der]);
    let expired = ca.leaf(|params| params.not_after = (now() - HOUR / 2).into());
    refused(&bundles, &[expired], |error| {
        matches!(error, Error::Expired { .. })
    });
    let early = ca.leaf(|params| params.not_before = (now() + HOUR / 2).into());
    refused(&bundles, &[early], |error| {
        matches!(error, Error::NotYetValid { .. })
    });
}

#[test]
fn refuses_a_root_outside_its_validity() {
    let ca = LooseCa::with(|params| params.not_after = (now() - HOUR / 2).into());
    refused(
        &bundle("one.test", &[&ca.der]),
        &[ca.leaf(|_| {})],
        |error| matches!(error, Error::UnknownTrustDomain(_)),
    );
}

#[test]
fn refuses_an_expired_intermediate() {
    let ca = LooseCa::new();
    let below = ca.below(|params| params.not_after = (now() - HOUR / 2).into());
    let chain = [below.leaf(|_| {}), below.der.clone()];
    refused(&bundle("one.test", &[&ca.der]), &chain, |error| {
        matches!(error, Error::Untrusted { .. })
    });
}

#[test]
fn refuses_an_intermediate_presented_as_leaf() {
    let root = root("one.test");
    let issuer = root.intermediate(now(), 12 * HOUR).unwrap();
    let bundles = TrustBundles::from_pem(root.trust_domain(), &root.cert_pem()).unwrap();
    refused(&bundles, &issuer.cert_chain()[..1], |error| {
        matches!(error, Error::MissingPath { .. })
    });
    // The same with a workload's path, as an attacker inside the CA would write it.
    let ca = LooseCa::new();
    let below = ca.below(|params| {
        params.subject_alt_names = vec![uri(WORKLOAD)];
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
    });
    refused(
        &bundle("one.test", &[&ca.der]),
        std::slice::from_ref(&below.der),
        |error| matches!(error, Error::CaLeaf),
    );
}

#[test]
fn refuses_a_leaf_as_issuer() {
    let ca = LooseCa::new();
    let not_a_ca = ca.below(|params| params.is_ca = IsCa::ExplicitNoCa);
    let chain = [not_a_ca.leaf(|_| {}), not_a_ca.der.clone()];
    refused(&bundle("one.test", &[&ca.der]), &chain, |error| {
        matches!(error, Error::SigningCertificate("is not a ca"))
    });
}

#[test]
fn refuses_a_signing_certificate_with_a_workloads_id() {
    let ca = LooseCa::new();
    let below = ca.below(|params| params.subject_alt_names = vec![uri(WORKLOAD)]);
    let chain = [below.leaf(|_| {}), below.der.clone()];
    refused(&bundle("one.test", &[&ca.der]), &chain, |error| {
        matches!(
            error,
            Error::SigningCertificate("has a spiffe id with a path")
        )
    });
}

#[test]
fn refuses_a_signing_certificate_without_key_cert_sign() {
    let ca = LooseCa::new();
    let below = ca.below(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let chain = [below.leaf(|_| {}), below.der.clone()];
    refused(&bundle("one.test", &[&ca.der]), &chain, |error| {
        matches!(error, Error::SigningCertificate("lacks keyCertSign"))
    });
    let leaf = ca.leaf(|_| {});
    assert!(
        TrustBundles::new()
            .insert(domain("one.test"), vec![leaf])
            .is_err()
    );
}

#[test]
fn refuses_an_intermediate_limited_to_one_direction() {
    let ca = LooseCa::new();
    let below =
        ca.below(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let chain = [below.leaf(|_| {}), below.der.clone()];
    refused(&bundle("one.test", &[&ca.der]), &chain, |error| {
        matches!(error, Error::Untrusted { .. })
    });
}

#[test]
fn refuses_a_path_longer_than_its_ca_allows() {
    let ca = LooseCa::new();
    let first = ca.below(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let second = first.below(|params| {
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "below below");
    });
    let chain = [second.leaf(|_| {}), second.der.clone(), first.der.clone()];
    refused(&bundle("one.test", &[&ca.der]), &chain, |error| {
        matches!(error, Error::Untrusted { .. })
    });
}

#[test]
fn refuses_a_ca_with_uri_name_constraints() {
    // webpki does not know URI constraints and fails closed: such an authority breaks every handshake, openly.
    let ca = LooseCa::with(|params| {
        // NameConstraints { permittedSubtrees [0] { GeneralSubtree { [6] "one.test" } } }
        let mut value = vec![0x30, 14, 0xa0, 12, 0x30, 10, 0x86, 8];
        value.extend_from_slice(b"one.test");
        params
            .custom_extensions
            .push(crate::support::extension(30, true, &value));
    });
    refused(
        &bundle("one.test", &[&ca.der]),
        &[ca.leaf(|_| {})],
        |error| matches!(error, Error::Untrusted { .. }),
    );
}

#[test]
fn refuses_a_chain_beyond_the_cap_before_reading_it() {
    let ca = LooseCa::new();
    let mut chain = vec![ca.leaf(|_| {})];
    chain.resize(MAX_CHAIN + 1, CertificateDer::from(vec![0]));
    refused(&bundle("one.test", &[&ca.der]), &chain, |error| {
        matches!(error, Error::ChainTooLong { .. })
    });
    refused(&bundle("one.test", &[&ca.der]), &[], |error| {
        matches!(error, Error::NoCertificate)
    });
}

#[test]
fn a_bad_certificate_drops_the_domains_old_bundle_too() {
    let ca = LooseCa::new();
    let mut bundles = bundle("one.test", &[&ca.der]);
    assert!(
        bundles
            .insert(domain("one.test"), vec![ca.leaf(|_| {})])
            .is_err()
    );
    refused(&bundles, &[ca.leaf(|_| {})], |error| {
        matches!(error, Error::UnknownTrustDomain(_))
    });
}

#[test]
fn reads_back_an_authority_from_pem() {
    let root = root("one.test");
    let issuer = root.intermediate(now(), 12 * HOUR).unwrap();
    let again = Authority::from_pem(&issuer.cert_pem(), &issuer.key_pem().unwrap()).unwrap();
    let bundles = TrustBundles::from_pem(root.trust_domain(), &root.cert_pem()).unwrap();
    let svid = new_svid(&again, &id(WORKLOAD), HOUR, now()).unwrap();
    assert!(bundles.verify(svid.chain(), now()).is_ok());
    let wrong = Authority::from_pem(&issuer.cert_pem(), &root.key_pem().unwrap());
    assert!(matches!(wrong.err(), Some(Error::KeyMismatch)));
}

/// Verified once, and so remembered.
fn proven(ca: &LooseCa, chain: &[CertificateDer<'static>]) -> TrustBundles {
    let bundles = bundle("one.test", &[&ca.der]);
    for _ in 0..2 {
        bundles.verify(chain, now()).unwrap();
    }
    bundles
}

#[test]
fn a_chain_that_passed_is_refused_once_its_root_is_withdrawn() {
    let (ca, next) = (LooseCa::new(), LooseCa::new());
    let chain = [ca.leaf(|_| {})];
    let untrusted = |error: &Error| matches!(error, Error::Untrusted { .. });

    let mut replaced = proven(&ca, &chain);
    replaced
        .insert(domain("one.test"), vec![next.der.clone()])
        .unwrap();
    refused(&replaced, &chain, untrusted);

    let mut updated = proven(&ca, &chain);
    let document = BundleDocument::from_text(&pem_of(&next.der)).unwrap();
    assert!(updated.update(&domain("one.test"), &document).unwrap());
    refused(&updated, &chain, untrusted);

    let mut copied = proven(&ca, &chain).clone();
    copied.insert(domain("one.test"), Vec::new()).unwrap();
    refused(&copied, &chain, |error| {
        matches!(error, Error::UnknownTrustDomain(_))
    });
}

fn pem_of(der: &CertificateDer<'_>) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[test]
fn a_chain_that_passed_is_refused_outside_the_validity_of_each_certificate() {
    let early = now() + HOUR / 2;
    for which in ["leaf", "intermediate", "root"] {
        let ends = |this: &str| {
            if this == which {
                early
            } else {
                now() + 2 * HOUR
            }
        };
        let ca = LooseCa::with(|params| params.not_after = ends("root").into());
        let below = ca.below(|params| params.not_after = ends("intermediate").into());
        let leaf = below.leaf(|params| params.not_after = ends("leaf").into());
        let chain = [leaf, below.der.clone()];
        let bundles = proven(&ca, &chain);
        assert!(bundles.verify(&chain, early).is_ok(), "{which}");
        let late = early + Duration::from_secs(1);
        assert!(bundles.verify(&chain, late).is_err(), "{which}");
        // And before any of them began.
        assert!(bundles.verify(&chain, now() - 48 * HOUR).is_err());
        assert!(bundles.verify(&chain, now()).is_ok());
    }
}

#[test]
fn a_chain_that_passed_vouches_for_no_other() {
    let ca = LooseCa::new();
    let below = ca.below(|_| {});
    let leaf = below.leaf(|_| {});
    let bundles = proven(&ca, &[leaf.clone(), below.der.clone()]);

    for at in [leaf.len() - 1, leaf.len() / 2] {
        let mut other = leaf.to_vec();
        other[at] ^= 1;
        let chain = [other.into(), below.der.clone()];
        assert!(bundles.verify(&chain, now()).is_err(), "byte {at}");
    }
    assert!(bundles.verify(std::slice::from_ref(&leaf), now()).is_err());
    // The same bytes, divided otherwise.
    let joined = [leaf.as_ref(), below.der.as_ref()].concat();
    assert!(bundles.verify(&[joined.into()], now()).is_err());
    // What is proved for one domain's bundle says nothing in another's.
    let others = bundle("two.test", &[&ca.der]);
    assert!(others.verify(&[leaf, below.der], now()).is_err());
}
