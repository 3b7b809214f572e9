//! TLS to KMS: 1.3 alone, ended in here, under roots that are part of what is measured.

use std::sync::Arc;

use identity::{Clock, pem};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;

use crate::Now;

const ALPN: &[&[u8]] = &[b"http/1.1"];

/// The roots under which the service's certificate is looked for.
#[derive(Clone)]
pub struct Roots(Vec<CertificateDer<'static>>);

/// The roots cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("holds no usable root certificate: {0}")]
pub struct RootsError(String);

impl Roots {
    /// Amazon Root CA 1 to 4, compiled in.
    ///
    /// # Errors
    /// Never with the file that is compiled in; a test reads it.
    pub fn amazon() -> Result<Self, RootsError> {
        Self::from_pem(include_str!("amazon_roots.pem"))
    }

    /// These certificates and no others, PEM.
    ///
    /// # Errors
    /// No certificate, or one that is none.
    pub fn from_pem(text: &str) -> Result<Self, RootsError> {
        let refused = |error: identity::Error| RootsError(error.to_string());
        let roots = Self(pem::certificates(text).map_err(refused)?);
        // A certificate that is no root is found here and not at the first request.
        roots.config_at(&Clock::system()).map_err(refused)?;
        Ok(roots)
    }

    pub(crate) fn client_config(&self, now: Now) -> Result<Arc<ClientConfig>, identity::Error> {
        self.config_at(&Clock::from_fn(now))
    }

    fn config_at(&self, clock: &Clock) -> Result<Arc<ClientConfig>, identity::Error> {
        identity::web_client_config(clock, &self.0, ALPN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fingerprints that Amazon Trust Services publishes in its repository.
    #[test]
    fn the_compiled_in_roots_are_amazons() {
        let certificates = pem::certificates(include_str!("amazon_roots.pem")).unwrap();
        let digests: Vec<String> = certificates
            .iter()
            .map(|der| attestation::Sha256Digest::of(der).to_string())
            .collect();
        assert_eq!(
            digests,
            [
                "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
                "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
                "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
                "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
            ]
        );
        assert_eq!(Roots::amazon().ok().unwrap().0.len(), 4);
    }

    #[test]
    fn no_roots_at_all_are_refused() {
        assert!(Roots::from_pem("").is_err());
        assert!(Roots::from_pem("nothing").is_err());
    }
}
