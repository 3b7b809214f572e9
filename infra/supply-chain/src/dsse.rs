//! DSSE envelopes around in-toto statements.

use sealed_model::dsse::{self, IN_TOTO, Unproven};
use sealed_model::{PublisherKey, SigningKey};
use serde::{Deserialize, Serialize};

use crate::{Error, Statement, canonical};

pub(crate) use dsse::message_digest;

/// A bill of materials of a thousand files is half a megabyte.
pub const MAX_ENVELOPE: usize = 16 << 20;

/// A signed statement; who signed, and what it says, is not known before [`Self::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Envelope(dsse::Envelope);

impl Envelope {
    /// Signs a statement, as [`crate::provenance`] and [`crate::sbom_statement`] make it.
    ///
    /// # Errors
    /// Where `statement` is not one, or no signature could be made.
    pub fn sign(statement: &[u8], signer: &SigningKey) -> Result<Self, Error> {
        Statement::parse(statement, MAX_ENVELOPE)?;
        dsse::Envelope::sign(IN_TOTO, statement, signer)
            .map(Self)
            .map_err(Error::Key)
    }

    /// # Errors
    /// Where it is not an envelope around an in-toto statement with one signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::of_statement(canonical::read("envelope", bytes, MAX_ENVELOPE)?)
    }

    pub(crate) fn of_statement(envelope: dsse::Envelope) -> Result<Self, Error> {
        match envelope.payload_type() == IN_TOTO {
            true => Ok(Self(envelope)),
            false => Err(Error::Unexpected {
                what: "payload type",
                expected: IN_TOTO.into(),
                found: canonical::shown(envelope.payload_type()),
            }),
        }
    }

    pub(crate) fn into_inner(self) -> dsse::Envelope {
        self.0
    }

    /// The envelope in JSON.
    ///
    /// # Errors
    /// None with a value of ours.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        canonical::bytes(self)
    }

    /// What one of `keys` signed, and which.
    ///
    /// # Errors
    /// [`Error::Signature`] where none did; else where what it signed is no in-toto statement.
    pub fn verify<'k>(
        &self,
        keys: &'k [PublisherKey],
    ) -> Result<(Statement, &'k PublisherKey), Error> {
        let (payload, key) = self.0.verify(keys).map_err(|unproven| match unproven {
            Unproven::Base64 => Error::malformed("envelope", unproven.to_string()),
            Unproven::Signature => Error::Signature {
                what: "attestation",
            },
        })?;
        Ok((Statement::parse(&payload, MAX_ENVELOPE)?, key))
    }
}
