//! `CiphertextForRecipient`, as the service writes it: BER, indefinite lengths, content in pieces of 1000 bytes (RFC 5652 §6).

use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use zeroize::Zeroizing;

const ENVELOPED_DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3];
const DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const AES_256_CBC: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 0x2a];
const RSAES_OAEP: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7];
const MGF1: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
const SHA_256: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 0x05, 0];
const VERSION_2: &[u8] = &[0x02, 1, 2];
const PIECE: usize = 1000;

/// `plaintext` for the RSA key `spki` (DER SubjectPublicKeyInfo).
///
/// # Errors
/// `spki` is no RSA key, or too small a one for OAEP.
pub(super) fn envelope(spki: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Unspecified> {
    let mut key = Zeroizing::new([0; 32]);
    let mut iv = [0; 16];
    rand::fill(key.as_mut_slice())?;
    rand::fill(&mut iv)?;
    let mut content = plaintext.to_vec();
    PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, key.as_slice())?)?
        .less_safe_encrypt(
            &mut content,
            EncryptionContext::Iv128(FixedLength::from(iv)),
        )?;
    let Ok(recipient) = PublicEncryptingKey::from_der(spki) else {
        return Err(Unspecified);
    };
    let recipient = OaepPublicEncryptingKey::new(recipient)?;
    let mut encrypted_key = vec![0; recipient.ciphertext_size()];
    recipient.encrypt(
        &OAEP_SHA256_MGF1SHA256,
        key.as_slice(),
        &mut encrypted_key,
        None,
    )?;

    let sha256 = tlv(0x30, &[SHA_256]);
    let mgf1 = tlv(0x30, &[MGF1, &sha256]);
    let oaep = tlv(0x30, &[&tlv(0xa0, &[&sha256]), &tlv(0xa1, &[&mgf1])]);
    let recipient = tlv(
        0x30,
        &[
            VERSION_2,
            &tlv(0x80, &[digest(&SHA256, spki).as_ref()]),
            &tlv(0x30, &[RSAES_OAEP, &oaep]),
            &tlv(0x04, &[&encrypted_key]),
        ],
    );
    let pieces: Vec<u8> = content
        .chunks(PIECE)
        .flat_map(|piece| tlv(0x04, &[piece]))
        .collect();
    let cipher = tlv(0x30, &[AES_256_CBC, &tlv(0x04, &[&iv])]);
    let info = indefinite(0x30, &[DATA, &cipher, &indefinite(0xa0, &[&pieces])]);
    let data = indefinite(0x30, &[VERSION_2, &tlv(0x31, &[&recipient]), &info]);
    Ok(indefinite(
        0x30,
        &[ENVELOPED_DATA, &indefinite(0xa0, &[&data])],
    ))
}

fn indefinite(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[tag, 0x80], parts.concat().as_slice(), &[0, 0]].concat()
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let head = match content.len().to_be_bytes() {
        [.., 0, low @ 0..=0x7f] => vec![tag, low],
        [.., 0, low] => vec![tag, 0x81, low],
        [.., high, low] => vec![tag, 0x82, high, low],
    };
    [head, content].concat()
}
