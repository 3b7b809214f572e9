//! `measurements.json`: which images were published, and which of them were revoked since.
//!
//! ```text
//! {"entries":[                                                     one line per entry, so that a review shows what was added
//! {"entry":{…},"keyid":"…","sig":"…"},                             entry: RFC 8785; keyid: SHA-256 of the signer's SPKI
//! {"entry":{…,"previous":SHA-256 of the entry before,…},…}         sig: ECDSA P-256 over DSSE's encoding of type and entry
//! ],"format":"cloister-measurements-v1"}
//! ```
//!
//! Entries are only ever added. Each names the one before by its digest, so the digest of the last one, pinned by a reader,
//! stands for all of them. A list that was cut short is still signed: only a pin ([`Pin`]) tells.

mod entry;
mod file;
mod pin;
mod registers;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealed_model::{PublisherKey, Sha256Digest, SigningKey};
use serde::{Deserialize, Serialize};

pub use entry::{Event, PublishedImage, Revocation, Timestamp};
pub use file::LogFile;
pub use pin::{Head, Pin};
pub use registers::{Register, Registers};

use crate::{Error, canonical, dsse};
use entry::{Entry, EventRef};

const FORMAT: &str = "cloister-measurements-v1";
const PAYLOAD_TYPE: &str = "application/vnd.cloister.measurements.entry.v1+json";
/// Ten thousand entries of 1.5 KB.
pub const MAX_LOG: usize = 16 << 20;
const MAX_ENTRIES: usize = 10_000;

/// A list in which every entry is signed by a trusted key, follows the one before and makes sense after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasurementLog(Vec<Line>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    entry: Entry,
    keyid: String,
    sig: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    entries: Vec<Line>,
    format: String,
}

/// A published image, and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'l> {
    pub sequence: u64,
    pub time: &'l Timestamp,
    pub image: &'l PublishedImage,
    /// When and why it was revoked; `None` while it is active.
    pub revoked: Option<(&'l Timestamp, &'l str)>,
}

impl MeasurementLog {
    /// A list with its first entry.
    ///
    /// # Errors
    /// Where the event makes no sense as the first one, or no signature could be made.
    pub fn start(event: Event, time: Timestamp, signer: &SigningKey) -> Result<Self, Error> {
        Self(Vec::new()).append(event, time, signer)
    }

    /// Reads a list of which every entry has to be signed by one of `keys`.
    ///
    /// # Errors
    /// Where any byte is not as [`Self::to_bytes`] writes it, an entry is not signed, out of place or contradicts another.
    pub fn read(bytes: &[u8], keys: &[PublisherKey]) -> Result<Self, Error> {
        let file: File = canonical::read("measurements", bytes, MAX_LOG)?;
        if file.format != FORMAT {
            return Err(Error::UnknownVersion {
                what: "measurements",
                found: canonical::shown(&file.format),
                known: FORMAT,
            });
        }
        if file.entries.is_empty() {
            return Err(Error::malformed("measurements", "has no entry"));
        }
        let mut log = Self(Vec::new());
        for line in file.entries {
            let signed = message_digest(&line.entry)?;
            let holds = keys.iter().any(|key| {
                key.id() == line.keyid
                    && STANDARD
                        .decode(&line.sig)
                        .is_ok_and(|sig| key.verify_digest(&signed, &sig))
            });
            if !holds {
                return Err(line.entry.refused("is signed by none of the keys given"));
            }
            log.push(line)?;
        }
        if log.to_bytes()? != bytes {
            return Err(Error::malformed(
                "measurements",
                "is not written as this format is: order, spaces and spelling are fixed",
            ));
        }
        Ok(log)
    }

    /// The list with one more entry, signed.
    ///
    /// # Errors
    /// Where the event contradicts an entry, or no signature could be made.
    pub fn append(
        mut self,
        event: Event,
        time: Timestamp,
        signer: &SigningKey,
    ) -> Result<Self, Error> {
        let (sequence, previous) = match self.0.last() {
            None => (1, None),
            Some(line) => (line.entry.sequence + 1, Some(line.entry.hash()?)),
        };
        let entry = Entry::new(sequence, previous, time, event);
        let signature = signer
            .sign_digest(&message_digest(&entry)?)
            .map_err(Error::Key)?;
        self.push(Line {
            entry,
            keyid: signer.public().map_err(Error::Key)?.id(),
            sig: STANDARD.encode(signature),
        })?;
        Ok(self)
    }

    /// # Errors
    /// None with a list of ours.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = b"{\"entries\":[\n".to_vec();
        for (index, line) in self.0.iter().enumerate() {
            if index > 0 {
                bytes.extend_from_slice(b",\n");
            }
            bytes.extend_from_slice(&canonical::bytes(line)?);
        }
        bytes.extend_from_slice(format!("\n],\"format\":\"{FORMAT}\"}}\n").as_bytes());
        Ok(bytes)
    }

    /// The last entry: to be pinned.
    ///
    /// # Errors
    /// None with a list of ours.
    pub fn head(&self) -> Result<Head, Error> {
        let last = self
            .0
            .last()
            .ok_or(Error::Internal("a list has an entry"))?;
        Ok(Head {
            sequence: last.entry.sequence,
            hash: last.entry.hash()?,
        })
    }

    /// # Errors
    /// [`Error::Rollback`] where this is not a list in which `pin` was the last entry, or has become an earlier one.
    pub fn require(&self, pin: &Pin) -> Result<(), Error> {
        let head = self.head()?;
        let holds = match pin {
            Pin::Sequence(sequence) => head.sequence >= *sequence,
            Pin::Hash(hash) => self.hashes()?.contains(hash),
        };
        match holds {
            true => Ok(()),
            false => Err(Error::Rollback(format!(
                "the list ends with {head} and does not have {pin}: it is older than one that was seen, or another one"
            ))),
        }
    }

    /// All images that were ever published, in order.
    pub fn publications(&self) -> impl Iterator<Item = Publication<'_>> {
        let revoked: BTreeMap<u64, _> = self
            .0
            .iter()
            .filter_map(|line| match line.entry.event() {
                Some(EventRef::Revoked(revocation)) => Some((
                    revocation.sequence,
                    (&line.entry.time, revocation.reason.as_str()),
                )),
                _ => None,
            })
            .collect();
        self.0
            .iter()
            .filter_map(move |line| match line.entry.event() {
                Some(EventRef::Published(image)) => Some(Publication {
                    sequence: line.entry.sequence,
                    time: &line.entry.time,
                    image,
                    revoked: revoked.get(&line.entry.sequence).copied(),
                }),
                _ => None,
            })
    }

    /// The images that may be trusted: published, not revoked, and of this name if one is given.
    pub fn active<'l>(&'l self, name: Option<&'l str>) -> impl Iterator<Item = Publication<'l>> {
        self.publications()
            .filter(move |p| p.revoked.is_none() && name.is_none_or(|name| p.image.name == name))
    }

    fn hashes(&self) -> Result<BTreeSet<Sha256Digest>, Error> {
        self.0.iter().map(|line| line.entry.hash()).collect()
    }

    /// Whether `line` may follow, apart from its signature.
    fn push(&mut self, line: Line) -> Result<(), Error> {
        let entry = &line.entry;
        if self.0.len() >= MAX_ENTRIES {
            return Err(entry.refused("is one more than a list can have"));
        }
        let (sequence, previous, not_before) = match self.0.last() {
            None => (1, None, None),
            Some(last) => (
                last.entry.sequence + 1,
                Some(last.entry.hash()?),
                Some(&last.entry.time),
            ),
        };
        if entry.sequence != sequence {
            return Err(entry.refused(&format!("is out of place, it would have to be {sequence}")));
        }
        if entry.previous != previous {
            return Err(entry.refused("does not name the entry before it"));
        }
        if not_before.is_some_and(|before| entry.time < *before) {
            return Err(entry.refused("is dated before the entry before it"));
        }
        match entry.event() {
            Some(EventRef::Published(image)) => self.may_publish(entry, image)?,
            Some(EventRef::Revoked(revocation)) => self.may_revoke(entry, revocation)?,
            None => return Err(entry.refused("is not exactly one of published and revoked")),
        }
        self.0.push(line);
        Ok(())
    }

    /// A revoked image does not come back, neither under its name nor under another.
    fn may_publish(&self, entry: &Entry, image: &PublishedImage) -> Result<(), Error> {
        image
            .check()
            .map_err(|error| entry.refused(&error.to_string()))?;
        for earlier in self.publications() {
            let same = if earlier.image.eif_sha256 == image.eif_sha256 {
                "this image"
            } else if earlier.image.pcrs.same_content(&image.pcrs) {
                "an image with these measurements"
            } else if (&earlier.image.name, &earlier.image.version) == (&image.name, &image.version)
            {
                "an image of this name and version"
            } else {
                continue;
            };
            return Err(entry.refused(&format!(
                "publishes {same} again, which entry {} did",
                earlier.sequence
            )));
        }
        Ok(())
    }

    fn may_revoke(&self, entry: &Entry, revocation: &Revocation) -> Result<(), Error> {
        revocation
            .check()
            .map_err(|error| entry.refused(&error.to_string()))?;
        let target = self
            .publications()
            .find(|publication| publication.sequence == revocation.sequence);
        match target {
            Some(publication) if publication.revoked.is_none() => Ok(()),
            Some(_) => Err(entry.refused("revokes what is revoked already")),
            None => Err(entry.refused("revokes what no earlier entry published")),
        }
    }
}

fn message_digest(entry: &Entry) -> Result<Sha256Digest, Error> {
    Ok(dsse::message_digest(
        PAYLOAD_TYPE,
        &canonical::bytes(entry)?,
    ))
}
