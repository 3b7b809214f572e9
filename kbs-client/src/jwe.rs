//! Opening the broker's answer: a flattened JWE (RFC 7516 §7.2.2) to one recipient, read strictly.
//!
//! | check | why |
//! |---|---|
//! | `alg` is the one of the key we offered, `enc` is A256GCM | the sender does not choose how weak it gets |
//! | no member but the known ones, in body and header | `crit`, `zip`, a second header: nothing we would ignore |
//! | `epk` on our curve, checked by the library | an invalid-curve point would read our key bit by bit |
//! | iv 12, tag 16, wrapped key of its algorithm's length | no truncated tags |
//! | associated data is the received `protected` text | RFC 7516 §5.2 step 14; never a re-serialisation |

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, ECDH_P256};
use aws_lc_rs::kdf::{SskdfDigestAlgorithmId, get_sskdf_digest_algorithm, sskdf_digest};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap as _};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::tee_key::{ECDH_ES_A256KW, P256, Private, TeeKey};

/// A data key is 32 bytes; this leaves room for any secret an owner may keep with a broker, and bounds the work.
pub(crate) const MAX_JWE: usize = 128 * 1024;
/// Algorithm, encryption and an ephemeral key: under 300 bytes.
const MAX_HEADER: usize = 2 * 1024;
const IV_LEN: usize = 12;
const TAG_LEN: usize = 16;
const CEK_LEN: usize = 32;
/// AES key wrap adds one block of eight octets (RFC 3394 §2.2.1).
const WRAPPED_LEN: usize = CEK_LEN + 8;

/// Why a JWE was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JweError {
    /// Over 128 KiB, or a protected header over 2 KiB.
    #[error("too large")]
    TooLarge,
    /// Not a flattened JWE with exactly the members we know.
    #[error("not a flattened jwe of known members")]
    Shape,
    /// The protected header is not JSON with exactly the members we know.
    #[error("protected header is not one of known members")]
    Header,
    /// Another algorithm than the one of the key we offered.
    #[error("alg is not the one of our key")]
    Algorithm,
    /// Not A256GCM.
    #[error("enc is not A256GCM")]
    Encryption,
    /// A member is not base64url without padding, or has another length than its algorithm gives it.
    #[error("{0}: wrong encoding or length")]
    Length(&'static str),
    /// The ephemeral key is absent, present where none belongs, or not a point of our curve.
    #[error("ephemeral key is not a point of our curve")]
    EphemeralKey,
    /// Not made for this key, or changed on the way. One error for every step, so that nothing can be learnt from it.
    #[error("does not open under our key")]
    Decrypt,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flattened<'a> {
    #[serde(borrow)]
    protected: &'a str,
    #[serde(borrow)]
    encrypted_key: &'a str,
    #[serde(borrow)]
    iv: &'a str,
    #[serde(borrow)]
    ciphertext: &'a str,
    #[serde(borrow)]
    tag: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    enc: String,
    epk: Option<EphemeralKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EphemeralKey {
    crv: String,
    kty: String,
    x: String,
    y: String,
}

/// Opens `jwe` with `key`.
///
/// # Errors
/// The first check that fails; see [`JweError`].
pub fn open(jwe: &[u8], key: &TeeKey) -> Result<Zeroizing<Vec<u8>>, JweError> {
    if jwe.len() > MAX_JWE {
        return Err(JweError::TooLarge);
    }
    let Ok(jwe) = serde_json::from_slice::<Flattened<'_>>(jwe) else {
        return Err(JweError::Shape);
    };
    if jwe.protected.len() > MAX_HEADER {
        return Err(JweError::TooLarge);
    }
    let Ok(header) = serde_json::from_slice::<Header>(&decode(jwe.protected, "protected")?) else {
        return Err(JweError::Header);
    };
    if header.alg != key.algorithm() {
        return Err(JweError::Algorithm);
    }
    if header.enc != "A256GCM" {
        return Err(JweError::Encryption);
    }
    let wrapped = decode(jwe.encrypted_key, "encrypted_key")?;
    let iv: [u8; IV_LEN] = exact(jwe.iv, "iv")?;
    let tag: [u8; TAG_LEN] = exact(jwe.tag, "tag")?;
    let mut sealed = Zeroizing::new(decode(jwe.ciphertext, "ciphertext")?);
    let cek = match (&key.private, header.epk) {
        (Private::P256(private), Some(epk)) => unwrap_ecdh(private, &epk, &wrapped)?,
        (Private::Rsa(private), None) => unwrap_rsa(private, &wrapped)?,
        (Private::P256(_), None) | (Private::Rsa(_), Some(_)) => {
            return Err(JweError::EphemeralKey);
        }
    };

    sealed.extend_from_slice(&tag);
    let Ok(cek) = UnboundKey::new(&AES_256_GCM, cek.as_slice()) else {
        return Err(JweError::Decrypt);
    };
    let length = LessSafeKey::new(cek)
        .open_in_place(
            Nonce::assume_unique_for_key(iv),
            Aad::from(jwe.protected.as_bytes()),
            sealed.as_mut_slice(),
        )
        .map(|plaintext| plaintext.len());
    let Ok(length) = length else {
        return Err(JweError::Decrypt);
    };
    sealed.truncate(length);
    Ok(sealed)
}

fn unwrap_ecdh(
    private: &agreement::PrivateKey,
    epk: &EphemeralKey,
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, JweError> {
    if epk.kty != "EC" || epk.crv != P256 {
        return Err(JweError::EphemeralKey);
    }
    if wrapped.len() != WRAPPED_LEN {
        return Err(JweError::Length("encrypted_key"));
    }
    let x: [u8; 32] = exact(&epk.x, "epk")?;
    let y: [u8; 32] = exact(&epk.y, "epk")?;
    let point = [&[4][..], &x, &y].concat();
    let peer = agreement::UnparsedPublicKey::new(&ECDH_P256, point);
    let kek = agreement::agree(private, peer, JweError::EphemeralKey, |secret| {
        let mut kek = Zeroizing::new([0; 32]);
        concat_kdf(secret, ECDH_ES_A256KW, b"", b"", kek.as_mut_slice())?;
        Ok(kek)
    })?;
    let mut cek = Zeroizing::new(vec![0; CEK_LEN]);
    match AesKek::new(&AES_256, kek.as_slice()).and_then(|kek| kek.unwrap(wrapped, &mut cek)) {
        Ok(unwrapped) if unwrapped.len() == CEK_LEN => {}
        _ => return Err(JweError::Decrypt),
    }
    Ok(cek)
}

fn unwrap_rsa(
    private: &OaepPrivateDecryptingKey,
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, JweError> {
    if wrapped.len() != private.key_size_bytes() {
        return Err(JweError::Length("encrypted_key"));
    }
    let mut out = Zeroizing::new(vec![0; private.min_output_size()]);
    let length = match private.decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut out, None) {
        Ok(cek) if cek.len() == CEK_LEN => cek.len(),
        _ => return Err(JweError::Decrypt),
    };
    out.truncate(length);
    Ok(out)
}

/// Concat KDF with SHA-256 (RFC 7518 §4.6.2; NIST SP 800-56A §5.8.1): `out.len()` octets for `algorithm`.
fn concat_kdf(
    secret: &[u8],
    algorithm: &str,
    apu: &[u8],
    apv: &[u8],
    out: &mut [u8],
) -> Result<(), JweError> {
    let mut info = Vec::new();
    for part in [algorithm.as_bytes(), apu, apv] {
        info.extend_from_slice(&u32_of(part.len())?);
        info.extend_from_slice(part);
    }
    info.extend_from_slice(&u32_of(out.len().saturating_mul(8))?);
    let digest = get_sskdf_digest_algorithm(SskdfDigestAlgorithmId::Sha256);
    match digest.map(|digest| sskdf_digest(digest, secret, &info, out)) {
        Some(Ok(())) => Ok(()),
        _ => Err(JweError::Decrypt),
    }
}

fn u32_of(length: usize) -> Result<[u8; 4], JweError> {
    match u32::try_from(length) {
        Ok(length) => Ok(length.to_be_bytes()),
        Err(_) => Err(JweError::TooLarge),
    }
}

fn decode(text: &str, member: &'static str) -> Result<Vec<u8>, JweError> {
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(JweError::Length(member)),
    }
}

fn exact<const N: usize>(text: &str, member: &'static str) -> Result<[u8; N], JweError> {
    match decode(text, member)?.try_into() {
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(JweError::Length(member)),
    }
}

#[cfg(test)]
mod tests;
