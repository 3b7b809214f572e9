use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::leaf::leaf;
use crate::{Error, Leaf, pem};

/// An X.509-SVID we can authenticate with: chain, leaf first, and its private key.
///
/// The key is inside aws-lc from the moment this exists and cannot be read back.
pub struct Svid {
    leaf: Arc<Leaf>,
    pub(crate) certified: Arc<CertifiedKey>,
}

impl Svid {
    /// # Errors
    /// An empty chain, a leaf that breaks an SVID rule, a key that is not PKCS#8 or does not match the leaf.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        pkcs8: Zeroizing<Vec<u8>>,
    ) -> Result<Self, Error> {
        let leaf = leaf(chain.first().ok_or(Error::NoCertificate)?)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_slice()));
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|_detail| Error::Key)?;
        let certified = CertifiedKey::new(chain, key);
        certified
            .keys_match()
            .map_err(|_detail| Error::KeyMismatch)?;
        Ok(Self {
            leaf: Arc::new(leaf),
            certified: Arc::new(certified),
        })
    }

    /// From PEM texts: certificates, leaf first, and an unencrypted PKCS#8 key.
    ///
    /// # Errors
    /// As [`Svid::from_der`], and PEM that holds no certificate or no key.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, Error> {
        Self::from_der(pem::certificates(chain)?, pem::private_key(key)?)
    }

    /// From what the SPIFFE Workload API delivered.
    ///
    /// # Errors
    /// As [`Svid::from_der`]: our leaf rules are stricter than the library's.
    pub fn from_spiffe(svid: &spiffe::X509Svid) -> Result<Self, Error> {
        let chain = svid
            .cert_chain()
            .iter()
            .map(|certificate| CertificateDer::from(certificate.as_bytes().to_vec()))
            .collect();
        Self::from_der(
            chain,
            Zeroizing::new(svid.private_key().as_bytes().to_vec()),
        )
    }

    #[must_use]
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    pub(crate) fn shared_leaf(&self) -> Arc<Leaf> {
        Arc::clone(&self.leaf)
    }

    /// The certificates as they are sent, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }
}
