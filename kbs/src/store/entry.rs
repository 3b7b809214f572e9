//! What an entry of the release log says.

use attestation::{Pcrs, Sha256Digest};
use rusqlite::Row;
use serde::{Deserialize, Serialize};

use crate::refusal::Kind;

/// Paths come from strangers; the longest that can name anything is shorter.
const MAX_PATH: usize = 256;
const MAX_REASON: usize = 512;

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Evidence was accepted and a token made.
    Attested,
    /// A resource left, wrapped to `tee_key`.
    Released,
    /// An X.509-SVID left.
    Issued,
    /// Nothing left.
    Refused,
    /// An administrator stored a resource.
    Stored,
    /// An administrator deleted a resource.
    Deleted,
    /// The first policy was installed, or an administrator replaced it.
    PolicySet,
    /// An administrator stored or deleted reference values.
    ReferenceSet,
    /// Decisions that let nothing out, counted instead of listed.
    Suppressed,
    /// The broker began to serve, under these rules.
    Started,
    /// Everything was encrypted anew, under another master key.
    KeyRotated,
    /// The database was restored from a backup; what came after the backup is not in this log.
    Restored,
}

impl Outcome {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attested => "attested",
            Self::Released => "released",
            Self::Issued => "issued",
            Self::Refused => "refused",
            Self::Stored => "stored",
            Self::Deleted => "deleted",
            Self::PolicySet => "policy-set",
            Self::ReferenceSet => "reference-set",
            Self::Suppressed => "suppressed",
            Self::Started => "started",
            Self::KeyRotated => "key-rotated",
            Self::Restored => "restored",
        }
    }
}

/// What authenticated evidence said of the peer, as far as the decision got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) pcrs: Option<Pcrs>,
    /// The evidence carries our challenge, so the peer runs where it comes from.
    pub(crate) fresh: bool,
    pub(crate) config_digest: Option<Sha256Digest>,
    /// Thumbprint of the recipient key (RFC 7638), or SHA-256 of the certified public key.
    pub(crate) tee_key: Option<Sha256Digest>,
    pub(crate) serial: Option<String>,
    /// Of the policy that decided, or that was set.
    pub(crate) policy_sha256: Option<Sha256Digest>,
    /// Who asked for a change: names of administrators' keys.
    pub(crate) admin: Option<String>,
}

pub(crate) struct NewEntry<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) error_type: Option<Kind>,
    pub(crate) path: &'a str,
    pub(crate) facts: &'a Facts,
    pub(crate) reason: Option<&'a str>,
}

/// One entry, as hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Entry {
    /// 1, 2, 3, ….
    pub seq: i64,
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// [`Outcome::as_str`].
    pub outcome: String,
    /// The error type the peer was told.
    pub error_type: Option<String>,
    /// What was asked for: a resource path, an endpoint, a SPIFFE ID.
    pub path: String,
    /// Register in hex.
    pub pcr0: Option<String>,
    /// Register in hex.
    pub pcr1: Option<String>,
    /// Register in hex.
    pub pcr2: Option<String>,
    /// SHA-256 in hex of the configuration the enclave says it runs with.
    pub config_digest: Option<String>,
    /// Thumbprint of the recipient key (RFC 7638), or SHA-256 of the certified public key.
    pub tee_key: Option<String>,
    /// Serial number of an issued certificate.
    pub serial: Option<String>,
    /// Why, for the operator; the peer is not told.
    pub reason: Option<String>,
    /// SHA-256 in hex of the policy that decided, or that was set. Absent from the hash where it is unknown, as in
    /// databases of schema 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_sha256: Option<String>,
    /// Who changed something: names of administrators' keys. In the hash as `policy_sha256` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// `hash` of the entry before, or zeros.
    pub prev: String,
}

/// An entry with its hash, after the chain up to it was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// What it says.
    pub entry: Entry,
    /// SHA-256 of the entry's canonical JSON, hex.
    pub hash: String,
}

/// The log is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the release log is broken at entry {seq}: {what}")]
pub struct Broken {
    /// Where the chain ends.
    pub seq: i64,
    /// What does not hold.
    pub what: &'static str,
}

impl NewEntry<'_> {
    /// As it is written: one printable line of bounded length, whatever a stranger sent.
    pub(crate) fn shown_path(&self) -> String {
        printable(self.path, MAX_PATH)
    }

    /// See [`NewEntry::shown_path`].
    pub(crate) fn shown_reason(&self) -> Option<String> {
        self.reason.map(|reason| printable(reason, MAX_REASON))
    }
}

impl Entry {
    /// Its place in the log is given by who appends it.
    pub(super) fn draft(time_ms: i64, new: &NewEntry<'_>) -> Self {
        let pcr = |index: u8| {
            let pcrs = new.facts.pcrs.as_ref()?;
            pcrs.get(&index).map(ToString::to_string)
        };
        Self {
            seq: 0,
            time_ms,
            outcome: new.outcome.as_str().to_owned(),
            error_type: new.error_type.map(|kind| kind.as_str().to_owned()),
            path: new.shown_path(),
            pcr0: pcr(0),
            pcr1: pcr(1),
            pcr2: pcr(2),
            config_digest: new.facts.config_digest.map(|digest| digest.to_string()),
            tee_key: new.facts.tee_key.map(|digest| digest.to_string()),
            serial: new.facts.serial.clone(),
            reason: new.shown_reason(),
            policy_sha256: new.facts.policy_sha256.map(|digest| digest.to_string()),
            admin: new.facts.admin.clone(),
            prev: String::new(),
        }
    }

    pub(super) fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            seq: row.get("seq")?,
            time_ms: row.get("time_ms")?,
            outcome: row.get("outcome")?,
            error_type: row.get("error_type")?,
            path: row.get("path")?,
            pcr0: row.get("pcr0")?,
            pcr1: row.get("pcr1")?,
            pcr2: row.get("pcr2")?,
            config_digest: row.get("config_digest")?,
            tee_key: row.get("tee_key")?,
            serial: row.get("serial")?,
            reason: row.get("reason")?,
            policy_sha256: row.get("policy_sha256")?,
            admin: row.get("admin")?,
            prev: row.get("prev")?,
        })
    }

    /// SHA-256 of the canonical JSON, hex.
    #[expect(
        clippy::expect_used,
        reason = "strings and two integers below 2^53 always serialize"
    )]
    pub(super) fn hash(&self) -> String {
        let json = serde_json_canonicalizer::to_vec(self).expect("an entry serializes");
        Sha256Digest::of(&json).to_string()
    }
}

/// One line of printable ASCII: what a stranger sent must not steer a terminal.
fn printable(text: &str, max: usize) -> String {
    let plain = |c: char| {
        if c == ' ' || c.is_ascii_graphic() {
            c
        } else {
            '?'
        }
    };
    text.chars().take(max).map(plain).collect()
}
