//! The service's certificate, under a root of the run.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::pem;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::version::TLS13;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::server::KmsError;

const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
const BEFORE: Duration = Duration::from_secs(3600);

/// A certificate for one endpoint name, its key, and the root above it. For one run.
#[derive(Clone, Serialize, Deserialize)]
pub struct KmsTls {
    /// What clients of the run trust instead of Amazon's roots.
    pub root_pem: String,
    chain_pem: String,
    key_der_hex: String,
}

impl KmsTls {
    /// For these names, such as `kms.eu-central-1.amazonaws.com`.
    ///
    /// # Errors
    /// The library could not make one.
    pub fn generate(names: &[&str], now: SystemTime) -> Result<Self, KmsError> {
        let made = || {
            let root_key = KeyPair::generate()?;
            let mut root = params(vec![], "Simulated Amazon Root", now)?;
            root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let root_certificate = root.self_signed(&root_key)?;
            let key = KeyPair::generate()?;
            let mut leaf = params(
                names.iter().map(|name| (*name).to_owned()).collect(),
                "Simulated AWS KMS",
                now,
            )?;
            leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let leaf = leaf.signed_by(&key, &Issuer::from_params(&root, &root_key))?;
            Ok::<_, rcgen::Error>(Self {
                root_pem: root_certificate.pem(),
                chain_pem: leaf.pem(),
                key_der_hex: hex::encode(key.serialize_der()),
            })
        };
        made().map_err(|error| KmsError::Setup(error.to_string()))
    }

    pub(super) fn server_config(&self) -> Result<Arc<ServerConfig>, KmsError> {
        let failed = |error: &dyn std::fmt::Display| KmsError::Setup(error.to_string());
        let chain = pem::certificates(&self.chain_pem).map_err(|e| failed(&e))?;
        let key = Zeroizing::new(hex::decode(&self.key_der_hex).map_err(|e| failed(&e))?);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(identity::provider()))
            .with_protocol_versions(&[&TLS13])
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|e| failed(&e))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn params(
    names: Vec<String>,
    name: &str,
    now: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + LIFE).into();
    Ok(params)
}
