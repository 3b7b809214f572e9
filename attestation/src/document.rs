//! The attestation document: COSE_Sign1 (RFC 9052) around a CBOR map (AWS `nsm-api`, attestation process).
//!
//! ```text
//! [18]? [ h'a1013822', {}, payload bstr, signature bstr(96) ]
//! payload = { module_id, digest, timestamp, pcrs, certificate, cabundle, public_key?, user_data?, nonce? }
//! ```
//! Absent optional members are written as null. The payload map was of definite length until 2025 and is of indefinite
//! length since.

use std::time::{Duration, SystemTime};

use crate::cbor::{Items, Reader};
use crate::error::StructureError;
use crate::pcr::{Pcr, Pcrs};

/// The only digest algorithm an enclave's registers use.
pub const DIGEST: &str = "SHA384";

/// COSE_Sign1 (RFC 9052 section 4.2).
const TAG_COSE_SIGN1: u64 = 18;

/// `{1: -35}`: algorithm ES384 and nothing else (RFC 9053 section 2.1).
const PROTECTED_ES384: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];

const MAX_PAYLOAD: usize = 16 * 1024;

/// Real ones are about 40 characters: `i-<instance>-enc<enclave>`.
const MAX_MODULE_ID: usize = 256;

/// The format's bound for one DER certificate.
const MAX_CERTIFICATE: usize = 1024;

/// Real bundles have four. More than eight would only buy signature checks for whoever sent them.
const MAX_BUNDLE: usize = 8;

/// The format says 512 for a request and 1024 in its grammar; what fits in a signed document is accepted.
const MAX_OPTIONAL: usize = 1024;

const REGISTERS: u64 = 32;

/// A document whose chain and signature were verified, and nothing else: not who may make it, for whom, when, or from
/// which image. For inspection; decisions need [`crate::Claims`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// The secure module: `<instance id>-enc<enclave id>`.
    pub module_id: String,
    /// When the module made the document, by the module's clock.
    pub timestamp: SystemTime,
    /// [`DIGEST`].
    pub digest: &'static str,
    /// The registers.
    pub pcrs: Pcrs,
    /// The key that the requester asked to have attested.
    pub public_key: Option<Vec<u8>>,
    /// What else the requester asked to have signed.
    pub user_data: Option<Vec<u8>>,
    /// The challenge that the requester passed on.
    pub nonce: Option<Vec<u8>>,
    /// End of the signing certificate's validity.
    pub leaf_not_after: SystemTime,
}

/// A document with the right shape. Nothing in it has been authenticated.
pub(crate) struct UnverifiedDocument<'a> {
    payload: &'a [u8],
    pub(crate) signature: &'a [u8],
    pub(crate) module_id: &'a str,
    pub(crate) timestamp: SystemTime,
    pub(crate) pcrs: Pcrs,
    pub(crate) certificate: &'a [u8],
    /// From the root down; never empty.
    pub(crate) cabundle: Vec<&'a [u8]>,
    pub(crate) public_key: Option<&'a [u8]>,
    pub(crate) user_data: Option<&'a [u8]>,
    pub(crate) nonce: Option<&'a [u8]>,
}

impl<'a> UnverifiedDocument<'a> {
    pub(crate) fn parse(document: &'a [u8]) -> Result<Self, StructureError> {
        let mut reader = Reader::new(document);
        reader.skip_tag(TAG_COSE_SIGN1)?;
        if !matches!(reader.array("COSE_Sign1")?, Items::Left(4)) {
            return Err(StructureError::Length {
                field: "COSE_Sign1",
            });
        }
        if reader.bytes("protected header", 0..=MAX_PAYLOAD)? != PROTECTED_ES384 {
            return Err(StructureError::Headers);
        }
        let mut unprotected = reader.map("unprotected header")?;
        if reader.has_next(&mut unprotected) {
            return Err(StructureError::Headers);
        }
        let payload = reader.bytes("payload", 1..=MAX_PAYLOAD)?;
        let signature = reader.bytes("signature", 96..=96)?;
        reader.end("COSE_Sign1")?;
        Self::parse_payload(payload, signature)
    }

    fn parse_payload(payload: &'a [u8], signature: &'a [u8]) -> Result<Self, StructureError> {
        let mut module_id = Member::new("module_id");
        let mut digest = Member::new("digest");
        let mut timestamp = Member::new("timestamp");
        let mut pcrs = Member::new("pcrs");
        let mut certificate = Member::new("certificate");
        let mut cabundle = Member::new("cabundle");
        let mut public_key = Member::new("public_key");
        let mut user_data = Member::new("user_data");
        let mut nonce = Member::new("nonce");

        let mut reader = Reader::new(payload);
        let mut members = reader.map("payload")?;
        while reader.has_next(&mut members) {
            let r = &mut reader;
            match r.text("member name", 0..=MAX_PAYLOAD)? {
                "module_id" => module_id.set(|field| r.text(field, 1..=MAX_MODULE_ID))?,
                "digest" => digest.set(|field| r.text(field, 0..=MAX_PAYLOAD))?,
                "timestamp" => timestamp.set(|field| read_timestamp(r, field))?,
                "pcrs" => pcrs.set(|field| read_pcrs(r, field))?,
                "certificate" => certificate.set(|field| r.bytes(field, 1..=MAX_CERTIFICATE))?,
                "cabundle" => cabundle.set(|field| read_cabundle(r, field))?,
                "public_key" => {
                    public_key.set(|field| r.optional_bytes(field, 1..=MAX_OPTIONAL))?
                }
                "user_data" => user_data.set(|field| r.optional_bytes(field, 0..=MAX_OPTIONAL))?,
                "nonce" => nonce.set(|field| r.optional_bytes(field, 0..=MAX_OPTIONAL))?,
                "nitrotpm_pcrs" => return Err(StructureError::NitroTpm),
                _ => return Err(StructureError::Unknown),
            }
        }
        reader.end("payload")?;

        if digest.required()? != DIGEST {
            return Err(StructureError::Digest);
        }
        Ok(Self {
            payload,
            signature,
            module_id: module_id.required()?,
            timestamp: timestamp.required()?,
            pcrs: pcrs.required()?,
            certificate: certificate.required()?,
            cabundle: cabundle.required()?,
            public_key: public_key.value.flatten(),
            user_data: user_data.value.flatten(),
            nonce: nonce.value.flatten(),
        })
    }

    /// What was signed (RFC 9052 section 4.4): `["Signature1", protected, h'', payload]`, around the payload's bytes as
    /// received, never re-encoded.
    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + 24);
        out.push(0x84);
        out.push(0x6a);
        out.extend_from_slice(b"Signature1");
        out.push(0x44);
        out.extend_from_slice(&PROTECTED_ES384);
        out.push(0x40);
        // Heads of byte strings in their shortest form; the payload is at most 16 KiB.
        match self.payload.len().to_be_bytes() {
            [.., 0, low @ 0..=23] => out.push(0x40 | low),
            [.., 0, low] => out.extend_from_slice(&[0x58, low]),
            [.., high, low] => out.extend_from_slice(&[0x59, high, low]),
        }
        out.extend_from_slice(self.payload);
        out
    }

    /// To be called by the verifier once chain and signature are verified.
    pub(crate) fn authenticated(self, leaf_not_after: SystemTime) -> Document {
        Document {
            module_id: self.module_id.to_owned(),
            timestamp: self.timestamp,
            digest: DIGEST,
            pcrs: self.pcrs,
            public_key: self.public_key.map(<[u8]>::to_vec),
            user_data: self.user_data.map(<[u8]>::to_vec),
            nonce: self.nonce.map(<[u8]>::to_vec),
            leaf_not_after,
        }
    }
}

/// A member of the payload that may be set once.
struct Member<T> {
    field: &'static str,
    value: Option<T>,
}

impl<T> Member<T> {
    const fn new(field: &'static str) -> Self {
        Self { field, value: None }
    }

    fn set(
        &mut self,
        read: impl FnOnce(&'static str) -> Result<T, StructureError>,
    ) -> Result<(), StructureError> {
        if self.value.is_some() {
            return Err(StructureError::Duplicate { field: self.field });
        }
        self.value = Some(read(self.field)?);
        Ok(())
    }

    fn required(self) -> Result<T, StructureError> {
        self.value
            .ok_or(StructureError::Missing { field: self.field })
    }
}

/// Milliseconds since the Unix epoch, more than zero.
fn read_timestamp(
    reader: &mut Reader<'_>,
    field: &'static str,
) -> Result<SystemTime, StructureError> {
    match reader.unsigned(field)? {
        0 => None,
        milliseconds => SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)),
    }
    .ok_or(StructureError::Length { field })
}

fn read_pcrs(reader: &mut Reader<'_>, field: &'static str) -> Result<Pcrs, StructureError> {
    let mut pcrs = Pcrs::new();
    let mut items = reader.map(field)?;
    while reader.has_next(&mut items) {
        let index = match u8::try_from(reader.unsigned(field)?) {
            Ok(index) if u64::from(index) < REGISTERS => index,
            _ => return Err(StructureError::Length { field }),
        };
        // The format also knows 32 and 64 bytes, for digests that enclaves do not use.
        let value = match reader.bytes(field, Pcr::LENGTH..=Pcr::LENGTH)?.try_into() {
            Ok(bytes) => Pcr::from_bytes(bytes),
            Err(_) => return Err(StructureError::Length { field }),
        };
        if pcrs.insert(index, value).is_some() {
            return Err(StructureError::Duplicate { field });
        }
    }
    if pcrs.is_empty() {
        Err(StructureError::Length { field })
    } else {
        Ok(pcrs)
    }
}

fn read_cabundle<'a>(
    reader: &mut Reader<'a>,
    field: &'static str,
) -> Result<Vec<&'a [u8]>, StructureError> {
    let mut certificates = Vec::new();
    let mut items = reader.array(field)?;
    while reader.has_next(&mut items) {
        if certificates.len() == MAX_BUNDLE {
            return Err(StructureError::Length { field });
        }
        certificates.push(reader.bytes(field, 1..=MAX_CERTIFICATE)?);
    }
    if certificates.is_empty() {
        Err(StructureError::Length { field })
    } else {
        Ok(certificates)
    }
}

#[cfg(test)]
mod tests;
