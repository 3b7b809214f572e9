//! The attestation token: what evidence said, signed by us for five minutes (RFC 7519, ES256).
//!
//! The signing key lives as long as the process. A token needs no other proof to be used, so it carries the recipient
//! key: whoever steals it can have things wrapped to that key and open none of them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::{BootId, Pcr, Sha256Digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters,
    EllipticCurveKeyType, Jwk, KeyAlgorithm,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use crate::tee_key::TeePublicKey;

/// As a stock broker's default.
const LIFETIME: Duration = Duration::from_secs(300);
const ISSUER: &str = "cloister-kbs";
/// A token of ours is under 8 KiB: 32 registers of 96 digits and an RSA-4096 key.
const MAX_TOKEN: usize = 12 * 1024;

/// What the policy gets as `input`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    iat: u64,
    exp: u64,
    pub(crate) nitro: NitroClaims,
    #[serde(rename = "tee-pubkey")]
    pub(crate) tee_pubkey: TeePublicKey,
}

/// What verified evidence said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NitroClaims {
    /// Text keys, because JSON has no others.
    pub(crate) pcrs: BTreeMap<String, Pcr>,
    pub(crate) module_id: String,
    pub(crate) config_digest: Sha256Digest,
    pub(crate) boot_id: BootId,
    /// Fingerprint of the root that the evidence chains to.
    pub(crate) root_sha256: Sha256Digest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("token is longer than any of ours")]
    TooLong,
    #[error("token is not ours")]
    NotOurs,
    #[error("token expired")]
    Expired,
    #[error("the clock cannot be read")]
    Clock,
}

pub(crate) struct TokenSigner {
    header: Header,
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl TokenSigner {
    pub(crate) fn generate() -> Option<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
        let pkcs8 = pair.to_pkcs8v1().ok()?;
        let (_, point) = pair.public_key().as_ref().split_at_checked(1)?;
        let (x, y) = point.split_at_checked(32)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let mut header = Header::new(Algorithm::ES256);
        header.jwk = Some(Jwk {
            common: CommonParameters {
                key_algorithm: Some(KeyAlgorithm::ES256),
                ..CommonParameters::default()
            },
            algorithm: AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
                key_type: EllipticCurveKeyType::EC,
                curve: EllipticCurve::P256,
                x: x.clone(),
                y: y.clone(),
            }),
        });
        Some(Self {
            header,
            signing: EncodingKey::from_ec_der(pkcs8.as_ref()),
            verifying: DecodingKey::from_ec_components(&x, &y).ok()?,
        })
    }

    pub(crate) fn sign(
        &self,
        nitro: NitroClaims,
        tee_pubkey: TeePublicKey,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        let iat = seconds(now)?;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            iat,
            exp: iat.saturating_add(LIFETIME.as_secs()),
            nitro,
            tee_pubkey,
        };
        encode(&self.header, &claims, &self.signing).map_err(|_key_or_json| TokenError::NotOurs)
    }

    /// No leeway: the clock that signed is the clock that checks.
    pub(crate) fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false; // the library would read the system's clock
        validation.set_issuer(&[ISSUER]);
        let Ok(token) = decode::<Claims>(token, &self.verifying, &validation) else {
            return Err(TokenError::NotOurs);
        };
        if seconds(now)? >= token.claims.exp {
            return Err(TokenError::Expired);
        }
        Ok(token.claims)
    }
}

pub(crate) fn seconds(time: SystemTime) -> Result<u64, TokenError> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Ok(since.as_secs()),
        Err(_) => Err(TokenError::Clock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nitro() -> NitroClaims {
        NitroClaims {
            pcrs: BTreeMap::from([("0".to_owned(), Pcr::from_bytes([1; 48]))]),
            module_id: "i-0-enc0".to_owned(),
            config_digest: Sha256Digest::of(b"config"),
            boot_id: BootId::from_bytes([2; 16]),
            root_sha256: Sha256Digest::of(b"root"),
        }
    }

    fn key() -> TeePublicKey {
        let key = kbs_client::TeeKey::generate_p256().unwrap();
        serde_json::from_value(serde_json::to_value(key.jwk()).unwrap()).unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_says_for_five_minutes_what_was_signed() {
        let signer = TokenSigner::generate().unwrap();
        let token = signer.sign(nitro(), key(), at(1000)).unwrap();
        assert_eq!(signer.verify(&token, at(1299)).unwrap().nitro, nitro());
        assert_eq!(signer.verify(&token, at(1300)), Err(TokenError::Expired));
    }

    #[test]
    fn a_token_of_another_signer_or_changed_on_the_way_is_refused() {
        let (ours, other) = (
            TokenSigner::generate().unwrap(),
            TokenSigner::generate().unwrap(),
        );
        let token = other.sign(nitro(), key(), at(1000)).unwrap();
        assert_eq!(ours.verify(&token, at(1000)), Err(TokenError::NotOurs));

        let token = ours.sign(nitro(), key(), at(1000)).unwrap();
        let [header, _, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            panic!()
        };
        let claims = URL_SAFE_NO_PAD.encode(r#"{"iss":"cloister-kbs","iat":0,"exp":9999999999}"#);
        assert!(
            ours.verify(&format!("{header}.{claims}.{signature}"), at(1000))
                .is_err()
        );
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert!(ours.verify(&format!("{none}.{claims}."), at(1000)).is_err());
        assert!(ours.verify("", at(1000)).is_err());
        assert_eq!(
            ours.verify(&"a".repeat(MAX_TOKEN + 1), at(1000)),
            Err(TokenError::TooLong)
        );
    }
}
