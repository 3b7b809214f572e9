//! A document as it says it is, for people to look at.

use std::time::SystemTime;

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::validity;
use crate::digest::Sha256Digest;
use crate::document::UnverifiedDocument;
use crate::error::StructureError;
use crate::evidence::Evidence;
use crate::pcr::Pcrs;

/// Everything in a document that has the right form. Nothing in it was verified, and all of it may be invented.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnverifiedView {
    /// The secure module: `<instance id>-enc<enclave id>`.
    pub module_id: String,
    /// When the module made the document, by the module's clock.
    pub timestamp: SystemTime,
    /// The registers.
    pub pcrs: Pcrs,
    /// The key that the requester asked to have attested.
    pub public_key: Option<Vec<u8>>,
    /// What else the requester asked to have signed.
    pub user_data: Option<Vec<u8>>,
    /// The challenge that the requester passed on.
    pub nonce: Option<Vec<u8>>,
    /// From the root down to the leaf; what cannot be read as a certificate says why.
    pub certificates: Vec<CertificateView>,
}

/// One certificate of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateView {
    /// Of the DER.
    pub sha256: Sha256Digest,
    /// What it says, or why it cannot be read.
    pub content: Result<CertificateContent, &'static str>,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateContent {
    /// Its holder (RFC 4514). Text of whoever made it.
    pub subject: String,
    /// Lower-case hex, as encoded.
    pub serial: String,
    /// First second of its validity.
    pub not_before: SystemTime,
    /// Last second of its validity.
    pub not_after: SystemTime,
    /// Whether it is an authority's.
    pub ca: bool,
    /// How many authorities may stand below it.
    pub path_length: Option<u32>,
}

impl Evidence {
    /// Reads the document without verifying it.
    ///
    /// # Errors
    /// [`StructureError`] when it is no attestation document.
    pub fn inspect(&self) -> Result<UnverifiedView, StructureError> {
        let document = UnverifiedDocument::parse(self.as_bytes())?;
        let chain = document.cabundle.iter().chain([&document.certificate]);
        let certificates = chain
            .map(|der| CertificateView {
                sha256: Sha256Digest::of(der),
                content: content(der),
            })
            .collect();
        Ok(UnverifiedView {
            certificates,
            module_id: document.module_id.to_owned(),
            timestamp: document.timestamp,
            pcrs: document.pcrs,
            public_key: document.public_key.map(<[u8]>::to_vec),
            user_data: document.user_data.map(<[u8]>::to_vec),
            nonce: document.nonce.map(<[u8]>::to_vec),
        })
    }
}

fn content(der: &[u8]) -> Result<CertificateContent, &'static str> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Err("not a certificate");
    };
    let constraints = certificate.basic_constraints().ok().flatten();
    let validity = validity(&certificate)?;
    Ok(CertificateContent {
        subject: certificate.subject().to_string(),
        serial: hex::encode(certificate.raw_serial()),
        not_before: validity.not_before,
        not_after: validity.not_after,
        ca: constraints.as_ref().is_some_and(|c| c.value.ca),
        path_length: constraints.and_then(|c| c.value.path_len_constraint),
    })
}
