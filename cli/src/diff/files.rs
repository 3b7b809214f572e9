//! What changed inside ramdisks.

use image::{Entry, EntryKind, FileChange, Listing, ramdisk_registers};
use serde_json::{Value, json};

use super::lines;
use crate::measure::{CONFIG, entry_json, mode, tail};

/// Below the change of the ramdisk at `index`: its files, and what is to be said of the lists.
pub(super) fn text(
    index: usize,
    before: &[Listing],
    after: &[Listing],
    changes: &[FileChange],
) -> String {
    let mut text = String::new();
    let mut whole = true;
    for (sign, listings) in [("-", before), ("+", after)] {
        if let Some(stop) = listings.get(index).and_then(|list| list.stopped.as_ref()) {
            text += &format!("    {sign} {stop}\n");
            whole = false;
        }
    }
    let changes: Vec<_> = changes
        .iter()
        .filter(|change| change.ramdisk == index + 1)
        .collect();
    if whole && changes.is_empty() {
        text += "    the same files: their order, inode numbers, compression or padding differs\n";
    }
    for change in changes {
        text += &file(change);
    }
    for remark in new_remarks(before.get(index), after.get(index)) {
        text += &format!("    ! {remark}\n");
    }
    text
}

fn file(change: &FileChange) -> String {
    let mut text = format!("    {}: {}\n", change.path.escape_debug(), verb(change));
    if change.path == CONFIG {
        text += "      the configuration: config_digest of the evidence and PCR16 follow it\n";
    }
    for (sign, entry) in [("-", &change.before), ("+", &change.after)] {
        if let Some(entry) = entry {
            text += &format!("      {sign} {}\n", show(entry));
        }
    }
    for line in unified(change).into_iter().flatten() {
        text += &format!("        {line}\n");
    }
    text
}

fn verb(change: &FileChange) -> &'static str {
    match (&change.before, &change.after) {
        (None, _) => "added",
        (_, None) => "removed",
        (Some(old), Some(new)) if old.kind.name() != new.kind.name() => "another kind of file",
        (Some(old), Some(new)) if old.kind != new.kind => "changed",
        (Some(old), Some(new)) if old.mode != new.mode => "another mode",
        (Some(old), Some(new)) if (old.uid, old.gid) != (new.uid, new.gid) => "another owner",
        _ => "another time",
    }
}

/// On one line, all that may differ.
fn show(entry: &Entry) -> String {
    let mut text = format!("{} {}:{}", mode(entry), entry.uid, entry.gid);
    if let EntryKind::File { sha256 } = &entry.kind {
        text += &format!(" {} bytes, sha256 {sha256}", entry.size);
    }
    text += &tail(&entry.kind);
    if entry.mtime != 0 {
        text += &format!(", time {}", entry.mtime);
    }
    text
}

fn unified(change: &FileChange) -> Option<Vec<String>> {
    lines::unified(change.before.as_ref()?, change.after.as_ref()?)
}

/// Remarks that only the later image calls for.
fn new_remarks(before: Option<&Listing>, after: Option<&Listing>) -> Vec<String> {
    let remarks = |listing: Option<&Listing>| -> Vec<String> {
        let remarks = listing.into_iter().flat_map(|listing| &listing.remarks);
        remarks.map(ToString::to_string).collect()
    };
    let old = std::collections::BTreeSet::from_iter(remarks(before));
    let mut new = remarks(after);
    new.retain(|remark| !old.contains(remark));
    new
}

pub(super) fn json(change: &FileChange) -> Value {
    json!({
        "ramdisk": change.ramdisk,
        "path": change.path,
        "change": verb(change),
        "before": change.before.as_ref().map(entry_json),
        "after": change.after.as_ref().map(entry_json),
        "lines": unified(change),
        "registers": ramdisk_registers(change.ramdisk - 1),
    })
}

/// The ramdisks that have no whole list, by their number, and why.
pub(super) fn not_listed(listings: &[Listing]) -> Value {
    let stopped = listings.iter().enumerate().filter_map(|(index, listing)| {
        let stop = listing.stopped.as_ref()?;
        Some(((index + 1).to_string(), stop.to_string().into()))
    });
    Value::Object(stopped.collect())
}
