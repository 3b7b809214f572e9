use std::time::SystemTime;

use spiffe::{SpiffeId, TrustDomain};

/// Why a certificate, a chain, a handshake or an issuance was refused.
///
/// Every value named in a message is public: certificates travel in the clear to whoever asks for them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // The peer's leaf breaks a rule of the X.509-SVID standard.
    #[error("certificate is not well formed: {0}")]
    Encoding(&'static str),
    #[error("certificate carries {found} uri names, an x509-svid carries exactly one")]
    UriNames { found: usize },
    #[error("uri name is not a spiffe id in canonical form")]
    SpiffeId,
    #[error("spiffe id {id} has no path, so it cannot name a workload")]
    MissingPath { id: SpiffeId },
    #[error("certificate has no basic constraints, a leaf states ca false")]
    MissingBasicConstraints,
    #[error("certificate is a ca, a ca never authenticates")]
    CaLeaf,
    #[error("certificate has no key usage extension")]
    MissingKeyUsage,
    #[error("key usage extension is not critical")]
    KeyUsageNotCritical,
    #[error("key usage lacks digitalSignature")]
    MissingDigitalSignature,
    #[error("key usage allows {0}, a leaf must not")]
    SigningKeyUsage(&'static str),
    #[error("extended key usage lacks {0}")]
    ExtendedKeyUsage(&'static str),
    #[error("subject is empty but the subject alternative name is not critical")]
    NameNotCritical,

    // The chain does not lead to the bundle of the ID's own trust domain.
    #[error("peer sent no certificate")]
    NoCertificate,
    #[error("chain of {found} certificates is longer than {max}")]
    ChainTooLong { found: usize, max: usize },
    #[error("no trust bundle for {0}")]
    UnknownTrustDomain(TrustDomain),
    #[error("signing certificate {0}")]
    SigningCertificate(&'static str),
    #[error("certificate ended at {not_after:?}")]
    Expired { not_after: SystemTime },
    #[error("certificate is not valid before {not_before:?}")]
    NotYetValid { not_before: SystemTime },
    #[error("chain does not lead to the bundle of {trust_domain}: {source}")]
    Untrusted {
        trust_domain: TrustDomain,
        source: webpki::Error,
    },
    #[error("bundle {0}")]
    Bundle(&'static str),
    #[error(
        "bundle has sequence {found:?} where {held} is held: it is older, or another one of the same number"
    )]
    OlderBundle { held: u64, found: Option<u64> },
    #[error("bundle endpoint: {0}")]
    Endpoint(String),
    #[error("{id} is not accepted here")]
    NotAccepted { id: SpiffeId },

    // The handshake itself.
    #[error("session is not tls 1.3")]
    NotTls13,
    #[error("session was resumed, so the peer proved nothing on it")]
    Resumed,
    #[error("handshake is not complete")]
    Incomplete,
    #[error("application protocol is {actual:?}, expected {expected:?}")]
    Protocol {
        expected: String,
        actual: Option<String>,
    },
    #[error("tls library: {0}")]
    Tls(#[from] rustls::Error),

    // Our own side.
    #[error("nothing is accepted: name at least one spiffe id or trust domain")]
    NothingAccepted,
    #[error("private key does not belong to the certificate")]
    KeyMismatch,
    #[error("private key is not a supported pkcs#8 key")]
    Key,
    #[error("no {0} in the pem text")]
    Pem(&'static str),
    #[error("the clock cannot be read")]
    Clock,
    #[error("certificate signing request: {0}")]
    Csr(&'static str),
    #[error("issuing: {0}")]
    Issue(&'static str),
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// The reason a handshake failed on *our* side's certificate check, when that is why `error` came back from
/// `tokio_rustls`. A failure the peer decided on arrives as a bare alert and gives `None`.
#[must_use]
pub fn verdict(error: &std::io::Error) -> Option<&Error> {
    let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = tls else {
        return None;
    };
    other.0.downcast_ref()
}

/// Whether a handshake failed because of who the peer is, by any check of its certificate, and not because bytes were lost.
#[must_use]
pub fn is_about_the_certificate(error: &std::io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// Carries our reason through rustls. The peer sees one alert, `certificate_unknown`, whatever the reason was.
pub(crate) fn refuse(error: Error) -> rustls::Error {
    rustls::CertificateError::Other(rustls::OtherError(std::sync::Arc::new(error))).into()
}
