//! The attestation token: what evidence said, signed by us for five minutes (RFC 7519, ES256).
//!
//! The same token opens resources here and is a passport elsewhere. It needs no other proof to be used, so it carries
//! the recipient key: whoever steals it can have things wrapped to that key and open none of them.

mod keys;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::{BootId, Pcr, Sha256Digest};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use jsonwebtoken::{decode, decode_header, encode};
use serde::{Deserialize, Serialize};

use crate::appraisal::Appraisal;
use crate::tee_key::TeePublicKey;

pub(crate) use keys::generate_pem;

/// As a stock broker's default.
const LIFETIME: Duration = Duration::from_secs(300);
const ISSUER: &str = "cloister-kbs";
/// A token of ours is under 8 KiB: 32 registers of 96 digits, an RSA-4096 key, and what an attestation policy adds.
const MAX_TOKEN: usize = 12 * 1024;

/// What the policy gets as `input`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    iat: u64,
    exp: u64,
    pub(crate) nitro: NitroClaims,
    #[serde(rename = "tee-pubkey")]
    pub(crate) tee_pubkey: TeePublicKey,
    /// Present while there is an attestation policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) submods: Option<Submods>,
}

/// The members that are the same whoever is attested.
#[derive(Debug, Serialize)]
pub(crate) struct Times {
    iss: String,
    iat: u64,
    exp: u64,
}

impl Times {
    pub(crate) fn from(now: SystemTime) -> Result<Self, TokenError> {
        let iat = seconds(now)?;
        Ok(Self {
            iss: ISSUER.to_owned(),
            iat,
            exp: iat.saturating_add(LIFETIME.as_secs()),
        })
    }
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

/// Appraisals by submodule (EAT, RFC 9711 §4.2.18): stock brokers call the machine's own `cpu0`, and there is no other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Submods {
    pub(crate) cpu0: Appraisal,
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

/// The key that signs, and all whose tokens are taken.
pub(crate) struct TokenSigner {
    header: Header,
    signing: EncodingKey,
    /// By key ID: the signing key's, and those that are published beside it.
    verifying: BTreeMap<String, DecodingKey>,
    jwks: JwkSet,
}

impl TokenSigner {
    pub(crate) fn sign(
        &self,
        nitro: NitroClaims,
        tee_pubkey: TeePublicKey,
        appraisal: Option<Appraisal>,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        let Times { iss, iat, exp } = Times::from(now)?;
        let claims = Claims {
            iss,
            iat,
            exp,
            nitro,
            tee_pubkey,
            submods: appraisal.map(|cpu0| Submods { cpu0 }),
        };
        match encode(&self.header, &claims, &self.signing) {
            Ok(token) if token.len() > MAX_TOKEN => Err(TokenError::TooLong),
            Ok(token) => Ok(token),
            Err(_) => Err(TokenError::NotOurs),
        }
    }

    /// No leeway: the clock that signed is the clock that checks.
    pub(crate) fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let kid = match decode_header(token) {
            Ok(header) => header.kid.ok_or(TokenError::NotOurs)?,
            Err(_) => return Err(TokenError::NotOurs),
        };
        let key = self.verifying.get(&kid).ok_or(TokenError::NotOurs)?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false; // the library would read the system's clock
        validation.set_issuer(&[ISSUER]);
        let Ok(token) = decode::<Claims>(token, key, &validation) else {
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
mod tests;
