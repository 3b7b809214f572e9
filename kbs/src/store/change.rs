//! What administrators change. The same bytes that are stored are what an approval names.

use std::sync::Arc;
use std::time::SystemTime;

use attestation::Sha256Digest;
use rusqlite::Connection;
use serde::Serialize;
use zeroize::Zeroizing;

use super::vault::{Kind, Vault};
use super::{RESOURCE_POLICY, StoreError, milliseconds, read, write};

/// The value after from the value before, if there is one. An error undoes the change.
pub(super) type Edit = Box<dyn Fn(Option<&[u8]>) -> Result<Vec<u8>, StoreError> + Send>;

/// One change, with the approvals it uses up.
pub(crate) struct Change {
    kind: Kind,
    /// Of the row.
    name: String,
    what: What<Zeroizing<Vec<u8>>>,
    digest: Sha256Digest,
    approvals: Vec<Approval>,
}

enum What<T> {
    Put(T),
    Delete,
    Edit(Edit),
}

/// An approval that cannot be used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Approval {
    pub(crate) id: String,
    /// From here on it has expired, and its id need not be kept.
    pub(crate) until: SystemTime,
}

impl Change {
    pub(crate) fn put_resource(path: &str, value: &[u8]) -> Self {
        Self::put(Kind::Resource, path, value)
    }

    pub(crate) fn delete_resource(path: &str) -> Self {
        Self::delete(Kind::Resource, path)
    }

    pub(crate) fn put_policy(text: &str) -> Self {
        Self::put(Kind::Policy, RESOURCE_POLICY, text.as_bytes())
    }

    pub(super) fn put(kind: Kind, name: &str, value: &[u8]) -> Self {
        let digest = change_digest(kind, name, Some(Sha256Digest::of(value)));
        let what = What::Put(Zeroizing::new(value.to_vec()));
        Self::new(kind, name, what, digest)
    }

    pub(super) fn delete(kind: Kind, name: &str) -> Self {
        Self::new(kind, name, What::Delete, change_digest(kind, name, None))
    }

    /// Changes the row `name`; an approval names `approved` and `sha256`.
    pub(super) fn rewrite(
        kind: Kind,
        name: &str,
        approved: &str,
        sha256: Option<Sha256Digest>,
        edit: Edit,
    ) -> Self {
        let digest = change_digest(kind, approved, sha256);
        Self::new(kind, name, What::Edit(edit), digest)
    }

    fn new(kind: Kind, name: &str, what: What<Zeroizing<Vec<u8>>>, digest: Sha256Digest) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            what,
            digest,
            approvals: Vec::new(),
        }
    }

    pub(crate) fn approved(mut self, approvals: Vec<Approval>) -> Self {
        self.approvals = approvals;
        self
    }

    /// SHA-256 of the canonical JSON (RFC 8785) of what changes: what an approval signs.
    pub(crate) fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// Everything that needs no transaction.
    pub(super) fn seal(
        self,
        vault: &Arc<Vault>,
        now: SystemTime,
    ) -> Result<SealedChange, StoreError> {
        let kind = self.kind.as_str();
        let what = match self.what {
            What::Put(value) => {
                let sealed = vault.seal(kind, &self.name, &value);
                What::Put(sealed.ok_or(StoreError::Seal)?)
            }
            What::Delete => What::Delete,
            What::Edit(edit) => What::Edit(edit),
        };
        Ok(SealedChange {
            kind: self.kind,
            name: self.name,
            what,
            vault: Arc::clone(vault),
            approvals: self.approvals,
            now_ms: milliseconds(now),
        })
    }
}

/// Of a resource's change when only its digest is known to who approves it.
pub(crate) fn resource_digest(path: &str, value: Sha256Digest) -> Sha256Digest {
    change_digest(Kind::Resource, path, Some(value))
}

fn change_digest(kind: Kind, name: &str, sha256: Option<Sha256Digest>) -> Sha256Digest {
    #[derive(Serialize)]
    struct Approved<'a> {
        kind: &'a str,
        name: &'a str,
        /// Null: deleted.
        sha256: Option<Sha256Digest>,
    }
    let approved = Approved {
        kind: kind.as_str(),
        name,
        sha256,
    };
    Sha256Digest::of(&serde_json_canonicalizer::to_vec(&approved).unwrap_or_default())
}

pub(super) struct SealedChange {
    kind: Kind,
    name: String,
    what: What<Vec<u8>>,
    vault: Arc<Vault>,
    approvals: Vec<Approval>,
    now_ms: i64,
}

impl SealedChange {
    /// In the caller's transaction, which an error has to undo.
    pub(super) fn apply(&self, connection: &Connection) -> Result<(), StoreError> {
        self.use_up(connection)?;
        let kind = self.kind.as_str();
        match &self.what {
            What::Put(sealed) => write(connection, kind, &self.name, sealed),
            What::Delete => {
                let deleted = connection
                    .prepare_cached("DELETE FROM secret WHERE kind = ?1 AND name = ?2")?
                    .execute((kind, &self.name))?;
                (deleted > 0).then_some(()).ok_or(StoreError::Absent)
            }
            What::Edit(edit) => {
                let before = read(connection, &self.vault, self.kind, &self.name)?;
                let after = edit(before.as_ref().map(|before| before.as_slice()))?;
                let sealed = self.vault.seal(kind, &self.name, &after);
                write(
                    connection,
                    kind,
                    &self.name,
                    &sealed.ok_or(StoreError::Seal)?,
                )
            }
        }
    }

    fn use_up(&self, connection: &Connection) -> Result<(), StoreError> {
        if !self.approvals.is_empty() {
            connection
                .prepare_cached("DELETE FROM used_approval WHERE until_ms < ?1")?
                .execute((self.now_ms,))?;
        }
        for approval in &self.approvals {
            let used = connection
                .prepare_cached(
                    "INSERT INTO used_approval (id, until_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                )?
                .execute((&approval.id, milliseconds(approval.until)))?;
            if used == 0 {
                return Err(StoreError::ApprovalUsed);
            }
        }
        Ok(())
    }
}
