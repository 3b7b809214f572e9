use std::fmt;

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    ParsedPublicKey,
};
use zeroize::Zeroizing;

use crate::{Error, Sha256Digest, pem};

/// DER of a P-256 SubjectPublicKeyInfo up to the point (RFC 5480 §2): with named curve and an uncompressed point there is one form.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT_LEN: usize = 65;

/// Who may publish a model: an ECDSA P-256 public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublisherKey {
    point: [u8; POINT_LEN],
}

impl PublisherKey {
    /// From a SubjectPublicKeyInfo PEM (`BEGIN PUBLIC KEY`).
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let der = pem::decode("PUBLIC KEY", text).ok_or(Error::Key {
            what: "publisher key",
            problem: "is not one PEM block of a PUBLIC KEY",
        })?;
        let point = der.strip_prefix(&SPKI_PREFIX).unwrap_or_default();
        Self::from_point(point).ok_or(Error::Key {
            what: "publisher key",
            problem: "is not an uncompressed P-256 key",
        })
    }

    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki()).to_string()
    }

    /// SHA-256 of the DER SubjectPublicKeyInfo.
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(&self.spki())
    }

    /// [`Self::digest`] in hex: how messages, envelopes and configurations name a publisher.
    pub fn id(&self) -> String {
        self.digest().to_string()
    }

    /// Whether this key signed the message that has this digest. Only a digest that the caller computed itself means anything.
    pub fn verify_digest(&self, digest: &Sha256Digest, signature: &[u8]) -> bool {
        let (Ok(digest), Ok(key)) = (
            Digest::import_less_safe(digest.as_bytes(), &SHA256),
            ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.point),
        ) else {
            return false;
        };
        key.verify_digest_sig(&digest, signature).is_ok()
    }

    fn from_point(point: &[u8]) -> Option<Self> {
        let point: [u8; POINT_LEN] = point.try_into().ok()?;
        // Parsing checks that the point lies on the curve.
        ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).ok()?;
        (point.first() == Some(&0x04)).then_some(Self { point })
    }

    fn spki(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), self.point.as_slice()].concat()
    }
}

impl fmt::Debug for PublisherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublisherKey({})", self.id())
    }
}

/// A publisher's private key: ECDSA P-256.
pub struct SigningKey(EcdsaKeyPair);

impl SigningKey {
    pub fn generate() -> Result<Self, Error> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map(Self)
            .map_err(|Unspecified| Error::Internal("no P-256 key could be made"))
    }

    /// From a PKCS#8 PEM (`BEGIN PRIVATE KEY`).
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let der = pem::decode("PRIVATE KEY", text).ok_or(Error::Key {
            what: "signing key",
            problem: "is not one PEM block of a PRIVATE KEY (convert with: openssl pkcs8 -topk8 -nocrypt)",
        })?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der)
            .map(Self)
            .ok()
            .ok_or(Error::Key {
                what: "signing key",
                problem: "is not a P-256 key in PKCS#8",
            })
    }

    pub fn to_pem(&self) -> Result<Zeroizing<String>, Error> {
        let der = self
            .0
            .to_pkcs8v1()
            .map_err(|Unspecified| Error::Internal("a P-256 key has a PKCS#8 form"))?;
        Ok(pem::encode("PRIVATE KEY", der.as_ref()))
    }

    pub fn public(&self) -> Result<PublisherKey, Error> {
        PublisherKey::from_point(self.0.public_key().as_ref())
            .ok_or(Error::Internal("a P-256 key has an uncompressed point"))
    }

    /// A signature, in DER, of the message that has this digest: for what is too large to be held in memory.
    ///
    /// One key signs several kinds of messages, so each kind has to begin with what no other can begin with (DSSE's `DSSEv1 `
    /// and type). That rule is the caller's, who knows the message.
    pub fn sign_digest(&self, digest: &Sha256Digest) -> Result<Vec<u8>, Error> {
        Digest::import_less_safe(digest.as_bytes(), &SHA256)
            .and_then(|digest| self.0.sign_digest(&digest))
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|Unspecified| Error::Internal("an ECDSA signature could not be made"))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;

    use super::*;

    /// `openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt`, and its `openssl ec -pubout`.
    const OPENSSL_PRIVATE: &str = include_str!("../tests/data/openssl-p256.key.pem");
    const OPENSSL_PUBLIC: &str = include_str!("../tests/data/openssl-p256.pub.pem");

    #[test]
    fn keys_of_openssl_are_read_and_written_back_the_same() {
        let signing = SigningKey::from_pem(OPENSSL_PRIVATE).unwrap();
        let public = PublisherKey::from_pem(OPENSSL_PUBLIC).unwrap();
        assert_eq!(signing.public().unwrap(), public);
        assert_eq!(public.to_pem(), OPENSSL_PUBLIC);
        assert_eq!(*signing.to_pem().unwrap(), OPENSSL_PRIVATE);
    }

    #[test]
    fn a_signature_holds_for_one_message_and_one_key() {
        let key = SigningKey::generate().unwrap();
        let (digest, other) = (Sha256Digest::of(b"message"), Sha256Digest::of(b"massage"));
        let signature = key.sign_digest(&digest).unwrap();
        assert!(key.public().unwrap().verify_digest(&digest, &signature));
        assert!(!key.public().unwrap().verify_digest(&other, &signature));
        let stranger = SigningKey::generate().unwrap().public().unwrap();
        assert!(!stranger.verify_digest(&digest, &signature));
    }

    #[test]
    fn a_digest_and_its_message_are_signed_alike() {
        let key = SigningKey::generate().unwrap();
        let public = key.public().unwrap();
        let (digest, other) = (Sha256Digest::of(b"message"), Sha256Digest::of(b"massage"));
        let of_digest = key.sign_digest(&digest).unwrap();
        let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public.point).unwrap();
        assert!(parsed.verify_sig(b"message", &of_digest).is_ok());
        let of_message = key.0.sign(&SystemRandom::new(), b"message").unwrap();
        assert!(public.verify_digest(&digest, of_message.as_ref()));
        assert!(!public.verify_digest(&other, of_message.as_ref()));
        assert!(!public.verify_digest(&digest, &of_message.as_ref()[1..]));
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        let p384 = include_str!("../tests/data/openssl-p384.pub.pem");
        for text in [p384, OPENSSL_PRIVATE, "", "-----BEGIN PUBLIC KEY-----"] {
            assert!(PublisherKey::from_pem(text).is_err(), "{text}");
        }
        let mut spki = SigningKey::generate().unwrap().public().unwrap().spki();
        *spki.last_mut().unwrap() ^= 1;
        assert!(
            PublisherKey::from_pem(&pem::encode("PUBLIC KEY", &spki)).is_err(),
            "a point off the curve"
        );
        assert!(SigningKey::from_pem(OPENSSL_PUBLIC).is_err());
    }
}
