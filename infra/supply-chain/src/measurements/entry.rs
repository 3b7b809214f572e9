use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use sealed_model::Sha256Digest;
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use super::Registers;
use crate::{
    Artifact, Blob, Error, MAX_ENVELOPE, Provenance, Statement, build, canonical, sbom_statement,
};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Published(Box<PublishedImage>),
    Revoked(Revocation),
}

/// An image that its owner stands behind from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedImage {
    pub name: String,
    pub version: String,
    pub pcrs: Registers,
    pub eif_sha256: Sha256Digest,
    /// The enclave's configuration in the image.
    pub config_sha256: Sha256Digest,
    pub sbom_sha256: Sha256Digest,
    pub provenance_sha256: Sha256Digest,
    /// 40 or 64 hex digits.
    pub git_commit: String,
}

/// An image that its owner no longer stands behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Of the entry that published it.
    pub sequence: u64,
    /// For people: 1 to 256 bytes.
    pub reason: String,
}

/// UTC, to the second: `2026-11-25T10:00:00Z`. The order of texts is that of times.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(String);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) previous: Option<Sha256Digest>,
    pub(super) time: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    published: Option<PublishedImage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<Revocation>,
}

pub(super) enum EventRef<'e> {
    Published(&'e PublishedImage),
    Revoked(&'e Revocation),
}

impl Entry {
    pub(super) fn new(
        sequence: u64,
        previous: Option<Sha256Digest>,
        time: Timestamp,
        event: Event,
    ) -> Self {
        let (published, revoked) = match event {
            Event::Published(image) => (Some(*image), None),
            Event::Revoked(revocation) => (None, Some(revocation)),
        };
        Self {
            sequence,
            previous,
            time,
            published,
            revoked,
        }
    }

    /// `None` unless it is exactly one of them.
    pub(super) fn event(&self) -> Option<EventRef<'_>> {
        match (&self.published, &self.revoked) {
            (Some(image), None) => Some(EventRef::Published(image)),
            (None, Some(revocation)) => Some(EventRef::Revoked(revocation)),
            _ => None,
        }
    }

    pub(super) fn hash(&self) -> Result<Sha256Digest, Error> {
        Ok(Sha256Digest::of(&canonical::bytes(self)?))
    }

    pub(super) fn refused(&self, problem: &str) -> Error {
        Error::Entry {
            sequence: self.sequence,
            problem: problem.into(),
        }
    }
}

impl PublishedImage {
    /// What `provenance` (the statement, not its envelope) says of the image with these registers; `sbom` is its bill of
    /// materials. All three have to speak of one another.
    ///
    /// # Errors
    /// Where they do not, or one of them is not what it should be.
    pub fn describe(
        image: &Blob,
        pcrs: Registers,
        provenance: &[u8],
        sbom: &[u8],
    ) -> Result<Self, Error> {
        let statement = Statement::parse(provenance, MAX_ENVELOPE)?;
        let said = Provenance::of(&statement)?;
        let sbom_sha256 = Sha256Digest::of(sbom);
        let named = Artifact {
            name: statement.names(image.sha256())?.to_owned(),
            sha256: *image.sha256(),
        };
        statement.names(&sbom_sha256)?;
        sbom_statement(&named, sbom)?;
        let published = Self {
            name: said.name().to_owned(),
            version: said.version().to_owned(),
            pcrs,
            eif_sha256: *image.sha256(),
            config_sha256: said.config_sha256()?,
            sbom_sha256,
            provenance_sha256: Sha256Digest::of(provenance),
            git_commit: said.commit()?.to_owned(),
        };
        published.check()?;
        Ok(published)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        build::token("name", &self.name)?;
        build::token("version", &self.version)?;
        build::commit("git_commit", &self.git_commit)?;
        self.pcrs.check()
    }
}

impl Revocation {
    pub(super) fn check(&self) -> Result<(), Error> {
        build::text("reason", &self.reason)
    }
}

impl Timestamp {
    fn of(time: OffsetDateTime) -> Result<Self, Error> {
        time.to_offset(UtcOffset::UTC)
            .replace_nanosecond(0)
            .ok()
            .filter(|time| (0..=9999).contains(&time.year()))
            .and_then(|time| time.format(&Rfc3339).ok())
            .map(Self)
            .ok_or_else(malformed)
    }
}

impl TryFrom<SystemTime> for Timestamp {
    type Error = Error;

    /// # Errors
    /// [`Error::Input`] after the year 9999.
    fn try_from(time: SystemTime) -> Result<Self, Error> {
        Self::of(time.into())
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_shown_below| malformed())?;
        let own = Self::of(time)?;
        match own.0 == text {
            true => Ok(own),
            false => Err(malformed()),
        }
    }
}

fn malformed() -> Error {
    Error::input(
        "time",
        "is written as 2026-11-25T10:00:00Z: UTC, whole seconds",
    )
}

impl TryFrom<String> for Timestamp {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
