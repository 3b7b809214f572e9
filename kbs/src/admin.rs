//! Who may change what is released: holders of an Ed25519 key that the configuration names, by a bearer token
//! (RFC 7519, EdDSA) with `role` and `exp`.
//!
//! A token with `change` is an approval: good for the one change with this digest, and once. Under the two-person rule
//! a change needs approvals of two keys, and no other token changes anything.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::Sha256Digest;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::store::Approval;
use crate::token::seconds;

/// The one role there is.
const ROLE: &str = "admin";
/// Between the administrator's clock and ours.
const CLOCK_SKEW: Duration = Duration::from_secs(5);
/// An approval that was forgotten must not wait for its day. As long as a used one is remembered, too.
const MAX_APPROVAL: Duration = Duration::from_secs(24 * 3600);
/// Three claims and a signature; tools add an issuer and an audience.
const MAX_TOKEN: usize = 4 * 1024;
/// 128 random bits in hex; whoever writes it differently stays below this.
const MAX_ID: usize = 64;

/// Issuers and audiences that tools put in are not read: one key, one broker.
#[derive(Serialize, Deserialize)]
struct Claims {
    role: String,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    /// What it approves, and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Sha256Digest>,
    /// Tells two approvals of the same change apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("no bearer token")]
    Absent,
    #[error("no configured key signed the token, or it lacks role or exp")]
    NotSigned,
    #[error("the token's role is not admin")]
    Role,
    #[error("the token is expired or not yet valid")]
    Time,
    #[error("the token approves another change")]
    OtherChange,
    #[error("the approval has no jti, or is good for longer than a day")]
    Unbound,
    #[error("the two-person rule asks for approvals of this change by two keys")]
    Second,
    #[error("more approvals than the change needs")]
    TooMany,
}

/// A key that the configuration names.
struct AdminKey {
    name: String,
    key: DecodingKey,
}

/// The public keys that the configuration names. Without any, nobody is an administrator over the network.
pub(crate) struct AdminKeys {
    keys: Vec<AdminKey>,
    two_person: bool,
}

/// Who may make the change, and what that uses up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Authorized {
    /// Names of the keys, for the log.
    pub(crate) names: String,
    pub(crate) approvals: Vec<Approval>,
}

/// What a token that is in order says, and whose it is.
struct Signed<'a> {
    name: &'a str,
    claims: Claims,
}

impl AdminKeys {
    /// Keys with their names; without one a key is named by the start of its SHA-256. Gives the position of the first
    /// that is not an Ed25519 public key in PEM, or that was listed before.
    pub(crate) fn new<'a>(
        pems: impl IntoIterator<Item = (Option<&'a str>, &'a str)>,
        two_person: bool,
    ) -> Result<Self, usize> {
        let mut keys: Vec<AdminKey> = Vec::new();
        let mut seen = Vec::new();
        for (index, (name, pem)) in pems.into_iter().enumerate() {
            let key = DecodingKey::from_ed_pem(pem.as_bytes()).map_err(|_detail| index)?;
            // One key under two names would be two persons.
            let bytes = key.try_get_as_bytes().map_err(|_kind| index)?.to_vec();
            let sha256 = Sha256Digest::of(&bytes).to_string();
            let name = name.map_or_else(
                || format!("key-{}", sha256.get(..16).unwrap_or_default()),
                str::to_owned,
            );
            if seen.contains(&bytes) || keys.iter().any(|key| key.name == name) {
                return Err(index);
            }
            seen.push(bytes);
            keys.push(AdminKey { name, key });
        }
        Ok(Self { keys, two_person })
    }

    /// Whether the token is an administrator's, whatever it is good for: before a body is read.
    pub(crate) fn check(&self, bearer: Option<&str>, now: SystemTime) -> Result<(), AdminError> {
        self.signed(bearer, now).map(drop)
    }

    /// Whether an administrator may be told something. Approvals open nothing but their change.
    pub(crate) fn may_read(&self, bearer: Option<&str>, now: SystemTime) -> Result<(), AdminError> {
        match self.signed(bearer, now)?.claims.change {
            None => Ok(()),
            Some(_) => Err(AdminError::OtherChange),
        }
    }

    /// Whether these tokens allow the change with this digest.
    pub(crate) fn authorize(
        &self,
        bearer: Option<&str>,
        second: Option<&str>,
        change: Sha256Digest,
        now: SystemTime,
    ) -> Result<Authorized, AdminError> {
        let first = self.signed(bearer, now)?;
        if !self.two_person {
            // A second approval that nobody asked for would look as if it had counted.
            return match second {
                Some(_) => Err(AdminError::TooMany),
                None => Ok(Authorized {
                    names: first.name.to_owned(),
                    approvals: first.approval(change, now)?.into_iter().collect(),
                }),
            };
        }
        let second = self.signed(second, now).map_err(|error| match error {
            AdminError::Absent => AdminError::Second,
            error => error,
        })?;
        // Keys are listed once, so another name is another key.
        if first.name == second.name {
            return Err(AdminError::Second);
        }
        let approvals = [first.approval(change, now)?, second.approval(change, now)?];
        let [Some(one), Some(other)] = approvals else {
            return Err(AdminError::Second);
        };
        Ok(Authorized {
            names: format!("{} and {}", first.name, second.name),
            approvals: vec![one, other],
        })
    }

    pub(crate) fn two_person(&self) -> bool {
        self.two_person
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    fn signed(&self, token: Option<&str>, now: SystemTime) -> Result<Signed<'_>, AdminError> {
        let token = token
            .filter(|token| token.len() <= MAX_TOKEN)
            .ok_or(AdminError::Absent)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.validate_exp = false; // the library would read the system's clock
        validation.validate_aud = false;
        let signed = self.keys.iter().find_map(|AdminKey { name, key }| {
            let claims = decode::<Claims>(token, key, &validation).ok()?.claims;
            Some(Signed { name, claims })
        });
        let signed = signed.ok_or(AdminError::NotSigned)?;
        let claims = &signed.claims;
        if claims.role != ROLE {
            return Err(AdminError::Role);
        }
        let (Ok(now), skew) = (seconds(now), CLOCK_SKEW.as_secs()) else {
            return Err(AdminError::Time);
        };
        let begun = claims.nbf.is_none_or(|nbf| nbf <= now.saturating_add(skew));
        if !begun || now >= claims.exp.saturating_add(skew) {
            return Err(AdminError::Time);
        }
        Ok(signed)
    }
}

impl Signed<'_> {
    /// The approval that this token is, if it is one; then it has to be of this change.
    fn approval(
        &self,
        change: Sha256Digest,
        now: SystemTime,
    ) -> Result<Option<Approval>, AdminError> {
        let Some(approved) = self.claims.change else {
            return Ok(None);
        };
        if approved != change {
            return Err(AdminError::OtherChange);
        }
        let id = self.claims.jti.as_deref().unwrap_or_default();
        let until = Duration::from_secs(self.claims.exp).saturating_add(CLOCK_SKEW);
        let until = UNIX_EPOCH.checked_add(until).ok_or(AdminError::Unbound)?;
        let left = until.duration_since(now).unwrap_or_default();
        if id.is_empty() || id.len() > MAX_ID || left > MAX_APPROVAL + CLOCK_SKEW * 2 {
            return Err(AdminError::Unbound);
        }
        // Of its key: nobody can use up another's.
        let id = format!("{}:{id}", self.name);
        Ok(Some(Approval { id, until }))
    }
}

/// A fresh administrator's key: `(PKCS#8 PEM, public PEM)`.
pub(crate) fn generate_key() -> Option<(Zeroizing<String>, String)> {
    let pair = Ed25519KeyPair::generate().ok()?;
    let pkcs8 = pair.to_pkcs8v1().ok()?;
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
    // 44 octets make 60 characters: one line of RFC 7468.
    let public = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(spki.as_ref())
    );
    Some((identity::pem::encode_private_key(pkcs8.as_ref()), public))
}

/// A bearer token for `ttl` from `now`, signed with the PKCS#8 PEM `key`: for everything, or to approve one change.
pub(crate) fn token(
    key: &str,
    change: Option<Sha256Digest>,
    ttl: Duration,
    now: SystemTime,
) -> Option<Zeroizing<String>> {
    let key = EncodingKey::from_ed_pem(key.as_bytes()).ok()?;
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).ok()?;
    let claims = Claims {
        role: ROLE.to_owned(),
        exp: seconds(now.checked_add(ttl)?).ok()?,
        nbf: None,
        jti: change.map(|_| hex::encode(id)),
        change,
    };
    encode(&Header::new(Algorithm::EdDSA), &claims, &key)
        .ok()
        .map(Zeroizing::new)
}

#[cfg(test)]
mod tests;
