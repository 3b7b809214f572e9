//! `CiphertextForRecipient`: a CMS EnvelopedData (RFC 5652 §6) in the one shape that KMS gives it, in BER.
//!
//! ```text
//! ContentInfo            envelopedData
//!   EnvelopedData        version 2, no originatorInfo, no unprotected attributes
//!     RecipientInfos     exactly one KeyTransRecipientInfo, version 2
//!       [0] key id       SHA-256 of the public key in the document (DER SubjectPublicKeyInfo)
//!       RSAES-OAEP       SHA-256, MGF1 with SHA-256, empty label (RFC 4055 §4.1)
//!       encryptedKey     256 bytes
//!     EncryptedContent   data, AES-256-CBC (RFC 3565) with a 16-byte iv
//!       [0] octets       in one piece or in several
//! ```
//! Constructed values may be of definite or indefinite length; everything else has one spelling. The envelope authenticates
//! nobody: whoever knows the public key can make one.

use crate::ber::{
    CONTEXT_0, CONTEXT_0_CONSTRUCTED, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE,
    SET, Unexpected,
};

/// The limit of `CiphertextForRecipient` in the service's model.
pub const MAX_ENVELOPE: usize = 6144;

pub(crate) const RSA_BYTES: usize = 256;
const BLOCK: usize = 16;

/// 1.2.840.113549.1.7.3
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
/// 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 2.16.840.1.101.3.4.1.42
const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];
/// The whole AlgorithmIdentifier: 1.2.840.113549.1.1.7 with `[0]` SHA-256 (2.16.840.1.101.3.4.2.1, NULL) and `[1]` MGF1
/// (1.2.840.113549.1.1.8) with the same.
const RSAES_OAEP_SHA256: &[u8] = &[
    0x30, 0x3c, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07, 0x30, 0x2f, 0xa0,
    0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30,
    0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
];
/// The same as OpenSSL writes it, without the NULL: RFC 4055 §2.1 wants both accepted.
const RSAES_OAEP_SHA256_BARE: &[u8] = &[
    0x30, 0x38, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07, 0x30, 0x2b, 0xa0,
    0x0d, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0xa1, 0x1a,
    0x30, 0x18, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30, 0x0b, 0x06,
    0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
];
const VERSION_2: &[u8] = &[2];

/// The parts of an envelope that has the right shape. Nothing in it has been decrypted or authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// SHA-256 of the recipient's SubjectPublicKeyInfo, as the sender says.
    pub recipient: [u8; 32],
    pub(crate) encrypted_key: [u8; RSA_BYTES],
    pub(crate) iv: [u8; BLOCK],
    /// Whole blocks, at least one.
    pub(crate) content: Vec<u8>,
}

/// The bytes are no envelope of the shape that KMS makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an envelope of the shape that KMS makes")]
pub struct NoEnvelope;

impl Envelope {
    /// Reads the one shape, whole: no byte may be left.
    ///
    /// # Errors
    /// [`NoEnvelope`], which says no more: what it is about is public, and the reader of a log cannot act on it.
    pub fn parse(ber: &[u8]) -> Result<Self, NoEnvelope> {
        if ber.len() > MAX_ENVELOPE {
            return Err(NoEnvelope);
        }
        let mut reader = Reader::new(ber);
        match content_info(&mut reader).and_then(|envelope| reader.end().map(|()| envelope)) {
            Ok(envelope) => Ok(envelope),
            Err(Unexpected) => Err(NoEnvelope),
        }
    }

    /// Bytes of ciphertext, whole blocks of 16.
    pub fn content_len(&self) -> usize {
        self.content.len()
    }
}

fn content_info(reader: &mut Reader<'_>) -> Result<Envelope, Unexpected> {
    reader.constructed(SEQUENCE, |info| {
        info.constant(OBJECT_IDENTIFIER, ENVELOPED_DATA)?;
        info.constructed(CONTEXT_0_CONSTRUCTED, |content| {
            content.constructed(SEQUENCE, enveloped_data)
        })
    })
}

fn enveloped_data(reader: &mut Reader<'_>) -> Result<Envelope, Unexpected> {
    reader.constant(INTEGER, VERSION_2)?;
    let (recipient, encrypted_key) = reader.constructed(SET, |recipients| {
        recipients.constructed(SEQUENCE, |recipient| {
            recipient.constant(INTEGER, VERSION_2)?;
            let id = array(recipient.primitive(CONTEXT_0)?)?;
            recipient
                .literal(RSAES_OAEP_SHA256)
                .or_else(|Unexpected| recipient.literal(RSAES_OAEP_SHA256_BARE))?;
            Ok((id, array(recipient.primitive(OCTET_STRING)?)?))
        })
    })?;
    let (iv, content) = reader.constructed(SEQUENCE, |info| {
        info.constant(OBJECT_IDENTIFIER, DATA)?;
        let iv = info.constructed(SEQUENCE, |algorithm| {
            algorithm.constant(OBJECT_IDENTIFIER, AES_256_CBC)?;
            array(algorithm.primitive(OCTET_STRING)?)
        })?;
        Ok((iv, octets(info)?))
    })?;
    if content.is_empty() || !content.len().is_multiple_of(BLOCK) {
        return Err(Unexpected);
    }
    Ok(Envelope {
        recipient,
        encrypted_key,
        iv,
        content,
    })
}

/// `[0] IMPLICIT OCTET STRING`: primitive, or constructed of primitive pieces (X.690 §8.7).
fn octets(reader: &mut Reader<'_>) -> Result<Vec<u8>, Unexpected> {
    if reader.peek() == Some(CONTEXT_0) {
        return Ok(reader.primitive(CONTEXT_0)?.to_vec());
    }
    reader.constructed(CONTEXT_0_CONSTRUCTED, |pieces| {
        let mut octets = Vec::new();
        while pieces.peek() == Some(OCTET_STRING) {
            // No empty pieces: they would be many ways to write the same. The whole is bounded by the message.
            match pieces.primitive(OCTET_STRING)? {
                [] => return Err(Unexpected),
                piece => octets.extend_from_slice(piece),
            }
        }
        Ok(octets)
    })
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Unexpected> {
    bytes
        .first_chunk()
        .copied()
        .filter(|_| bytes.len() == N)
        .ok_or(Unexpected)
}
