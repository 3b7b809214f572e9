//! The recipient key: made for one release, known to nobody else, gone when the release is over.

use aws_lc_rs::agreement::{self, ECDH_P256};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A private key that the broker wraps to.
pub struct TeeKey {
    pub(crate) private: Private,
    jwk: Jwk,
    spki_der: Vec<u8>,
}

pub(crate) enum Private {
    P256(agreement::PrivateKey),
    Rsa(OaepPrivateDecryptingKey),
}

/// The public key as it travels and is hashed (RFC 7517). Members are exactly those that the broker hashes too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kty")]
#[non_exhaustive]
pub enum Jwk {
    /// P-256, for `ECDH-ES+A256KW` (RFC 7518 §4.6).
    #[serde(rename = "EC")]
    Ec {
        /// Key management algorithm.
        alg: &'static str,
        /// Curve.
        crv: &'static str,
        /// Coordinate, base64url of exactly 32 octets.
        x: String,
        /// Coordinate, base64url of exactly 32 octets.
        y: String,
    },
    /// RSA, for `RSA-OAEP-256` (RFC 7518 §4.3).
    #[serde(rename = "RSA")]
    Rsa {
        /// Key management algorithm.
        alg: &'static str,
        /// Modulus, base64url of the big-endian octets.
        n: String,
        /// Exponent, likewise.
        e: String,
    },
}

pub(crate) const ECDH_ES_A256KW: &str = "ECDH-ES+A256KW";
pub(crate) const RSA_OAEP_256: &str = "RSA-OAEP-256";
pub(crate) const P256: &str = "P-256";

impl Jwk {
    /// An EC key from the coordinates of its uncompressed point (SEC 1 §2.3.3).
    pub(crate) fn ec(point: &[u8]) -> Option<Self> {
        let (&4, coordinates) = point.split_first()? else {
            return None;
        };
        let (x, y) = coordinates.split_at_checked(32)?;
        Some(Self::Ec {
            alg: ECDH_ES_A256KW,
            crv: P256,
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        })
    }
}

impl TeeKey {
    /// A fresh P-256 key; what [`crate::Broker`] uses.
    ///
    /// # Errors
    /// The library could not make one.
    pub fn generate_p256() -> Result<Self, Unspecified> {
        Self::p256(agreement::PrivateKey::generate(&ECDH_P256)?)
    }

    /// A fresh RSA-2048 key, for brokers that know only that. Takes a noticeable part of a second.
    ///
    /// # Errors
    /// The library could not make one.
    pub fn generate_rsa2048() -> Result<Self, Unspecified> {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048)?;
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(&private.public_key())?;
        let spki_der = spki.as_ref().to_vec();
        let Ok((_, info)) = SubjectPublicKeyInfo::from_der(&spki_der) else {
            return Err(Unspecified);
        };
        let Ok(PublicKey::RSA(public)) = info.parsed() else {
            return Err(Unspecified);
        };
        let jwk = Jwk::Rsa {
            alg: RSA_OAEP_256,
            n: URL_SAFE_NO_PAD.encode(unsigned(public.modulus)),
            e: URL_SAFE_NO_PAD.encode(unsigned(public.exponent)),
        };
        Ok(Self {
            private: Private::Rsa(OaepPrivateDecryptingKey::new(private)?),
            jwk,
            spki_der,
        })
    }

    pub(crate) fn p256(private: agreement::PrivateKey) -> Result<Self, Unspecified> {
        let public = private.compute_public_key()?;
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(&public)?;
        Ok(Self {
            jwk: Jwk::ec(public.as_ref()).ok_or(Unspecified)?,
            spki_der: spki.as_ref().to_vec(),
            private: Private::P256(private),
        })
    }

    /// The public key as the broker takes it.
    #[must_use]
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// DER SubjectPublicKeyInfo: what the evidence attests.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// The `alg` that the broker's answer must carry.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self.private {
            Private::P256(_) => ECDH_ES_A256KW,
            Private::Rsa(_) => RSA_OAEP_256,
        }
    }
}

/// Without the sign octet that DER puts before a large integer.
fn unsigned(integer: &[u8]) -> &[u8] {
    match integer {
        [0, rest @ ..] => rest,
        whole => whole,
    }
}
