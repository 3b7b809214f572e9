//! The seam between an opened package and the engine that reads it. It remembers which bytes were asked for, so that boot
//! can verify the rest: a package is altered or it is not, whether or not the engine would have noticed.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use engine::ModelFiles;
use sealed_model::{DataKey, Package, Source, UnlockedPackage};

#[cfg(test)]
mod tests;

/// Verified plaintext of a sealed package, as the engine reads models.
pub struct PlainFiles<S> {
    package: UnlockedPackage<S>,
    seen: Mutex<HashMap<String, Vec<Range<u64>>>>,
}

impl<S: Source> PlainFiles<S> {
    /// With `check_segments`, what the publisher signed decides alone; without, a holder of the data key is believed, too.
    ///
    /// # Errors
    /// Where `key` is not the package's, or the package's list of segments is not the one that was signed.
    pub fn open(
        package: Package<S>,
        key: DataKey,
        check_segments: bool,
    ) -> Result<Self, sealed_model::Error> {
        let package = package.unlock(key)?;
        Ok(Self {
            package: match check_segments {
                true => package.check_segments()?,
                false => package,
            },
            seen: Mutex::default(),
        })
    }

    /// Verifies every file of which some part was never read.
    ///
    /// # Errors
    /// The first file that is not what was sealed.
    pub fn verify_rest(&self) -> Result<(), sealed_model::Error> {
        let mut seen =
            std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        for file in self.package.files() {
            let ranges = seen.remove(&file.path).unwrap_or_default();
            if !covers(ranges, file.size) {
                self.package.verify_file(&file.path)?;
            }
        }
        Ok(())
    }
}

impl<S: Source> ModelFiles for PlainFiles<S> {
    fn names(&self) -> Vec<String> {
        self.package
            .files()
            .iter()
            .map(|file| file.path.clone())
            .collect()
    }

    fn len(&self, name: &str) -> Option<u64> {
        self.package.len(name)
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.package.read_at(name, offset, buffer)?;
        let end = offset.saturating_add(buffer.len() as u64);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(name.to_owned()).or_default().push(offset..end);
        Ok(())
    }
}

/// Whether `ranges` together hold every byte below `size`. An empty file holds none, so it counts as never read.
fn covers(mut ranges: Vec<Range<u64>>, size: u64) -> bool {
    ranges.sort_by_key(|range| range.start);
    let mut end = 0;
    for range in ranges {
        if range.start > end {
            return false;
        }
        end = end.max(range.end);
    }
    size > 0 && end >= size
}
