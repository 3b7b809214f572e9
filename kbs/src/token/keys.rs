//! The keys of tokens: P-256, known by their RFC 7638 thumbprint, published as a JWK set (RFC 7517).
//!
//! A relying party may have read the set long ago, so the next key is published before it signs, and the previous one
//! for as long as its tokens live.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters,
    EllipticCurveKeyType, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::TokenSigner;
use crate::tee_key;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error(
        "is not a P-256 key in PKCS#8 PEM (`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`)"
    )]
    Private,
    #[error("is not a P-256 public key in PEM (`openssl pkey -in KEY -pubout`)")]
    Public,
}

/// A fresh signing key, PKCS#8 PEM.
pub(crate) fn generate_pem() -> Option<Zeroizing<String>> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
    let pkcs8 = pair.to_pkcs8v1().ok()?;
    Some(identity::pem::encode_private_key(pkcs8.as_ref()))
}

impl TokenSigner {
    /// With a key that ends with the process.
    pub(crate) fn generate() -> Option<Self> {
        Self::from_pem(&generate_pem()?).ok()
    }

    /// With the operator's key (PKCS#8 PEM).
    pub(crate) fn from_pem(key: &str) -> Result<Self, KeyError> {
        let pkcs8 = identity::pem::private_key(key).map_err(|_no_section| KeyError::Private)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8)
            .map_err(|_detail| KeyError::Private)?;
        let jwk = jwk(pair.public_key().as_ref()).ok_or(KeyError::Private)?;
        let mut header = Header::new(Algorithm::ES256);
        header.kid.clone_from(&jwk.common.key_id);
        let mut signer = Self {
            header,
            signing: EncodingKey::from_ec_der(&pkcs8),
            verifying: std::collections::BTreeMap::new(),
            jwks: JwkSet { keys: Vec::new() },
        };
        signer.add(jwk).ok_or(KeyError::Private)?;
        Ok(signer)
    }

    /// Publishes one more key, and takes its tokens. A key that is there already changes nothing.
    pub(crate) fn publish(&mut self, public_key: &str) -> Result<(), KeyError> {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(public_key.as_bytes())
            .map_err(|_detail| KeyError::Public)?;
        let point = tee_key::p256_point(&spki).ok_or(KeyError::Public)?;
        jwk(&point)
            .and_then(|jwk| self.add(jwk))
            .ok_or(KeyError::Public)
    }

    fn add(&mut self, jwk: Jwk) -> Option<()> {
        let kid = jwk.common.key_id.clone()?;
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        if self.verifying.insert(kid, key).is_none() {
            self.jwks.keys.push(jwk);
        }
        Some(())
    }

    /// The published set, the signing key first.
    pub(crate) fn jwks(&self) -> &JwkSet {
        &self.jwks
    }

    /// ID of the key that signs.
    pub(crate) fn key_id(&self) -> &str {
        self.header.kid.as_deref().unwrap_or_default()
    }
}

/// Of an uncompressed point. `alg` is for stock brokers, which do not guess it.
fn jwk(point: &[u8]) -> Option<Jwk> {
    let (_, point) = point.split_at_checked(1)?;
    let (x, y) = point.split_at_checked(32)?;
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let kid = URL_SAFE_NO_PAD.encode(tee_key::p256_thumbprint(&x, &y).as_bytes());
    Some(Jwk {
        common: CommonParameters {
            public_key_use: Some(PublicKeyUse::Signature),
            key_algorithm: Some(KeyAlgorithm::ES256),
            key_id: Some(kid),
            ..CommonParameters::default()
        },
        algorithm: AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
            key_type: EllipticCurveKeyType::EC,
            curve: EllipticCurve::P256,
            x,
            y,
        }),
    })
}
