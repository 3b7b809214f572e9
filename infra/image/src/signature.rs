//! The signature section: who vouches for PCR0.
//!
//! CBOR, one element: `[{"signing_certificate": PEM, "signature": COSE_Sign1}]`, both as arrays of integers. The COSE payload is
//! `{"register_index": 0, "register_value": PCR0}`. The hypervisor checks it at start, together with the certificate's dates,
//! and puts the certificate into PCR8.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED, EcdsaKeyPair, EcdsaVerificationAlgorithm, KeyPair as _,
    UnparsedPublicKey,
};
use ciborium::Value;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::digest::{Pcr, Sha384Digest};
use crate::error::SignatureError;

/// `18`, COSE_Sign1 (RFC 9052 section 4.2). Builders leave it out; readers take both.
const COSE_SIGN1: u64 = 18;
/// The `alg` header (RFC 9052 section 3.1).
const ALGORITHM: i8 = 1;
/// ES384 (RFC 9053 section 2.1).
const ES384: i8 = -35;

/// A signature of this image's PCR0 that was checked. Whether its certificate is to be trusted is told by PCR8, or by whoever
/// compares [`certificate_der`](Self::certificate_der).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    certificate: Vec<u8>,
    subject: String,
    not_after: SystemTime,
    section: Sha384Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PcrSignature {
    signing_certificate: Vec<u8>,
    signature: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PcrInfo {
    register_index: u8,
    register_value: Vec<u8>,
}

impl Signature {
    pub(crate) fn verify(section: &[u8], pcr0: &Pcr) -> Result<Self, SignatureError> {
        let [entry] = <[PcrSignature; 1]>::try_from(decode::<Vec<_>>(section)?)
            .ok()
            .ok_or(SignatureError::Structure)?;
        let certificate = certificate(&entry.signing_certificate)?;
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .ok()
            .filter(|(rest, _)| rest.is_empty())
            .ok_or(SignatureError::Certificate)?;
        let message = Sign1::decode(&entry.signature)?;
        let signed: PcrInfo = decode(&message.payload)?;
        if signed.register_index != 0 || signed.register_value != pcr0.as_bytes() {
            return Err(SignatureError::OtherImage {
                index: signed.register_index,
                signed: hex::encode(&signed.register_value),
                actual: pcr0.to_string(),
            });
        }
        // A point of another curve has another length, and is refused as no key of this algorithm.
        let point = &parsed.public_key().subject_public_key.data;
        UnparsedPublicKey::new(message.algorithm()?, point)
            .verify(&message.to_be_signed()?, &message.signature)
            .ok()
            .ok_or(SignatureError::Invalid)?;
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            subject: parsed.subject().to_string(),
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            certificate,
            section: Sha384Digest::of(section),
        })
    }

    /// PCR8: one extension, by the SHA-384 of the DER certificate.
    pub fn pcr8(&self) -> Pcr {
        Pcr::first(self.certificate_sha384().as_bytes())
    }

    /// The signer's certificate. Nobody checked who made it.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// Its digest.
    pub fn certificate_sha384(&self) -> Sha384Digest {
        Sha384Digest::of(&self.certificate)
    }

    /// Its subject, as it says. May have anything in it; escape before printing.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// From then on no enclave starts from this image.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Digest of the section itself, which differs from signing to signing.
    pub fn section_sha384(&self) -> Sha384Digest {
        self.section
    }
}

/// Makes the signature section for an image with this PCR0: ES384, as the official builder does. A signature is random: the
/// signed file is not reproducible, its measurements are.
///
/// `certificate` and `key` are PEM: one X.509 certificate, and its P-384 private key in PKCS#8.
///
/// # Errors
/// [`SignatureError::Certificate`] and [`SignatureError::SigningKey`].
pub fn sign(pcr0: &Pcr, certificate_pem: &[u8], key_pem: &[u8]) -> Result<Vec<u8>, SignatureError> {
    let der = certificate(certificate_pem)?;
    let (_, parsed) = X509Certificate::from_der(&der)
        .ok()
        .ok_or(SignatureError::Certificate)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(key_pem)
        .ok()
        .and_then(|key| {
            EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.secret_pkcs8_der()).ok()
        })
        .filter(|key| key.public_key().as_ref() == &*parsed.public_key().subject_public_key.data)
        .ok_or(SignatureError::SigningKey)?;
    let mut message = Sign1 {
        protected: encode(&Value::Map(vec![(ALGORITHM.into(), ES384.into())]))?,
        payload: encode(&PcrInfo {
            register_index: 0,
            register_value: pcr0.as_bytes().to_vec(),
        })?,
        signature: Vec::new(),
    };
    let signature = key
        .sign(&SystemRandom::new(), &message.to_be_signed()?)
        .ok()
        .ok_or(SignatureError::SigningKey)?;
    message.signature = signature.as_ref().to_vec();
    encode(&[PcrSignature {
        signing_certificate: certificate_pem.to_vec(),
        signature: message.encode()?,
    }])
}

/// COSE_Sign1 (RFC 9052 section 4.2) with an empty unprotected header.
struct Sign1 {
    protected: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Sign1 {
    fn decode(bytes: &[u8]) -> Result<Self, SignatureError> {
        let parts = match decode(bytes)? {
            Value::Tag(COSE_SIGN1, inner) => *inner,
            value => value,
        };
        let parts: [Value; 4] = parts
            .into_array()
            .ok()
            .and_then(|parts| parts.try_into().ok())
            .ok_or(SignatureError::Structure)?;
        match parts {
            [
                Value::Bytes(protected),
                Value::Map(unprotected),
                Value::Bytes(payload),
                Value::Bytes(signature),
            ] if unprotected.is_empty() => Ok(Self {
                protected,
                payload,
                signature,
            }),
            _ => Err(SignatureError::Structure),
        }
    }

    fn encode(self) -> Result<Vec<u8>, SignatureError> {
        encode(&Value::Array(vec![
            Value::Bytes(self.protected),
            Value::Map(Vec::new()),
            Value::Bytes(self.payload),
            Value::Bytes(self.signature),
        ]))
    }

    /// The protected header has the algorithm and nothing else.
    fn algorithm(&self) -> Result<&'static EcdsaVerificationAlgorithm, SignatureError> {
        let header: Value = decode(&self.protected)?;
        let named =
            |algorithm: i8| header == Value::Map(vec![(ALGORITHM.into(), algorithm.into())]);
        [
            (-7, &ECDSA_P256_SHA256_FIXED),
            (ES384, &ECDSA_P384_SHA384_FIXED),
            (-36, &ECDSA_P521_SHA512_FIXED),
        ]
        .into_iter()
        .find(|(algorithm, _)| named(*algorithm))
        .map(|(_, verification)| verification)
        .ok_or(SignatureError::Algorithm)
    }

    /// Sig_structure (RFC 9052 section 4.4), without external data.
    fn to_be_signed(&self) -> Result<Vec<u8>, SignatureError> {
        encode(&Value::Array(vec![
            Value::Text("Signature1".into()),
            Value::Bytes(self.protected.clone()),
            Value::Bytes(Vec::new()),
            Value::Bytes(self.payload.clone()),
        ]))
    }
}

/// Exactly one certificate, or there would be a choice of what PCR8 is.
fn certificate(pem: &[u8]) -> Result<Vec<u8>, SignatureError> {
    let mut certificates = CertificateDer::pem_slice_iter(pem);
    match (certificates.next(), certificates.next()) {
        (Some(Ok(certificate)), None) => Ok(certificate.to_vec()),
        _ => Err(SignatureError::Certificate),
    }
}

fn decode<T: serde::de::DeserializeOwned>(mut bytes: &[u8]) -> Result<T, SignatureError> {
    ciborium::from_reader(&mut bytes)
        .ok()
        .filter(|_| bytes.is_empty())
        .ok_or(SignatureError::Structure)
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, SignatureError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes)
        .ok()
        .ok_or(SignatureError::Structure)?;
    Ok(bytes)
}
