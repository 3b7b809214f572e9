use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::issue::Authority;
use identity::{Clock, SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const WORKLOAD: &str = "spiffe://one.test/enclave/demo";

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) fn clock_at(time: SystemTime) -> Clock {
    Clock::from_fn(Arc::new(move || time))
}

pub(crate) fn domain(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::new(text).unwrap()
}

pub(crate) fn root(name: &str) -> Authority {
    Authority::generate_root(&domain(name), now() - HOUR, 24 * HOUR).unwrap()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A raw X.509 extension, to say what the generator would never say.
pub(crate) fn extension(last_arc: u64, critical: bool, value: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, last_arc], value.to_vec());
    extension.set_criticality(critical);
    extension
}

/// A hand-held CA for certificates that [`Authority`] refuses to make.
pub(crate) struct LooseCa {
    pub(crate) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl LooseCa {
    /// The same subject name every time, as a copycat would choose it.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params("the root", BasicConstraints::Unconstrained);
        change(&mut params);
        let der = params.self_signed(&key).unwrap().into();
        Self {
            der,
            issuer: Issuer::new(params, key),
        }
    }

    /// A valid leaf after `change` was applied to its parameters.
    pub(crate) fn leaf(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        self.leaf_with_key(change).0
    }

    pub(crate) fn leaf_with_key(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params();
        change(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap().into(), key)
    }

    /// An intermediate below this CA.
    pub(crate) fn below(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params("below", BasicConstraints::Constrained(0));
        change(&mut params);
        let der = params.signed_by(&key, &self.issuer).unwrap().into();
        Self {
            der,
            issuer: Issuer::new(params, key),
        }
    }
}

fn ca_params(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = (now() - HOUR).into();
    params.not_after = (now() + 24 * HOUR).into();
    params
}

fn leaf_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(WORKLOAD)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.not_before = (now() - HOUR).into();
    params.not_after = (now() + HOUR).into();
    params
}
