//! The attestation policy and its reference values, encrypted as resources are: they decide about them.

use attestation::Sha256Digest;

use super::change::Change;
use super::vault::Kind;
use super::{Store, StoreError, read};
use crate::appraisal::{POLICY_ID, References};

/// All reference values together, as JSON: a thousand images fit.
pub(crate) const MAX_REFERENCES: usize = 1024 * 1024;

impl Store {
    pub(crate) fn attestation_policy(&self) -> Result<Option<String>, StoreError> {
        let text = read(
            &self.reader(),
            &self.vault,
            Kind::AttestationPolicy,
            POLICY_ID,
        )?;
        let Some(text) = text else {
            return Ok(None);
        };
        match String::from_utf8(text.to_vec()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(StoreError::Tampered),
        }
    }

    /// All of them.
    pub(crate) fn references(&self) -> Result<References, StoreError> {
        read(&self.reader(), &self.vault, Kind::References, "")?
            .map_or_else(|| Ok(References::new()), |json| parse(&json))
    }
}

impl Change {
    pub(crate) fn put_attestation_policy(text: &str) -> Self {
        Self::put(Kind::AttestationPolicy, POLICY_ID, text.as_bytes())
    }

    pub(crate) fn delete_attestation_policy() -> Self {
        Self::delete(Kind::AttestationPolicy, POLICY_ID)
    }

    /// Others stay as they are. What is approved is the canonical JSON of `values`.
    ///
    /// [`StoreError::TooLarge`] when all would take more than a megabyte.
    pub(crate) fn set_references(values: References) -> Self {
        let sha256 = references_digest(&values);
        Self::edit(Kind::References, "", Some(sha256), move |references| {
            references.extend(values.clone());
            Ok(())
        })
    }

    /// [`StoreError::Absent`] when there is none of this ID.
    pub(crate) fn delete_reference(id: &str) -> Self {
        let id = id.to_owned();
        Self::edit(Kind::References, &id.clone(), None, move |references| {
            let removed = references.shift_remove(&id);
            removed.map(drop).ok_or(StoreError::Absent)
        })
    }

    fn edit(
        kind: Kind,
        approved: &str,
        sha256: Option<Sha256Digest>,
        change: impl Fn(&mut References) -> Result<(), StoreError> + Send + 'static,
    ) -> Self {
        let edit = move |before: Option<&[u8]>| {
            let mut references = before.map_or_else(|| Ok(References::new()), parse)?;
            change(&mut references)?;
            let json = serde_json::to_vec(&references).unwrap_or_default();
            if json.len() > MAX_REFERENCES {
                return Err(StoreError::TooLarge);
            }
            Ok(json)
        };
        Self::rewrite(kind, "", approved, sha256, Box::new(edit))
    }
}

/// Of what is set, for approvals and the log.
pub(crate) fn references_digest(values: &References) -> Sha256Digest {
    Sha256Digest::of(&serde_json_canonicalizer::to_vec(values).unwrap_or_default())
}

fn parse(json: &[u8]) -> Result<References, StoreError> {
    match serde_json::from_slice(json) {
        Ok(references) => Ok(references),
        Err(_) => Err(StoreError::Tampered),
    }
}
