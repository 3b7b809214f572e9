//! One verdict list, two verifiers. What go-spiffe refuses, we refuse; what we refuse beyond that is named.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{TrustBundles, TrustDomain, pem};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;

use crate::peer::{HOUR, ask};

const WORKLOAD: &str = "spiffe://one.test/enclave/demo";

struct Ca {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn params(now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now - HOUR).into();
    params.not_after = (now + HOUR).into();
    params
}

fn ca_params(now: SystemTime) -> CertificateParams {
    let mut params = params(now);
    params
        .distinguished_name
        .push(DnType::CommonName, "the root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

impl Ca {
    fn root(now: SystemTime) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(now);
        let der = params.self_signed(&key).unwrap().into();
        Self {
            der,
            issuer: Issuer::new(params, key),
        }
    }

    fn below(&self, now: SystemTime, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params(now);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "below");
        change(&mut params);
        let der = params.signed_by(&key, &self.issuer).unwrap().into();
        Self {
            der,
            issuer: Issuer::new(params, key),
        }
    }

    fn leaf(
        &self,
        now: SystemTime,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut params = params(now);
        params.subject_alt_names = vec![uri(WORKLOAD)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        params.signed_by(&key, &self.issuer).unwrap().into()
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Verdict {
    /// Both accept.
    Good,
    /// Both refuse.
    Bad,
    /// We refuse, go-spiffe accepts: the standard's rule is ours to hold.
    Stricter,
}

#[tokio::test]
async fn what_go_spiffe_refuses_is_refused_here_and_more() {
    use Verdict::{Bad, Good, Stricter};
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let root = Ca::root(now);
    let other = Ca::root(now);
    let below = root.below(now, |_| {});
    let leaf = |change: fn(&mut CertificateParams)| {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        vec![root.leaf(now, change)]
    };
    let under = |ca: &Ca| vec![ca.leaf(now, |_| {}), ca.der.clone()];
    let cases: Vec<(&str, Verdict, Vec<CertificateDer<'static>>)> = vec![
        ("plain", Good, leaf(|_| {})),
        ("below an intermediate", Good, under(&below)),
        (
            "a DNS name beside the ID",
            Good,
            leaf(|p| {
                p.subject_alt_names
                    .push(SanType::DnsName("db.test".try_into().unwrap()))
            }),
        ),
        (
            "two spiffe IDs",
            Bad,
            leaf(|p| p.subject_alt_names.push(uri("spiffe://one.test/b"))),
        ),
        (
            "a second uri of another scheme",
            Bad,
            leaf(|p| p.subject_alt_names.push(uri("https://one.test/"))),
        ),
        (
            "no uri",
            Bad,
            leaf(|p| p.subject_alt_names = vec![SanType::DnsName("db.test".try_into().unwrap())]),
        ),
        (
            "no path",
            Stricter,
            leaf(|p| p.subject_alt_names = vec![uri("spiffe://one.test")]),
        ),
        (
            "cA true",
            Bad,
            leaf(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        (
            "keyCertSign",
            Bad,
            leaf(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        ),
        (
            "cRLSign",
            Bad,
            leaf(|p| p.key_usages.push(KeyUsagePurpose::CrlSign)),
        ),
        (
            "no digitalSignature",
            Stricter,
            leaf(|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        ),
        ("no key usage", Stricter, leaf(|p| p.key_usages.clear())),
        (
            "another domain's ID",
            Bad,
            leaf(|p| p.subject_alt_names = vec![uri("spiffe://two.test/a")]),
        ),
        ("a root of the same name", Bad, under(&other)[..1].to_vec()),
        (
            "expired",
            Bad,
            leaf(|p| {
                p.not_before = (UNIX_EPOCH + Duration::from_secs(1_799_990_000)).into();
                p.not_after = (UNIX_EPOCH + Duration::from_secs(1_799_999_000)).into();
            }),
        ),
        (
            "not yet valid",
            Bad,
            leaf(|p| p.not_before = (UNIX_EPOCH + Duration::from_secs(1_800_001_000)).into()),
        ),
        (
            "a leaf as issuer",
            Bad,
            under(&root.below(now, |p| p.is_ca = IsCa::ExplicitNoCa)),
        ),
        ("a CA as leaf", Bad, vec![below.der.clone()]),
        (
            "an ID that is none",
            Bad,
            leaf(|p| p.subject_alt_names = vec![uri("spiffe://one.test//a")]),
        ),
        (
            "an upper-case trust domain",
            Bad,
            leaf(|p| p.subject_alt_names = vec![uri("spiffe://One.test/a")]),
        ),
        (
            "clientAuth alone",
            Stricter,
            leaf(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ),
        (
            "serverAuth alone",
            Stricter,
            leaf(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        (
            "no basic constraints",
            Stricter,
            leaf(|p| p.is_ca = IsCa::NoCa),
        ),
        (
            "key usage not critical",
            Stricter,
            leaf(|p| {
                p.key_usages.clear();
                p.custom_extensions.push(CustomExtension::from_oid_content(
                    &[2, 5, 29, 15],
                    vec![3, 2, 7, 0x80],
                ));
            }),
        ),
        (
            "a CA with a workload's ID",
            Stricter,
            under(&root.below(now, |p| p.subject_alt_names = vec![uri(WORKLOAD)])),
        ),
        // webpki does not know these constraints and fails closed; Go does, and finds the ID permitted.
        (
            "a CA with URI name constraints",
            Stricter,
            under(&root.below(now, |p| {
                // SEQUENCE { [0] { SEQUENCE { [6] "one.test" } } }
                let mut value = vec![0x30, 0x0e, 0xa0, 0x0c, 0x30, 0x0a, 0x86, 0x08];
                value.extend_from_slice(b"one.test");
                let mut constraints = CustomExtension::from_oid_content(&[2, 5, 29, 30], value);
                constraints.set_criticality(true);
                p.custom_extensions.push(constraints);
            })),
        ),
    ];

    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle.json");
    std::fs::write(
        &bundle,
        crate::bundles::jwks(std::slice::from_ref(&root.der), 1),
    )
    .unwrap();
    let mut args = vec![
        "verify".to_owned(),
        bundle.display().to_string(),
        "one.test".to_owned(),
        "1800000000".to_owned(),
    ];
    for (number, (_, _, chain)) in cases.iter().enumerate() {
        let file = dir.path().join(format!("{number}.pem"));
        std::fs::write(&file, pem::encode_certificates(chain)).unwrap();
        args.push(file.display().to_string());
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let Some(said) = ask(&args).await else {
        return;
    };
    assert_eq!(said.len(), cases.len(), "{said:?}");
    let domain = TrustDomain::new("one.test").unwrap();
    let mut bundles = TrustBundles::new();
    bundles.insert(domain, vec![root.der.clone()]).unwrap();
    let mut wrong = Vec::new();
    for ((what, expected, chain), theirs) in cases.iter().zip(&said) {
        let ours = bundles.verify(chain, now);
        let found = match (ours.is_ok(), theirs["error"].is_null()) {
            (true, true) => Some(Good),
            (false, false) => Some(Bad),
            (false, true) => Some(Stricter),
            (true, false) => None,
        };
        if found != Some(*expected) {
            wrong.push(format!(
                "{what}: {found:?}, not {expected:?}: {ours:?}, {theirs}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
