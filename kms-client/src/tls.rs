//! TLS to KMS: 1.3 alone, ended in here, under roots that are part of what is measured.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use identity::pem;
use rustls::client::Resumption;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::UnixTime;

use crate::Now;

/// The roots under which the service's certificate is looked for.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

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
        let certificates =
            pem::certificates(text).map_err(|error| RootsError(error.to_string()))?;
        let mut store = RootCertStore::empty();
        for certificate in certificates {
            store
                .add(certificate)
                .map_err(|error| RootsError(error.to_string()))?;
        }
        if store.is_empty() {
            return Err(RootsError("no certificate in it".to_owned()));
        }
        Ok(Self(Arc::new(store)))
    }

    pub(crate) fn client_config(&self, now: Now) -> Result<Arc<ClientConfig>, rustls::Error> {
        let provider = Arc::new(identity::provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(Time(now)))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(Arc::clone(&self.0))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

struct Time(Now);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let since: SystemTime = (self.0)();
        since
            .duration_since(UNIX_EPOCH)
            .ok()
            .map(UnixTime::since_unix_epoch)
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
