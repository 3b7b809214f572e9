use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::layout::Layout;
use crate::{DataKey, Documents, Error, Sha256Digest, name};

/// The only format this crate writes and reads.
pub const FORMAT: &str = "cloister-sealed-model/1";

/// 512 entries of the longest names take 300 KiB; a reader allocates no more than this before it has checked the signature.
pub const MAX_MANIFEST_BYTES: u64 = 512 * 1024;

/// Three times the shards of the largest published model; it bounds what a reader keeps per file.
pub const MAX_FILES: usize = 512;

/// 2 TiB of plaintext, twice the largest published model: its segments' digests take 64 MiB.
pub(crate) const MAX_TOTAL: u64 = 1 << 41;

/// What a package holds. Signed by the publisher over its exact bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: String,
    /// The model's name; callers ask for it by this name.
    pub name: String,
    /// The version: grows with each release, and a reader refuses one below its floor.
    pub epoch: u64,
    /// Under which id a broker keeps the data key; follows from name and epoch.
    pub key_id: String,
    /// A public value that only the right data key gives, so that a wrong one is noticed before any file is read.
    pub key_check: Sha256Digest,
    /// When it was sealed, RFC 3339 in UTC. Information; nothing is decided by it.
    pub created: String,
    /// Of `model.sig`, the publisher's signature over the plaintext files.
    pub model_sig_sha256: Sha256Digest,
    /// Of `bom.cdx.json`, the bill of materials.
    pub bom_sha256: Sha256Digest,
    /// Sorted by path.
    pub files: Vec<FileEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Relative path in the model directory, components separated by `/`.
    pub path: String,
    /// Plaintext bytes.
    pub size: u64,
    /// Of the plaintext.
    pub sha256: Sha256Digest,
    /// Ciphertext bytes; follows from `size`.
    pub sealed_size: u64,
    /// SHA-256 over the SHA-256 of each MiB of the ciphertext, which `segments.sha256` lists: for readers that do not take the
    /// data key's word alone, and for tools without the key.
    pub segments_sha256: Sha256Digest,
}

impl FileEntry {
    /// The file's name in the package.
    pub fn sealed_name(&self) -> String {
        name::sealed_name(&self.path)
    }

    pub(crate) fn layout(&self) -> Result<Layout, Error> {
        Layout::new(self.size)
            .ok_or_else(|| problem(format!("{}: absurd size {}", self.path, self.size)))
    }
}

impl Manifest {
    pub(crate) fn assemble(
        name: &str,
        epoch: u64,
        key: &DataKey,
        created: OffsetDateTime,
        documents: &Documents,
        files: Vec<FileEntry>,
    ) -> Result<Self, Error> {
        let key_id = name::key_id(name, epoch);
        let manifest = Self {
            format: FORMAT.into(),
            name: name.into(),
            epoch,
            key_check: key.check_value(&key_id)?,
            key_id,
            created: created
                .to_offset(UtcOffset::UTC)
                .truncate_to_second()
                .format(&Rfc3339)
                .ok()
                .ok_or(Error::Internal(
                    "a date before the year 10000 has an RFC 3339 form",
                ))?,
            model_sig_sha256: Sha256Digest::of(&documents.model_sig),
            bom_sha256: Sha256Digest::of(&documents.bom),
            files,
        };
        manifest.validate()?;
        Ok(manifest)
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .ok()
            .ok_or(Error::Internal("a manifest has a JSON form"))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Parses and checks all that a manifest alone can show. A manifest that passes is consistent, not yet authentic: use
    /// [`Package::open`](crate::Package::open), which checks the signature first.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Format {
            format: String,
        }
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(problem(format!("longer than {MAX_MANIFEST_BYTES} bytes")));
        }
        // Apart, so that a package of a later format is called that, whatever else is in it.
        let Format { format } = serde_json::from_slice(bytes)
            .map_err(|error| problem(printable(&error.to_string())))?;
        if format != FORMAT {
            return Err(Error::UnknownFormat {
                found: printable(&format).chars().take(64).collect(),
                known: FORMAT,
            });
        }
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| problem(printable(&error.to_string())))?;
        manifest.validate()?;
        Ok(manifest)
    }

    fn validate(&self) -> Result<(), Error> {
        name::check_model(&self.name, self.epoch).map_err(|error| problem(error.to_string()))?;
        let key_id = name::key_id(&self.name, self.epoch);
        if self.key_id != key_id {
            return Err(problem(format!(
                "key id is {:?}, expected {key_id:?}",
                self.key_id
            )));
        }
        if OffsetDateTime::parse(&self.created, &Rfc3339).is_err() {
            return Err(problem("created is not an RFC 3339 date".into()));
        }
        if self.files.is_empty() || self.files.len() > MAX_FILES {
            return Err(problem(format!(
                "lists {} files, expected 1 to {MAX_FILES}",
                self.files.len()
            )));
        }
        let sorted = self.files.is_sorted_by(|a, b| a.path < b.path);
        if !sorted {
            return Err(problem(
                "files are not in order, or one is listed twice".into(),
            ));
        }
        let mut folded = BTreeSet::new();
        for entry in &self.files {
            if !name::is_safe_path(&entry.path) {
                return Err(problem(format!("unsafe file name {:?}", entry.path)));
            }
            // They would overwrite each other on a file system that ignores case.
            if !folded.insert(entry.path.to_ascii_lowercase()) {
                return Err(problem(format!(
                    "{} differs from another only in case",
                    entry.path
                )));
            }
            let expected = entry.layout()?.ciphertext_len();
            if entry.sealed_size != expected {
                return Err(problem(format!(
                    "{}: sealed size is {}, expected {expected}",
                    entry.path, entry.sealed_size
                )));
            }
        }
        let total = self.files.iter().map(|entry| entry.size);
        // Each is at most 2^40, and there are at most 512.
        if total.sum::<u64>() > MAX_TOTAL {
            return Err(problem(format!("is of more than {MAX_TOTAL} bytes")));
        }
        Ok(())
    }
}

/// `text` without what a terminal would obey: an unsigned manifest's words reach the screen of whoever inspects it.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

fn problem(problem: String) -> Error {
    Error::Manifest { problem }
}

#[cfg(test)]
mod tests;
