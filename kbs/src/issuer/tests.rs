use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use attestation::Pcr;
use identity::TrustDomain;
use identity::issue::{Authority, csr, key_and_csr, new_svid_der};
use rcgen::{CertificateParams, DistinguishedName, DnType, IsCa, KeyUsagePurpose, SanType};

use super::*;

const TTL: Duration = Duration::from_secs(600);

fn images(byte: u8) -> ReferenceValues {
    ReferenceValues::try_new(vec![BTreeMap::from([(0, Pcr::from_bytes([byte; 48]))])]).unwrap()
}

fn measured(byte: u8) -> Pcrs {
    Pcrs::from([
        (0, Pcr::from_bytes([byte; 48])),
        (1, Pcr::from_bytes([9; 48])),
    ])
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::new(format!("spiffe://example.org/{path}")).unwrap()
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn root() -> Authority {
    let domain = TrustDomain::new("example.org").unwrap();
    Authority::generate_root(&domain, now(), Duration::from_secs(86_400)).unwrap()
}

fn issuer(map: Vec<(SpiffeId, ReferenceValues)>) -> Issuer {
    Issuer::new(Box::new(Builtin::new(root())), TTL, map)
}

#[test]
fn the_measurement_alone_says_who_it_is() {
    let issuer = issuer(vec![
        (id("a"), images(1)),
        (id("b"), images(2)),
        (id("b"), images(3)),
    ]);
    assert_eq!(issuer.identity(&measured(1), UNIX_EPOCH).unwrap(), &id("a"));
    assert_eq!(issuer.identity(&measured(2), UNIX_EPOCH).unwrap(), &id("b"));
    assert_eq!(issuer.identity(&measured(3), UNIX_EPOCH).unwrap(), &id("b"));
    let denied = issuer.identity(&measured(4), UNIX_EPOCH).unwrap_err();
    assert!(matches!(denied, IssuerError::Unmapped(_)) && denied.is_denial());
    assert!(matches!(
        issuer.identity(&Pcrs::new(), UNIX_EPOCH),
        Err(IssuerError::Unmapped(_))
    ));
}

#[test]
fn a_measurement_with_two_names_gets_none() {
    let issuer = issuer(vec![(id("a"), images(1)), (id("b"), images(1))]);
    let denied = issuer.identity(&measured(1), UNIX_EPOCH).unwrap_err();
    assert!(matches!(denied, IssuerError::Ambiguous(..)) && denied.is_denial());
}

#[test]
fn what_is_issued_is_for_this_key_and_this_identity() {
    let issuer = issuer(vec![(id("a"), images(1))]);
    let (_, der) = key_and_csr(&id("other")).unwrap();
    let request = csr(&der).unwrap();
    let (_, issued) = issuer.issue(&id("a"), &request, &der, now()).unwrap();
    assert_eq!((issued.id, issued.spki_der), (id("a"), request.spki_der));
    assert!(issued.not_after <= now() + TTL);
}

#[test]
fn a_builtin_authority_is_ready_until_its_certificate_ends() {
    let issuer = issuer(vec![(id("a"), images(1))]);
    assert!(issuer.ready(now()).is_ok());
    assert!(issuer.ready(now() + Duration::from_secs(86_400)).is_err());
}

/// Signs whatever it likes for the key it was given.
struct Wilful<F>(F);

impl<F> IssuerBackend for Wilful<F>
where
    F: Fn(&Order<'_>) -> Vec<CertificateDer<'static>> + Send + Sync,
{
    fn sign(&self, order: &Order<'_>) -> Result<Vec<CertificateDer<'static>>, IssuerError> {
        Ok((self.0)(order))
    }

    fn ready(&self, _now: SystemTime) -> Result<(), &'static str> {
        Ok(())
    }
}

/// A leaf for the ordered key, spoilt by `spoil`.
fn leaf_with(
    order: &Order<'_>,
    spoil: impl FnOnce(&mut CertificateParams),
) -> Vec<CertificateDer<'static>> {
    let ca = root();
    let key = rcgen::KeyPair::from_pem(&ca.key_pem().unwrap()).unwrap();
    let ca = rcgen::Issuer::from_ca_cert_der(&ca.cert_chain()[0], key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![SanType::URI(order.id.to_string().try_into().unwrap())];
    params.not_before = order.now.into();
    params.not_after = (order.now + order.ttl).into();
    spoil(&mut params);
    let key = rcgen::SubjectPublicKeyInfo::from_der(order.spki).unwrap();
    vec![params.signed_by(&key, &ca).unwrap().into()]
}

fn issued(
    sign: impl Fn(&Order<'_>) -> Vec<CertificateDer<'static>> + Send + Sync + 'static,
) -> Result<Leaf, IssuerError> {
    let issuer = Issuer::new(Box::new(Wilful(sign)), TTL, Vec::new());
    let (_, der) = key_and_csr(&id("a")).unwrap();
    let request = csr(&der).unwrap();
    let issued = issuer.issue(&id("a"), &request, &der, now());
    issued.map(|(_, leaf)| leaf)
}

fn refused(
    expected: &str,
    sign: impl Fn(&Order<'_>) -> Vec<CertificateDer<'static>> + Send + Sync + 'static,
) {
    let error = issued(sign).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
    assert!(!error.is_denial(), "the signer is wrong, not the asker");
}

#[test]
fn a_signer_that_certifies_something_else_is_not_believed() {
    issued(|order| leaf_with(order, |_| {})).unwrap();
    refused("nothing", |_| Vec::new());
    refused("more certificates", |order| {
        vec![leaf_with(order, |_| {}).remove(0); MAX_CHAIN + 1]
    });
    refused("another identity", |order| {
        leaf_with(order, |params| {
            params.subject_alt_names =
                vec![SanType::URI("spiffe://example.org/b".try_into().unwrap())];
        })
    });
    refused("another key", |order| {
        new_svid_der(&root(), order.id, order.ttl, order.now)
            .unwrap()
            .0
    });
    refused("names beside the identity", |order| {
        leaf_with(order, |params| {
            let dns = SanType::DnsName("db.example.org".try_into().unwrap());
            params.subject_alt_names.push(dns);
        })
    });
    refused("a life longer", |order| {
        leaf_with(order, |params| {
            params.not_after = (order.now + order.ttl + 2 * SKEW).into();
        })
    });
    refused("certificate ended", |order| {
        leaf_with(order, |params| {
            params.not_before = (order.now - 2 * order.ttl).into();
            params.not_after = (order.now - order.ttl).into();
        })
    });
    refused("not valid before", |order| {
        leaf_with(order, |params| {
            params.not_before = (order.now + SKEW).into()
        })
    });
    refused("is a ca", |order| {
        leaf_with(order, |params| {
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        })
    });
    refused("2 uri names", |order| {
        leaf_with(order, |params| {
            params
                .subject_alt_names
                .push(SanType::URI("https://example.org/".try_into().unwrap()));
        })
    });
}

#[test]
fn a_subject_is_the_signers_own_affair() {
    // SPIRE writes C=US, O=SPIRE; nobody authenticates by it.
    let signed = |order: &Order<'_>| {
        leaf_with(order, |params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::OrganizationName, "SPIRE");
        })
    };
    assert_eq!(issued(signed).unwrap().id, id("a"));
}
