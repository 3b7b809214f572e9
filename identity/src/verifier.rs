//! The rustls verifiers. Both directions apply the same rules: SVID, bundle of its own trust domain, then who it is.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use spiffe::{SpiffeId, TrustDomain};

use crate::error::refuse;
use crate::{BundleHandle, Error, Leaf, clock, tls};

/// Whom a configuration talks to. There is no "anyone".
#[derive(Clone, Debug)]
pub enum Accept {
    /// Exactly these IDs.
    Ids(Vec<SpiffeId>),
    /// Every member of these trust domains; the caller authorises on the full ID afterwards.
    TrustDomains(Vec<TrustDomain>),
}

impl Accept {
    #[must_use]
    pub fn permits(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Ids(ids) => ids.contains(id),
            Self::TrustDomains(domains) => domains.contains(id.trust_domain()),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Ids(ids) => ids.is_empty(),
            Self::TrustDomains(domains) => domains.is_empty(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct PeerVerifier {
    bundles: BundleHandle,
    accept: Accept,
}

impl PeerVerifier {
    pub(crate) fn new(bundles: BundleHandle, accept: Accept) -> Result<Self, Error> {
        if accept.is_empty() {
            return Err(Error::NothingAccepted);
        }
        Ok(Self { bundles, accept })
    }

    /// `now` is rustls's, taken from the configuration's clock.
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Leaf, Error> {
        let now = clock::system_time(now).ok_or(Error::Clock)?;
        let leaf = self
            .bundles
            .load()
            .verify_parts(end_entity, intermediates, now)?;
        // Only an ID whose signature was checked is worth comparing.
        if !self.accept.permits(&leaf.id) {
            return Err(Error::NotAccepted { id: leaf.id });
        }
        Ok(leaf)
    }
}

fn tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    rustls::crypto::verify_tls13_signature(
        message,
        certificate,
        signed,
        &tls::signature_algorithms(),
    )
}

/// Unreachable with our configurations, which offer TLS 1.3 alone. It stays closed if that ever changes.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(PeerIncompatible::Tls12NotOffered.into())
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // A SPIFFE peer is named by its ID, checked in `verify`; host names carry no identity.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now)
            .map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::signature_algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: they would tell a stranger which authorities we trust, and they go stale on rotation.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now)
            .map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::signature_algorithms().supported_schemes()
    }
}
