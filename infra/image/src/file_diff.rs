//! What differs between the files of two images.

use std::collections::BTreeMap;

use crate::ramdisk::{Entry, Listing};

/// A path that is another thing in one image than in the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Which ramdisk of both, from 1.
    pub ramdisk: usize,
    /// As in the list; may have control characters in it.
    pub path: String,
    /// None where it was not there.
    pub before: Option<Entry>,
    /// None where it is not there any more.
    pub after: Option<Entry>,
}

/// Every path of which the entries differ, ramdisk by ramdisk, sorted. Of several entries with one path the last counts, as for the
/// kernel. A ramdisk that is not listed whole in both images is left out: nobody knows what is missing in a list.
pub fn file_changes(before: &[Listing], after: &[Listing]) -> Vec<FileChange> {
    let empty = Listing::default();
    let mut changes = Vec::new();
    for index in 0..before.len().max(after.len()) {
        let old = before.get(index).unwrap_or(&empty);
        let new = after.get(index).unwrap_or(&empty);
        if old.stopped.is_some() || new.stopped.is_some() {
            continue;
        }
        let (old, new) = (by_path(old), by_path(new));
        let mut paths: Vec<_> = old.keys().chain(new.keys()).copied().collect();
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            let (before, after) = (old.get(path).copied(), new.get(path).copied());
            if !alike(before, after) {
                changes.push(FileChange {
                    ramdisk: index + 1,
                    path: path.to_owned(),
                    before: before.cloned(),
                    after: after.cloned(),
                });
            }
        }
    }
    changes
}

/// Whether two entries say the same; one may have been kept and the other not.
fn alike(before: Option<&Entry>, after: Option<&Entry>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return before.is_none() && after.is_none();
    };
    let said = |entry: &Entry| (entry.mode, entry.uid, entry.gid, entry.mtime, entry.size);
    before.kind == after.kind && said(before) == said(after)
}

fn by_path(listing: &Listing) -> BTreeMap<&str, &Entry> {
    let entries = listing.entries.iter();
    entries.map(|entry| (entry.path.as_str(), entry)).collect()
}
