//! The root that a chain of evidence must end in. A required value: there is no verifier without one.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::certificate::{Level, check_certificate};
use crate::digest::Sha256Digest;

/// AWS Nitro Enclaves Root-G1, valid 2019-10-28 to 2049-10-28, as AWS publishes it.
const AWS_NITRO_ROOT_G1: &[u8] = include_bytes!("aws_nitro_root_g1.pem");

/// One root certificate: P-384, a CA that may sign certificates.
#[derive(Clone)]
pub struct TrustAnchor {
    der: CertificateDer<'static>,
    anchor: rustls_pki_types::TrustAnchor<'static>,
    fingerprint: Sha256Digest,
}

/// A certificate that cannot be a trust anchor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnchorError {
    /// Not PEM, or not exactly one certificate.
    #[error("expected a PEM file with exactly one certificate")]
    Pem,
    /// Not a root of the form that this chain's certificates have.
    #[error("not a root certificate for evidence: {0}")]
    Certificate(&'static str),
}

impl TrustAnchor {
    /// The root of every AWS Nitro enclave.
    #[expect(
        clippy::expect_used,
        reason = "a constant of this crate; a test reads it"
    )]
    pub fn aws_nitro() -> Self {
        Self::from_pem(AWS_NITRO_ROOT_G1).expect("the embedded root is a root")
    }

    /// Reads one PEM certificate (RFC 7468).
    ///
    /// # Errors
    /// See [`AnchorError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, AnchorError> {
        let mut certificates = CertificateDer::pem_slice_iter(pem);
        match (certificates.next(), certificates.next()) {
            (Some(Ok(certificate)), None) => Self::from_der(&certificate),
            _ => Err(AnchorError::Pem),
        }
    }

    /// Reads one DER certificate.
    ///
    /// # Errors
    /// [`AnchorError::Certificate`] unless it is a self-issued P-384 CA certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, AnchorError> {
        check_certificate(der, Level::Root).map_err(AnchorError::Certificate)?;
        let der = CertificateDer::from(der.to_vec());
        let anchor = match webpki::anchor_from_trusted_cert(&der) {
            Ok(anchor) => anchor.to_owned(),
            Err(_) => return Err(AnchorError::Certificate("not a certificate")),
        };
        let fingerprint = Sha256Digest::of(&der);
        Ok(Self {
            der,
            anchor,
            fingerprint,
        })
    }

    /// SHA-256 of the DER certificate.
    pub fn fingerprint(&self) -> Sha256Digest {
        self.fingerprint
    }

    /// True for [`TrustAnchor::aws_nitro`]; anything else is a root of the deployer's own choosing.
    pub fn is_aws_nitro(&self) -> bool {
        self.fingerprint == Self::aws_nitro().fingerprint
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn anchor(&self) -> &rustls_pki_types::TrustAnchor<'static> {
        &self.anchor
    }
}

impl std::fmt::Debug for TrustAnchor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrustAnchor({})", self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_root_is_the_one_aws_publishes() {
        let anchor = TrustAnchor::aws_nitro();
        assert_eq!(
            anchor.fingerprint().to_string(),
            "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
        );
        assert!(anchor.is_aws_nitro());
    }

    #[test]
    fn a_file_without_exactly_one_certificate_is_refused() {
        let two = [AWS_NITRO_ROOT_G1, AWS_NITRO_ROOT_G1].concat();
        for pem in [&b""[..], b"not pem", &two] {
            assert_eq!(TrustAnchor::from_pem(pem).unwrap_err(), AnchorError::Pem);
        }
    }

    #[test]
    fn a_certificate_that_cannot_sign_others_is_no_anchor() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let leaf = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap();
        assert!(matches!(
            TrustAnchor::from_der(leaf.der()),
            Err(AnchorError::Certificate(_))
        ));
        assert!(matches!(
            TrustAnchor::from_der(b"\x30\x00"),
            Err(AnchorError::Certificate(_))
        ));
    }

    #[test]
    fn a_root_of_another_curve_is_no_anchor() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap();
        assert_eq!(
            TrustAnchor::from_der(root.der()).unwrap_err(),
            AnchorError::Certificate("key is not on P-384")
        );
    }
}
