//! The attestation policy and its reference values, encrypted as resources are: they decide about them.

use rusqlite::{OptionalExtension as _, TransactionBehavior};

use super::vault::Kind;
use super::{Store, StoreError};
use crate::appraisal::{POLICY_ID, References};

/// All reference values together, as JSON: a thousand images fit.
pub(crate) const MAX_REFERENCES: usize = 1024 * 1024;

impl Store {
    pub(crate) fn attestation_policy(&self) -> Result<Option<String>, StoreError> {
        let Some(text) = self.read(Kind::AttestationPolicy, POLICY_ID)? else {
            return Ok(None);
        };
        match String::from_utf8(text.to_vec()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(StoreError::Tampered),
        }
    }

    pub(crate) fn put_attestation_policy(&self, text: &str) -> Result<(), StoreError> {
        self.write(Kind::AttestationPolicy, POLICY_ID, text.as_bytes())
    }

    /// Whether there was one.
    pub(crate) fn delete_attestation_policy(&self) -> Result<bool, StoreError> {
        let deleted = self.connection().execute(
            "DELETE FROM secret WHERE kind = ?1 AND name = ?2",
            (Kind::AttestationPolicy.as_str(), POLICY_ID),
        )?;
        Ok(deleted > 0)
    }

    /// All of them.
    pub(crate) fn references(&self) -> Result<References, StoreError> {
        self.read(Kind::References, "")?
            .map_or_else(|| Ok(References::new()), |json| parse(&json))
    }

    /// Changes them in one step, whoever else does; `change` says whether it did. Gives back what it said.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] when they would take more than a megabyte.
    pub(crate) fn change_references(
        &self,
        change: impl FnOnce(&mut References) -> bool,
    ) -> Result<bool, StoreError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let row = (Kind::References.as_str(), "");
        let sealed: Option<Vec<u8>> = transaction
            .query_row(
                "SELECT sealed FROM secret WHERE kind = ?1 AND name = ?2",
                row,
                |row| row.get(0),
            )
            .optional()?;
        let mut references = match sealed {
            Some(sealed) => {
                let json = self.vault.open(Kind::References, "", sealed);
                parse(&json.ok_or(StoreError::Tampered)?)?
            }
            None => References::new(),
        };
        if !change(&mut references) {
            return Ok(false);
        }
        let json = serde_json::to_vec(&references).unwrap_or_default();
        if json.len() > MAX_REFERENCES {
            return Err(StoreError::TooLarge);
        }
        let sealed = self
            .vault
            .seal(Kind::References, "", &json)
            .ok_or(StoreError::Seal)?;
        transaction.execute(
            "INSERT INTO secret (kind, name, sealed) VALUES (?1, ?2, ?3)
             ON CONFLICT (kind, name) DO UPDATE SET sealed = excluded.sealed",
            (row.0, row.1, sealed),
        )?;
        transaction.commit()?;
        Ok(true)
    }
}

fn parse(json: &[u8]) -> Result<References, StoreError> {
    match serde_json::from_slice(json) {
        Ok(references) => Ok(references),
        Err(_) => Err(StoreError::Tampered),
    }
}
