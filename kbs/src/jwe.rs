//! Sealing an answer to the recipient key: flattened JWE (RFC 7516 §7.2.2) with A256GCM.
//!
//! A JWE says nothing about who made it; that it came from us is TLS's to prove.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, ECDH_P256, UnparsedPublicKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::kdf::{SskdfDigestAlgorithmId, get_sskdf_digest_algorithm, sskdf_digest};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap as _};
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::tee_key::Recipient;

const ECDH_ES_A256KW: &str = "ECDH-ES+A256KW";
const RSA_OAEP_256: &str = "RSA-OAEP-256";
/// OtherInfo of the Concat KDF (RFC 7518 §4.6.2): algorithm with its length, no PartyUInfo, no PartyVInfo, 256 bits.
const KDF_INFO: &[u8] = b"\0\0\0\x0eECDH-ES+A256KW\0\0\0\0\0\0\0\0\0\0\x01\0";

/// Members are written in this order. Stock clients do not take the header's text as associated data, as RFC 7516
/// says, but write it anew: `alg`, `enc`, then the rest sorted.
#[derive(Serialize)]
struct Header {
    alg: &'static str,
    enc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    epk: Option<EphemeralKey>,
}

#[derive(Serialize)]
struct EphemeralKey {
    crv: &'static str,
    kty: &'static str,
    x: String,
    y: String,
}

#[derive(Serialize)]
struct Flattened {
    protected: String,
    encrypted_key: String,
    iv: String,
    ciphertext: String,
    tag: String,
}

/// Seals `plaintext` under a fresh content key wrapped to `recipient`; gives the JSON text.
///
/// # Errors
/// The library refused, which it does for no input that gets here.
pub(crate) fn seal(plaintext: &[u8], recipient: &Recipient) -> Result<Vec<u8>, Unspecified> {
    let mut cek = Zeroizing::new([0; 32]);
    rand::fill(cek.as_mut_slice())?;
    let (header, wrapped) = match recipient {
        Recipient::P256(point) => wrap_ecdh(point, &cek)?,
        Recipient::Rsa(key) => wrap_rsa(key, &cek)?,
    };
    let Ok(header) = serde_json::to_vec(&header) else {
        return Err(Unspecified);
    };
    let protected = URL_SAFE_NO_PAD.encode(header);

    let mut iv = [0; 12];
    rand::fill(&mut iv)?;
    // The content key is used once, so any nonce is unique under it.
    let mut sealed = Zeroizing::new(plaintext.to_vec());
    let tag = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, cek.as_slice())?)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(iv),
            Aad::from(protected.as_bytes()),
            &mut sealed,
        )?;
    let jwe = Flattened {
        encrypted_key: URL_SAFE_NO_PAD.encode(wrapped),
        iv: URL_SAFE_NO_PAD.encode(iv),
        ciphertext: URL_SAFE_NO_PAD.encode(&*sealed),
        tag: URL_SAFE_NO_PAD.encode(tag),
        protected,
    };
    serde_json::to_vec(&jwe).map_err(|_infallible| Unspecified)
}

fn wrap_ecdh(point: &[u8; 65], cek: &[u8; 32]) -> Result<(Header, Vec<u8>), Unspecified> {
    let ephemeral = agreement::PrivateKey::generate(&ECDH_P256)?;
    let public = ephemeral.compute_public_key()?;
    let (_, coordinates) = public.as_ref().split_at_checked(1).ok_or(Unspecified)?;
    let (x, y) = coordinates.split_at_checked(32).ok_or(Unspecified)?;
    let header = Header {
        alg: ECDH_ES_A256KW,
        enc: "A256GCM",
        epk: Some(EphemeralKey {
            crv: "P-256",
            kty: "EC",
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        }),
    };
    let recipient = UnparsedPublicKey::new(&ECDH_P256, point);
    let kek = agreement::agree(&ephemeral, recipient, Unspecified, |secret| {
        let mut kek = Zeroizing::new([0; 32]);
        let digest =
            get_sskdf_digest_algorithm(SskdfDigestAlgorithmId::Sha256).ok_or(Unspecified)?;
        sskdf_digest(digest, secret, KDF_INFO, kek.as_mut_slice())?;
        Ok(kek)
    })?;
    let mut wrapped = vec![0; cek.len() + 8]; // RFC 3394 §2.2.1 adds one block of eight
    AesKek::new(&AES_256, kek.as_slice())?.wrap(cek, &mut wrapped)?;
    Ok((header, wrapped))
}

fn wrap_rsa(key: &PublicEncryptingKey, cek: &[u8; 32]) -> Result<(Header, Vec<u8>), Unspecified> {
    let key = OaepPublicEncryptingKey::new(key.clone())?;
    let mut wrapped = vec![0; key.ciphertext_size()];
    let length = key
        .encrypt(&OAEP_SHA256_MGF1SHA256, cek, &mut wrapped, None)?
        .len();
    wrapped.truncate(length);
    let header = Header {
        alg: RSA_OAEP_256,
        enc: "A256GCM",
        epk: None,
    };
    Ok((header, wrapped))
}

#[cfg(test)]
mod tests {
    use kbs_client::TeeKey;
    use serde_json::Value;

    use super::*;
    use crate::tee_key::TeePublicKey;

    fn recipient(key: &TeeKey) -> Recipient {
        let jwk = serde_json::to_value(key.jwk()).unwrap();
        serde_json::from_value::<TeePublicKey>(jwk)
            .unwrap()
            .recipient()
            .unwrap()
    }

    #[test]
    fn our_client_opens_what_we_seal() {
        for key in [
            TeeKey::generate_p256().unwrap(),
            TeeKey::generate_rsa2048().unwrap(),
        ] {
            for plaintext in [&b""[..], b"secret", &[7; 5000]] {
                let jwe = seal(plaintext, &recipient(&key)).unwrap();
                assert_eq!(&**kbs_client::open(&jwe, &key).unwrap(), plaintext);
            }
        }
    }

    #[test]
    fn the_protected_header_is_in_the_order_stock_clients_write_it() {
        let header = |key: &TeeKey| {
            let jwe: Value = serde_json::from_slice(&seal(b"x", &recipient(key)).unwrap()).unwrap();
            let protected = URL_SAFE_NO_PAD
                .decode(jwe["protected"].as_str().unwrap())
                .unwrap();
            String::from_utf8(protected).unwrap()
        };
        let ec = header(&TeeKey::generate_p256().unwrap());
        let start =
            r#"{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-256","kty":"EC","x":""#;
        assert!(ec.starts_with(start), "{ec}");
        assert_eq!(
            header(&TeeKey::generate_rsa2048().unwrap()),
            r#"{"alg":"RSA-OAEP-256","enc":"A256GCM"}"#
        );
    }

    #[test]
    fn no_two_answers_share_a_key() {
        let key = TeeKey::generate_p256().unwrap();
        let sealed =
            || -> Value { serde_json::from_slice(&seal(b"x", &recipient(&key)).unwrap()).unwrap() };
        let (one, two) = (sealed(), sealed());
        for member in ["protected", "encrypted_key", "iv"] {
            assert_ne!(one[member], two[member], "{member}");
        }
    }

    #[test]
    fn kdf_info_is_made_of_the_parts_of_rfc_7518() {
        let algorithm = ECDH_ES_A256KW.as_bytes();
        let length = u32::try_from(algorithm.len()).unwrap().to_be_bytes();
        let parts = [
            &length[..],
            algorithm,
            &[0; 4],
            &[0; 4],
            &256_u32.to_be_bytes(),
        ]
        .concat();
        assert_eq!(KDF_INFO, parts);
    }
}
