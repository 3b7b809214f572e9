//! The recipient key as it comes in: a JWK (RFC 7517), checked before anything is computed with it.

use attestation::{Sha256Digest, Sha384Digest};
use aws_lc_rs::agreement::{ECDH_P256, ParsedPublicKey, UnparsedPublicKey};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// DER up to the point of a P-256 SubjectPublicKeyInfo (RFC 5480 §2): algorithm, curve, bit string header.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// 2048 to 4096 bits: below is weak, above costs us time, and evidence holds no larger key (1024 bytes).
const RSA_MODULUS: std::ops::RangeInclusive<usize> = 256..=512;
/// 65537, the exponent of every key that a TEE makes. Smaller ones have been the way into many a padding.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// The two kinds of key this broker wraps to. Other members of a JWK are dropped, and so are not hashed: attesters put
/// none in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
pub(crate) enum TeePublicKey {
    #[serde(rename = "EC")]
    Ec {
        alg: EcAlgorithm,
        crv: Curve,
        x: String,
        y: String,
    },
    #[serde(rename = "RSA")]
    Rsa {
        alg: RsaAlgorithm,
        n: String,
        e: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EcAlgorithm {
    #[serde(rename = "ECDH-ES+A256KW")]
    EcdhEsA256Kw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Curve {
    #[serde(rename = "P-256")]
    P256,
}

/// No `RSA1_5`: its padding tells whoever can ask often enough what is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RsaAlgorithm {
    #[serde(rename = "RSA-OAEP-256")]
    Oaep256,
}

/// A key that something can be wrapped to.
pub(crate) enum Recipient {
    /// Uncompressed point, on the curve.
    P256([u8; 65]),
    Rsa(PublicEncryptingKey),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tee-pubkey: {0}")]
pub(crate) struct KeyError(&'static str);

impl TeePublicKey {
    pub(crate) fn recipient(&self) -> Result<Recipient, KeyError> {
        match self {
            Self::Ec { x, y, .. } => point(x, y).map(Recipient::P256),
            Self::Rsa { n, e, .. } => match components(n, e)?.try_into() {
                Ok(key) => Ok(Recipient::Rsa(key)),
                Err(_) => Err(KeyError("not a usable rsa key")),
            },
        }
    }

    /// DER SubjectPublicKeyInfo, as the evidence has to attest it.
    pub(crate) fn spki_der(&self) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Ec { x, y, .. } => Ok([&P256_SPKI_PREFIX[..], &point(x, y)?].concat()),
            Self::Rsa { n, e, .. } => {
                match AsDer::<PublicKeyX509Der<'_>>::as_der(&components(n, e)?) {
                    Ok(der) => Ok(der.as_ref().to_vec()),
                    Err(_) => Err(KeyError("not a usable rsa key")),
                }
            }
        }
    }

    /// RFC 7638: SHA-256 of the required members in canonical form.
    pub(crate) fn thumbprint(&self) -> Sha256Digest {
        match self {
            Self::Ec { x, y, .. } => p256_thumbprint(x, y),
            Self::Rsa { n, e, .. } => Sha256Digest::of(&canonical(
                &serde_json::json!({"kty": "RSA", "n": n, "e": e}),
            )),
        }
    }

    /// The key of a SubjectPublicKeyInfo, if it is one of ours: to look at a document that nobody sent a JWK with.
    pub(crate) fn from_spki(der: &[u8]) -> Option<Self> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = p256_point(der)?;
        let (x, y) = point.get(1..)?.split_at_checked(32)?;
        Some(Self::Ec {
            alg: EcAlgorithm::EcdhEsA256Kw,
            crv: Curve::P256,
            x: encode(x),
            y: encode(y),
        })
    }
}

/// RFC 7638, of coordinates in base64url.
pub(crate) fn p256_thumbprint(x: &str, y: &str) -> Sha256Digest {
    let members = serde_json::json!({"kty": "EC", "crv": Curve::P256, "x": x, "y": y});
    Sha256Digest::of(&canonical(&members))
}

/// The uncompressed point of a P-256 SubjectPublicKeyInfo.
pub(crate) fn p256_point(spki: &[u8]) -> Option<[u8; 65]> {
    let point: [u8; 65] = spki.strip_prefix(&P256_SPKI_PREFIX)?.try_into().ok()?;
    on_curve(&point).then_some(point)
}

fn on_curve(point: &[u8; 65]) -> bool {
    point.first() == Some(&4)
        && ParsedPublicKey::try_from(UnparsedPublicKey::new(&ECDH_P256, point)).is_ok()
}

/// SHA-384 of the canonical runtime data. The empty `additional-evidence` is part of it since 0.4.0.
pub(crate) fn runtime_data_digest(nonce: &str, key: &TeePublicKey) -> Sha384Digest {
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct RuntimeData<'a> {
        additional_evidence: &'static str,
        nonce: &'a str,
        tee_pubkey: &'a TeePublicKey,
    }
    Sha384Digest::of(&canonical(&RuntimeData {
        additional_evidence: "",
        nonce,
        tee_pubkey: key,
    }))
}

#[expect(clippy::expect_used, reason = "maps of strings always serialize")]
fn canonical(value: &impl Serialize) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).expect("strings serialize")
}

fn point(x: &str, y: &str) -> Result<[u8; 65], KeyError> {
    let mut point = [4; 65];
    for (text, place) in [x, y].into_iter().zip(point[1..].chunks_exact_mut(32)) {
        let coordinate = decode(text, 43)?;
        if coordinate.len() != place.len() {
            return Err(KeyError("coordinate is not 32 octets"));
        }
        place.copy_from_slice(&coordinate);
    }
    if !on_curve(&point) {
        return Err(KeyError("not a point of the curve"));
    }
    Ok(point)
}

fn components(n: &str, e: &str) -> Result<PublicKeyComponents<Vec<u8>>, KeyError> {
    let n = decode(n, 4 * RSA_MODULUS.end().div_ceil(3))?;
    let e = decode(e, 8)?;
    if !RSA_MODULUS.contains(&n.len()) || n.last().is_none_or(|last| last % 2 == 0) {
        return Err(KeyError("rsa modulus is not of 2048 to 4096 bits"));
    }
    if e != RSA_EXPONENT {
        return Err(KeyError("rsa exponent is not 65537"));
    }
    Ok(PublicKeyComponents { n, e })
}

fn decode(text: &str, max: usize) -> Result<Vec<u8>, KeyError> {
    if text.len() > max {
        return Err(KeyError("member is too long"));
    }
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(KeyError("member is not base64url")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn base_point() -> Value {
        json!({
            "kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW",
            "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
            "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
        })
    }

    fn parsed(value: &Value) -> TeePublicKey {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn the_digest_is_the_one_a_stock_broker_computes() {
        let digest = runtime_data_digest(
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            &parsed(&base_point()),
        );
        assert_eq!(
            digest.to_string(),
            "9edc01b09e997f6578d6bd8f7fc2b28dfaaf4e5417793667b7ece025d50c7cf5b9b0f7d2bbbcebe25d2f53bd33807ce3"
        );
    }

    #[test]
    fn client_and_broker_agree_on_key_and_digest() {
        for key in [
            kbs_client::TeeKey::generate_p256().unwrap(),
            kbs_client::TeeKey::generate_rsa2048().unwrap(),
        ] {
            let ours = parsed(&serde_json::to_value(key.jwk()).unwrap());
            assert_eq!(ours.spki_der().unwrap(), key.spki_der());
            assert_eq!(
                runtime_data_digest("nonce", &ours),
                kbs_client::runtime_data_digest("nonce", key.jwk())
            );
        }
    }

    #[test]
    fn unknown_members_are_dropped_before_hashing() {
        let mut with_kid = base_point();
        with_kid["kid"] = json!("x");
        assert_eq!(parsed(&with_kid), parsed(&base_point()));
    }

    /// RFC 7638 §3.1, with the example's `alg` and `kid` replaced.
    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        let key = parsed(&json!({
            "kty": "RSA", "alg": "RSA-OAEP-256", "e": "AQAB",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        }));
        assert_eq!(
            URL_SAFE_NO_PAD.encode(key.thumbprint().as_bytes()),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
    }

    #[test]
    fn a_key_that_cannot_be_wrapped_to_is_refused() {
        let with = |member: &str, value: &str| {
            let mut key = base_point();
            key[member] = json!(value);
            key
        };
        // Not read at all.
        for key in [
            with("crv", "P-521"),
            with("alg", "ECDH-ES"),
            with("kty", "OKP"),
            json!({"kty": "RSA", "alg": "RSA1_5", "n": "AQAB", "e": "AQAB"}),
            json!({"kty": "RSA", "alg": "RSA-OAEP", "n": "AQAB", "e": "AQAB"}),
            json!({"kty": "AKP", "alg": "ML-KEM-768+A192KW", "pub": "AA"}),
            json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
        ] {
            assert!(
                serde_json::from_value::<TeePublicKey>(key.clone()).is_err(),
                "{key}"
            );
        }
        // Read, and not a key.
        for key in [
            with("x", &URL_SAFE_NO_PAD.encode([1; 32])),
            with("x", &URL_SAFE_NO_PAD.encode([1; 31])),
            with("x", &URL_SAFE_NO_PAD.encode([1; 33])),
            with("y", "=="),
            with("x", ""),
            json!({"kty": "RSA", "alg": "RSA-OAEP-256", "n": URL_SAFE_NO_PAD.encode([0xff; 128]), "e": "AQAB"}),
            json!({"kty": "RSA", "alg": "RSA-OAEP-256", "n": URL_SAFE_NO_PAD.encode([0xff; 1024]), "e": "AQAB"}),
            json!({"kty": "RSA", "alg": "RSA-OAEP-256", "n": URL_SAFE_NO_PAD.encode([0xff; 256]), "e": ""}),
            json!({"kty": "RSA", "alg": "RSA-OAEP-256", "n": URL_SAFE_NO_PAD.encode([0xff; 256]), "e": "Ag"}),
            json!({"kty": "RSA", "alg": "RSA-OAEP-256", "n": URL_SAFE_NO_PAD.encode([0; 256]), "e": "AQAB"}),
        ] {
            assert!(parsed(&key).recipient().is_err(), "{key}");
        }
    }
}
