//! Who makes evidence.

use std::time::SystemTime;

use crate::document::UnverifiedDocument;
use crate::evidence::Evidence;
use crate::pcr::{Pcr, Pcrs};

/// What a relying party wants to see inside the evidence. Limits are those of the Nitro Secure Module.
#[derive(Debug, Clone, Copy)]
pub struct AttestationRequest<'a> {
    /// Up to 512 bytes; here always [`crate::Binding::user_data`].
    pub user_data: &'a [u8],
    /// Up to 512 bytes: the verifier's challenge.
    pub nonce: &'a [u8],
    /// 1 to 1024 bytes: the key being attested, DER SubjectPublicKeyInfo.
    pub public_key: &'a [u8],
}

impl AttestationRequest<'_> {
    /// Limit of `user_data` and of `nonce`, in bytes (AWS `nsm-api`, attestation process, request validation).
    pub const MAX_DATA: usize = 512;
    /// Limit of `public_key`, in bytes (same source).
    pub const MAX_PUBLIC_KEY: usize = 1024;

    /// # Errors
    /// [`AttestError::RequestTooLarge`] naming the field.
    pub fn check(&self) -> Result<(), AttestError> {
        let fields = [
            ("user_data", self.user_data, Self::MAX_DATA),
            ("nonce", self.nonce, Self::MAX_DATA),
            ("public_key", self.public_key, Self::MAX_PUBLIC_KEY),
        ];
        for (field, value, limit) in fields {
            if value.len() > limit {
                return Err(AttestError::RequestTooLarge { field, limit });
            }
        }
        Ok(())
    }
}

/// The platform's root of trust for reporting. All calls block, for milliseconds on real hardware.
pub trait Attester: Send + Sync {
    /// Fresh evidence over the request.
    ///
    /// # Errors
    /// See [`AttestError`].
    fn attest(&self, request: &AttestationRequest<'_>) -> Result<Evidence, AttestError>;

    /// The registers that evidence made now would carry.
    ///
    /// # Errors
    /// See [`AttestError`].
    fn measurements(&self) -> Result<Pcrs, AttestError>;

    /// Extends `data` into register `index` and locks it until the next boot; gives the new value.
    ///
    /// # Errors
    /// [`AttestError::Locked`] when it was locked before, otherwise see [`AttestError`].
    fn extend_and_lock(&self, index: u8, data: &[u8]) -> Result<Pcr, AttestError>;

    /// The platform's own clock, as its evidence has it. Some platforms cut off the milliseconds.
    ///
    /// # Errors
    /// [`AttestError::UnexpectedAnswer`] when its evidence cannot be read, otherwise see [`AttestError`].
    fn time(&self) -> Result<SystemTime, AttestError> {
        // Bound to nothing, so that the document is of no use to anybody.
        let label = b"clock";
        let evidence = self.attest(&AttestationRequest {
            user_data: label,
            nonce: label,
            public_key: label,
        })?;
        match UnverifiedDocument::parse(evidence.as_bytes()) {
            Ok(document) => Ok(document.timestamp),
            Err(_) => Err(AttestError::UnexpectedAnswer {
                operation: "Attestation",
            }),
        }
    }

    /// Fills `out` from the platform's own generator, to be mixed into the system's.
    ///
    /// # Errors
    /// See [`AttestError`].
    fn random(&self, out: &mut [u8]) -> Result<(), AttestError>;
}

/// The platform could not do what was asked. None of these is caused by a remote peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// There is no such device here, or it may not be opened: not an enclave, or a wrong image.
    #[error("cannot open {device}")]
    Open {
        /// Path of the device.
        device: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A bug of the caller.
    #[error("{field} is longer than the {limit} bytes that evidence can carry")]
    RequestTooLarge {
        /// Which member of the request.
        field: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// The register was locked before.
    #[error("PCR{index} is locked")]
    Locked {
        /// Register index.
        index: u8,
    },
    /// The register does not exist.
    #[error("PCR{index} does not exist or cannot be extended")]
    NoSuchRegister {
        /// Register index.
        index: u8,
    },
    /// The device refused; `code` is its own word.
    #[error("the secure module refused {operation}: {code}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// The device's error code.
        code: &'static str,
    },
    /// The device answered something else than was asked, or out of bounds.
    #[error("the secure module gave an unexpected answer to {operation}")]
    UnexpectedAnswer {
        /// What was asked.
        operation: &'static str,
    },
    /// Making the document failed for a reason of the platform's own.
    #[error("evidence could not be made")]
    Platform(#[source] Box<dyn std::error::Error + Send + Sync>),
}
