//! How much of hostile ramdisks is read, and how much of it is kept.

use crate::ramdisk::error::ArchiveError;
use crate::section::MAX_IMAGE;

/// Most entries in all ramdisks of an image: a whole distribution with its documentation.
const MAX_ENTRIES: u32 = 1 << 18;
/// Most bytes of names and link targets: sixty for each of these.
const MAX_NAMES: u64 = 16 << 20;
/// Most bytes that the ramdisks unpack to. All of it has to fit into the memory of the enclave.
pub(crate) const MAX_UNPACKED: u64 = MAX_IMAGE;
/// Most bytes of files that are kept, over all of them.
const MAX_KEPT: u64 = 8 << 20;

/// What is left of the limits.
pub(crate) struct Budget {
    entries: u32,
    names: u64,
    unpacked: u64,
    kept: u64,
    /// Largest file that is kept, in bytes.
    small: u32,
}

impl Budget {
    /// Keeps files of at most `small` bytes; none for 0.
    pub(crate) fn new(small: u32) -> Self {
        Self {
            entries: MAX_ENTRIES,
            names: MAX_NAMES,
            unpacked: MAX_UNPACKED,
            kept: MAX_KEPT,
            small,
        }
    }

    pub(crate) fn entry(&mut self, name: &str) -> Result<(), ArchiveError> {
        self.entries = self
            .entries
            .checked_sub(1)
            .ok_or(ArchiveError::TooManyEntries { limit: MAX_ENTRIES })?;
        self.name(name)
    }

    pub(crate) fn name(&mut self, name: &str) -> Result<(), ArchiveError> {
        self.names = self
            .names
            .checked_sub(name.len() as u64)
            .ok_or(ArchiveError::TooManyNames { limit: MAX_NAMES })?;
        Ok(())
    }

    /// Whether to keep a file of this size. Where too much was kept already, later files are not.
    pub(crate) fn keep(&mut self, size: u32) -> bool {
        if size > self.small {
            return false;
        }
        let left = self.kept.checked_sub(size.into());
        self.kept = left.unwrap_or(self.kept);
        self.small > 0 && left.is_some()
    }

    /// How many bytes may still be unpacked.
    pub(crate) fn unpacked(&self) -> u64 {
        self.unpacked
    }

    /// After `size` bytes were unpacked.
    pub(crate) fn spend(&mut self, size: u64) {
        self.unpacked = self.unpacked.saturating_sub(size);
    }
}
