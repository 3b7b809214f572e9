//! A writer of envelopes in the form of KMS, of which each part can be made wrong.

use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

const OAEP_SHA256: &[u8] = &[
    0x30, 0x3c, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07, 0x30, 0x2f, 0xa0,
    0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30,
    0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
];
/// rsaEncryption: PKCS#1 v1.5.
pub(crate) const RSA: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
/// id-RSAES-OAEP with the defaults, SHA-1.
pub(crate) const OAEP_SHA1: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07, 0x30, 0x00,
];
/// SHA-256, and `[2]` a label.
pub(crate) const OAEP_LABEL: &[u8] = &[
    0x30, 0x4d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07, 0x30, 0x40, 0xa0,
    0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30,
    0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0xa2, 0x0f,
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x09, 0x04, 0x00,
];

#[derive(Clone, Copy)]
pub(crate) enum Content {
    Primitive,
    Pieces(usize),
    EmptyPiece,
    Nested,
    Absent,
}

#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) indefinite: bool,
    pub(crate) content: Content,
    pub(crate) version: u8,
    pub(crate) recipient_version: u8,
    pub(crate) recipients: usize,
    pub(crate) outer_type: Vec<u8>,
    pub(crate) inner_type: Vec<u8>,
    pub(crate) key_algorithm: Vec<u8>,
    pub(crate) cipher: Vec<u8>,
    pub(crate) key_id: Vec<u8>,
    pub(crate) encrypted_key: Vec<u8>,
    pub(crate) iv: Vec<u8>,
    pub(crate) ciphertext: Vec<u8>,
    pub(crate) originator_info: bool,
    pub(crate) attributes: bool,
    pub(crate) trailing: Vec<u8>,
}

impl Writer {
    /// Nothing sealed: the shape alone.
    pub(crate) fn blank() -> Self {
        Self {
            indefinite: true,
            content: Content::Pieces(20),
            version: 2,
            recipient_version: 2,
            recipients: 1,
            outer_type: vec![0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03],
            inner_type: vec![0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01],
            key_algorithm: OAEP_SHA256.to_vec(),
            cipher: vec![0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a],
            key_id: vec![1; 32],
            encrypted_key: vec![2; 256],
            iv: vec![3; 16],
            ciphertext: vec![4; 48],
            originator_info: false,
            attributes: false,
            trailing: vec![],
        }
    }

    /// `secret` for the key `spki`.
    pub(crate) fn sealed(spki: &[u8], secret: &[u8]) -> Self {
        let mut key = [0; 32];
        let mut iv = [0; 16];
        rand::fill(&mut key).unwrap();
        rand::fill(&mut iv).unwrap();
        let mut ciphertext = secret.to_vec();
        PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, &key).unwrap())
            .unwrap()
            .less_safe_encrypt(
                &mut ciphertext,
                EncryptionContext::Iv128(FixedLength::from(iv)),
            )
            .unwrap();
        Self {
            content: Content::Pieces(1000),
            key_id: digest(&SHA256, spki).as_ref().to_vec(),
            encrypted_key: oaep(spki, &key),
            iv: iv.to_vec(),
            ciphertext,
            ..Self::blank()
        }
    }

    /// The values of a message of the service, found at their fixed places from either end of its head.
    pub(crate) fn of(message: &[u8]) -> Self {
        let after = |mark: &[u8], length: usize| {
            let at = message
                .windows(mark.len())
                .position(|window| window == mark)
                .unwrap()
                + mark.len();
            message[at..at + length].to_vec()
        };
        let cipher = [
            0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a, 0x04, 0x10,
        ];
        let at = message
            .windows(cipher.len())
            .position(|window| window == cipher)
            .unwrap()
            + cipher.len()
            + 16;
        Self {
            key_id: after(&[0x02, 0x01, 0x02, 0x80, 0x20], 32),
            encrypted_key: after(&[OAEP_SHA256, &[0x04, 0x82, 0x01, 0x00]].concat(), 256),
            iv: after(&cipher, 16),
            ciphertext: pieces(&message[at..]),
            ..Self::blank()
        }
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let recipient = tlv(
            0x30,
            &[
                tlv(2, &[self.recipient_version]),
                tlv(0x80, &self.key_id),
                self.key_algorithm.clone(),
                tlv(4, &self.encrypted_key),
            ]
            .concat(),
        );
        let algorithm = tlv(0x30, &[tlv(6, &self.cipher), tlv(4, &self.iv)].concat());
        let info = [tlv(6, &self.inner_type), algorithm, self.octets()].concat();
        let mut data = tlv(2, &[self.version]);
        if self.originator_info {
            data.extend(tlv(0xa0, &[]));
        }
        data.extend(tlv(0x31, &recipient.repeat(self.recipients)));
        data.extend(self.open(0x30, &info));
        if self.attributes {
            data.extend(tlv(0xa1, &tlv(0x30, &[])));
        }
        let content = self.open(0xa0, &self.open(0x30, &data));
        let mut message = self.open(0x30, &[tlv(6, &self.outer_type), content].concat());
        message.extend(&self.trailing);
        message
    }

    fn octets(&self) -> Vec<u8> {
        let piece = |bytes: &[u8]| tlv(4, bytes);
        match self.content {
            Content::Primitive => tlv(0x80, &self.ciphertext),
            Content::Pieces(size) => {
                let pieces: Vec<u8> = self.ciphertext.chunks(size).flat_map(piece).collect();
                self.open(0xa0, &pieces)
            }
            Content::EmptyPiece => self.open(0xa0, &[piece(&self.ciphertext), piece(&[])].concat()),
            Content::Nested => self.open(0xa0, &tlv(0x24, &piece(&self.ciphertext))),
            Content::Absent => vec![],
        }
    }

    fn open(&self, tag: u8, content: &[u8]) -> Vec<u8> {
        match self.indefinite {
            true => [&[tag, 0x80], content, &[0, 0]].concat(),
            false => tlv(tag, content),
        }
    }
}

pub(crate) fn oaep(spki: &[u8], secret: &[u8]) -> Vec<u8> {
    let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(spki).unwrap()).unwrap();
    let mut out = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, secret, &mut out, None)
        .unwrap();
    out
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..=0x7f => vec![tag, u8::try_from(length).unwrap()],
        0x80..=0xff => vec![tag, 0x81, u8::try_from(length).unwrap()],
        _ => {
            let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
            vec![tag, 0x82, high, low]
        }
    };
    [head, content.to_vec()].concat()
}

/// The octets of a `[0]` in one piece or several.
fn pieces(mut rest: &[u8]) -> Vec<u8> {
    let take = |bytes: &mut &[u8]| {
        let (length, head) = match bytes[1] {
            0x82 => (usize::from(bytes[2]) << 8 | usize::from(bytes[3]), 4),
            0x81 => (usize::from(bytes[2]), 3),
            short => (usize::from(short), 2),
        };
        let piece = bytes[head..head + length].to_vec();
        *bytes = &bytes[head + length..];
        piece
    };
    if rest[0] == 0x80 {
        return take(&mut rest);
    }
    rest = &rest[2..];
    let mut octets = vec![];
    while rest[0] == 4 {
        octets.extend(take(&mut rest));
    }
    octets
}
