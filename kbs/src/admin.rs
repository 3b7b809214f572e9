//! Who may change what is released: holders of an Ed25519 key that the configuration names, by a bearer token
//! (RFC 7519, EdDSA) with `role` and `exp`.

use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::token::seconds;

/// The one role there is.
const ROLE: &str = "admin";
/// Between the administrator's clock and ours.
const CLOCK_SKEW: Duration = Duration::from_secs(5);
/// Three claims and a signature; tools add an issuer and an audience.
const MAX_TOKEN: usize = 4 * 1024;

/// Issuers and audiences that tools put in are not read: one key, one broker.
#[derive(Serialize, Deserialize)]
struct Claims {
    role: String,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
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
}

/// The public keys that the configuration names. Without any, nobody is an administrator over the network.
pub(crate) struct AdminKeys(Vec<DecodingKey>);

impl AdminKeys {
    /// Gives the position of the first text that is not an Ed25519 public key in PEM.
    pub(crate) fn from_pems(pems: &[String]) -> Result<Self, usize> {
        let read = |(index, pem): (usize, &String)| {
            DecodingKey::from_ed_pem(pem.as_bytes()).map_err(|_detail| index)
        };
        pems.iter()
            .enumerate()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn check(&self, bearer: Option<&str>, now: SystemTime) -> Result<(), AdminError> {
        let token = bearer
            .filter(|token| token.len() <= MAX_TOKEN)
            .ok_or(AdminError::Absent)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.validate_exp = false; // the library would read the system's clock
        validation.validate_aud = false;
        let signed = self
            .0
            .iter()
            .find_map(|key| decode::<Claims>(token, key, &validation).ok());
        let claims = signed.ok_or(AdminError::NotSigned)?.claims;
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
        Ok(())
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

/// A bearer token for `ttl` from `now`, signed with the PKCS#8 PEM `key`.
pub(crate) fn token(key: &str, ttl: Duration, now: SystemTime) -> Option<Zeroizing<String>> {
    let key = EncodingKey::from_ed_pem(key.as_bytes()).ok()?;
    let claims = Claims {
        role: ROLE.to_owned(),
        exp: seconds(now.checked_add(ttl)?).ok()?,
        nbf: None,
    };
    encode(&Header::new(Algorithm::EdDSA), &claims, &key)
        .ok()
        .map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json};

    use super::*;

    struct Admin {
        private: Zeroizing<String>,
        keys: AdminKeys,
    }

    fn admin() -> Admin {
        let (private, public) = generate_key().unwrap();
        Admin {
            private,
            keys: AdminKeys::from_pems(&[public]).unwrap(),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn signed(private: &str, claims: &Value) -> String {
        let key = EncodingKey::from_ed_pem(private.as_bytes()).unwrap();
        encode(&Header::new(Algorithm::EdDSA), claims, &key).unwrap()
    }

    #[test]
    fn a_token_of_a_named_key_opens_until_it_expires() {
        let admin = admin();
        let token = token(&admin.private, Duration::from_secs(60), at(1000)).unwrap();
        assert_eq!(admin.keys.check(Some(&token), at(1000)), Ok(()));
        assert_eq!(admin.keys.check(Some(&token), at(1064)), Ok(()));
        assert_eq!(
            admin.keys.check(Some(&token), at(1065)),
            Err(AdminError::Time)
        );
    }

    #[test]
    fn a_second_named_key_is_as_good_as_the_first() {
        let (_, first) = generate_key().unwrap();
        let (private, second) = generate_key().unwrap();
        let keys = AdminKeys::from_pems(&[first, second]).unwrap();
        let token = token(&private, Duration::from_secs(60), at(0)).unwrap();
        assert_eq!(keys.check(Some(&token), at(0)), Ok(()));
    }

    #[test]
    fn a_token_that_is_absent_foreign_or_incomplete_is_refused() {
        let (ours, other) = (admin(), admin());
        let check = |token: &str| ours.keys.check(Some(token), at(1000));
        assert_eq!(ours.keys.check(None, at(1000)), Err(AdminError::Absent));
        assert_eq!(check(&"a".repeat(MAX_TOKEN + 1)), Err(AdminError::Absent));
        assert_eq!(check(""), Err(AdminError::NotSigned));
        let good = json!({"role": "admin", "exp": 2000});
        assert_eq!(check(&signed(&ours.private, &good)), Ok(()));
        assert_eq!(
            check(&signed(&other.private, &good)),
            Err(AdminError::NotSigned)
        );
        for (claims, expected) in [
            (json!({"exp": 2000}), AdminError::NotSigned),
            (json!({"role": "admin"}), AdminError::NotSigned),
            (
                json!({"role": "admin", "exp": "2000"}),
                AdminError::NotSigned,
            ),
            (json!({"role": "user", "exp": 2000}), AdminError::Role),
            (json!({"role": "", "exp": 2000}), AdminError::Role),
            (json!({"role": "admin", "exp": 900}), AdminError::Time),
            (
                json!({"role": "admin", "exp": 2000, "nbf": 1100}),
                AdminError::Time,
            ),
        ] {
            assert_eq!(
                check(&signed(&ours.private, &claims)),
                Err(expected),
                "{claims}"
            );
        }
    }

    #[test]
    fn another_algorithm_is_refused_even_with_the_public_key_as_secret() {
        let (_, public) = generate_key().unwrap();
        let keys = AdminKeys::from_pems(std::slice::from_ref(&public)).unwrap();
        let key = EncodingKey::from_secret(public.as_bytes());
        let claims = json!({"role": "admin", "exp": 2000});
        let forged = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
        assert_eq!(keys.check(Some(&forged), at(0)), Err(AdminError::NotSigned));
    }

    #[test]
    fn without_keys_nobody_is_an_administrator() {
        let (private, _) = generate_key().unwrap();
        let keys = AdminKeys::from_pems(&[]).unwrap();
        let token = token(&private, Duration::from_secs(60), at(0)).unwrap();
        assert_eq!(keys.check(Some(&token), at(0)), Err(AdminError::NotSigned));
    }

    #[test]
    fn a_text_that_is_no_ed25519_key_is_found_by_its_position() {
        let (_, public) = generate_key().unwrap();
        assert_eq!(
            AdminKeys::from_pems(&[public, "nonsense".to_owned()]).err(),
            Some(1)
        );
    }
}
