//! Making certificates: an authority for one trust domain, the requests it answers, and SVIDs from it.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use spiffe::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

use crate::leaf::{leaf, parse, signing_certificate};
use crate::{Error, Svid, pem};

mod csr;
mod key;

pub use csr::{Csr, csr};
use key::P256Key;

/// Certificates start this much in the past, so that a peer whose clock is a little behind accepts a new one.
const BACKDATE: Duration = Duration::from_secs(10);

/// A certificate authority of one trust domain. It signs with ECDSA P-256 and SHA-256.
pub struct Authority {
    trust_domain: TrustDomain,
    /// Own certificate first, then those above it.
    chain: Vec<CertificateDer<'static>>,
    key: P256Key,
    not_after: SystemTime,
    /// Whether another authority may stand below this one.
    delegates: bool,
}

impl Authority {
    /// A self-signed root.
    ///
    /// # Errors
    /// Randomness or encoding failed.
    pub fn generate_root(
        trust_domain: &TrustDomain,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Self, Error> {
        let key = P256Key::generate()?;
        let params = authority_params(trust_domain, "SPIFFE root", 1, now, later(now, ttl)?)?;
        let certificate = params.self_signed(&key)?;
        Self::new(vec![certificate.into()], key)
    }

    /// An authority below this one, which may sign leaves only.
    ///
    /// # Errors
    /// This authority may not delegate, or randomness or encoding failed.
    pub fn intermediate(&self, now: SystemTime, ttl: Duration) -> Result<Self, Error> {
        if !self.delegates {
            return Err(Error::Issue("this authority may sign leaves only"));
        }
        let key = P256Key::generate()?;
        let not_after = later(now, ttl)?.min(self.not_after);
        let mut params = authority_params(&self.trust_domain, "SPIFFE issuer", 0, now, not_after)?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer()?)?;
        let mut chain = vec![certificate.into()];
        chain.extend(self.chain.iter().cloned());
        Self::new(chain, key)
    }

    /// Reads back what [`Authority::cert_pem`] and [`Authority::key_pem`] gave, or an authority made elsewhere:
    /// own certificate first, with the trust domain as its SPIFFE ID.
    ///
    /// # Errors
    /// Not a signing certificate, no SPIFFE ID of a trust domain, or a key that is not its P-256 key.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, Error> {
        let key = P256Key::from_pkcs8(&pem::private_key(key)?)?;
        Self::new(pem::certificates(chain)?, key)
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: P256Key) -> Result<Self, Error> {
        let own = chain.first().ok_or(Error::NoCertificate)?;
        let not_after = signing_certificate(own)?.not_after();
        let certificate = parse(own)?;
        if certificate.tbs_certificate.subject_pki.raw != key.subject_public_key_info() {
            return Err(Error::KeyMismatch);
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_duplicate| Error::Encoding("subject alternative name"))?;
        let trust_domain = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .find_map(|name| match name {
                x509_parser::extensions::GeneralName::URI(uri) => SpiffeId::new(uri).ok(),
                _ => None,
            })
            .ok_or(Error::Issue(
                "the authority's certificate names no trust domain",
            ))?
            .trust_domain()
            .clone();
        let delegates = certificate
            .basic_constraints()
            .ok()
            .flatten()
            .is_some_and(|extension| extension.value.path_len_constraint != Some(0));
        Ok(Self {
            trust_domain,
            chain,
            key,
            not_after,
            delegates,
        })
    }

    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Own certificate first, then those above it.
    #[must_use]
    pub fn cert_chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Own certificate first, then those above it. For a root this is its trust bundle.
    #[must_use]
    pub fn cert_pem(&self) -> String {
        pem::encode_certificates(&self.chain)
    }

    /// The PKCS#8 private key.
    ///
    /// # Errors
    /// The key could not be encoded.
    pub fn key_pem(&self) -> Result<Zeroizing<String>, Error> {
        Ok(pem::encode_private_key(&self.key.to_pkcs8()?))
    }

    /// Signs an X.509-SVID for the public key `spki` (DER SubjectPublicKeyInfo): empty subject, one critical URI
    /// name, and a life of `ttl` that ends no later than this authority's. Returns the chain as a TLS peer sends
    /// it: leaf first, root left out.
    ///
    /// Whether the asker holds the private key is the caller's to check: see [`csr`].
    ///
    /// # Errors
    /// An ID of another trust domain or without a path, a public key that cannot be used, or an encoding failure.
    pub fn issue(
        &self,
        id: &SpiffeId,
        spki: &[u8],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, Error> {
        if id.trust_domain() != &self.trust_domain {
            return Err(Error::Issue("the id belongs to another trust domain"));
        }
        if id.path().is_empty() {
            return Err(Error::MissingPath { id: id.clone() });
        }
        let public_key = SubjectPublicKeyInfo::from_der(spki)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(id)?];
        params.serial_number = Some(random_serial()?);
        params.not_before = earlier(now).into();
        params.not_after = later(now, ttl)?.min(self.not_after).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&public_key, &self.issuer()?)?;
        // What we hand out has to pass what we check.
        leaf(certificate.der())?;
        let mut chain = vec![certificate.into()];
        for above in &self.chain {
            if !self_issued(above)? {
                chain.push(above.clone());
            }
        }
        Ok(chain)
    }

    fn issuer(&self) -> Result<Issuer<'_, &P256Key>, Error> {
        let own = self.chain.first().ok_or(Error::NoCertificate)?;
        Ok(Issuer::from_ca_cert_der(own, &self.key)?)
    }
}

/// A fresh P-256 key and a PKCS#10 request for `id`: `(PKCS#8 key, DER request)`.
///
/// # Errors
/// Randomness or encoding failed.
pub fn key_and_csr(id: &SpiffeId) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), Error> {
    key_and_request(vec![uri(id)?])
}

/// As [`key_and_csr`], for an issuer that decides the name and looks at the key only.
///
/// # Errors
/// Randomness or encoding failed.
pub fn key_and_nameless_csr() -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), Error> {
    key_and_request(Vec::new())
}

fn key_and_request(names: Vec<SanType>) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), Error> {
    let key = P256Key::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    let request = params.serialize_request(&key)?;
    Ok((key.to_pkcs8()?, request.der().to_vec()))
}

/// A fresh key and an SVID for it, in one step.
///
/// # Errors
/// As [`Authority::issue`].
pub fn new_svid(
    authority: &Authority,
    id: &SpiffeId,
    ttl: Duration,
    now: SystemTime,
) -> Result<Svid, Error> {
    let (chain, key) = new_svid_der(authority, id, ttl, now)?;
    Svid::from_der(chain, key)
}

/// As [`new_svid`], for whoever passes the key on: `(chain, PKCS#8 key)`.
///
/// # Errors
/// As [`Authority::issue`].
pub fn new_svid_der(
    authority: &Authority,
    id: &SpiffeId,
    ttl: Duration,
    now: SystemTime,
) -> Result<(Vec<CertificateDer<'static>>, Zeroizing<Vec<u8>>), Error> {
    let key = P256Key::generate()?;
    let chain = authority.issue(id, &key.subject_public_key_info(), ttl, now)?;
    Ok((chain, key.to_pkcs8()?))
}

fn authority_params(
    trust_domain: &TrustDomain,
    role: &str,
    path_len: u8,
    now: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, Error> {
    let serial = random_serial()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, trust_domain.as_str());
    // Distinct per authority: path building then never takes a rotated one for its predecessor.
    let name = format!(
        "{role} {}",
        hex::encode(serial.as_ref()).get(..8).unwrap_or_default()
    );
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(trust_domain.id_string().try_into()?)];
    params.serial_number = Some(serial);
    params.not_before = earlier(now).into();
    params.not_after = not_after.into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn uri(id: &SpiffeId) -> Result<SanType, Error> {
    Ok(SanType::URI(id.to_string().try_into()?))
}

/// 16 random octets, positive and never zero (RFC 5280 §4.1.2.2).
fn random_serial() -> Result<SerialNumber, Error> {
    let mut octets = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_unspecified| Error::Issue("no randomness"))?;
    octets[0] = octets[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&octets))
}

fn later(now: SystemTime, ttl: Duration) -> Result<SystemTime, Error> {
    now.checked_add(ttl)
        .ok_or(Error::Issue("lifetime is out of range"))
}

fn earlier(now: SystemTime) -> SystemTime {
    now.checked_sub(BACKDATE).unwrap_or(now)
}

fn self_issued(der: &CertificateDer<'_>) -> Result<bool, Error> {
    let certificate = parse(der)?;
    Ok(certificate.subject().as_raw() == certificate.issuer().as_raw())
}
