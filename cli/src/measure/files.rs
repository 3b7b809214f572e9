//! The files of ramdisks, for people and for programs.

use image::{Entry, EntryKind, Listing, ramdisk_registers};
use serde_json::{Value, json};

/// A table for each ramdisk.
pub(super) fn table(listings: &[Listing]) -> String {
    let mut text = String::new();
    for (index, listing) in listings.iter().enumerate() {
        let registers = crate::output::registers(ramdisk_registers(index));
        text += &format!("\nramdisk {}, in {registers}\n", index + 1);
        for entry in &listing.entries {
            text += &line(entry);
        }
        text += &remarks(listing);
    }
    text
}

/// What is said beside the entries, a line each.
fn remarks(listing: &Listing) -> String {
    let remarks = listing.remarks.iter().map(|remark| format!("! {remark}\n"));
    let stopped = listing.stopped.iter().map(|stop| format!("! {stop}\n"));
    remarks.chain(stopped).collect()
}

fn line(entry: &Entry) -> String {
    let digest = match &entry.kind {
        EntryKind::File { sha256 } => sha256.to_string(),
        _ => "-".into(),
    };
    let owner = match (entry.uid, entry.gid) {
        (0, 0) => String::new(),
        (uid, gid) => format!("  (owner {uid}, group {gid})"),
    };
    format!(
        "{} {:>12}  {digest:<64}  {}{}{owner}\n",
        mode(entry),
        entry.size,
        entry.path.escape_debug(),
        tail(&entry.kind),
    )
}

/// What a path alone does not tell.
pub(crate) fn tail(kind: &EntryKind) -> String {
    match kind {
        EntryKind::Symlink { target } => format!(" -> {}", target.escape_debug()),
        EntryKind::CharacterDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            format!(" ({major}, {minor})")
        }
        _ => String::new(),
    }
}

/// As `ls -l` shows it.
pub(crate) fn mode(entry: &Entry) -> String {
    let kind = match entry.kind {
        EntryKind::Directory => 'd',
        EntryKind::File { .. } => '-',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::CharacterDevice { .. } => 'c',
        EntryKind::BlockDevice { .. } => 'b',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
        _ => '?',
    };
    let mut text = String::from(kind);
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    for (shift, (bit, both, alone)) in [6, 3, 0].into_iter().zip(special) {
        let permissions = entry.mode >> shift;
        text.push(if permissions & 4 == 0 { '-' } else { 'r' });
        text.push(if permissions & 2 == 0 { '-' } else { 'w' });
        text.push(match (permissions & 1 != 0, entry.mode & bit != 0) {
            (true, true) => both,
            (false, true) => alone,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// `not_listed` is there where the list is not whole.
pub(super) fn json(listing: &Listing) -> Value {
    let remarks: Vec<_> = listing.remarks.iter().map(ToString::to_string).collect();
    let mut value = json!({
        "files": listing.entries.iter().map(entry_json).collect::<Vec<_>>(),
        "remarks": remarks,
    });
    if let (Some(stop), Some(map)) = (&listing.stopped, value.as_object_mut()) {
        map.insert("not_listed".into(), stop.to_string().into());
    }
    value
}

/// Members that an entry has no use for are left out.
pub(crate) fn entry_json(entry: &Entry) -> Value {
    let mut value = json!({
        "path": entry.path,
        "type": entry.kind.name(),
        "mode": format!("{:04o}", entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime": entry.mtime,
    });
    let more = match &entry.kind {
        EntryKind::File { sha256 } => json!({"size": entry.size, "sha256": sha256.to_string()}),
        EntryKind::Symlink { target } => json!({"target": target}),
        EntryKind::CharacterDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            json!({"major": major, "minor": minor})
        }
        _ => Value::Null,
    };
    if let (Some(map), Value::Object(more)) = (value.as_object_mut(), more) {
        map.extend(more);
    }
    value
}
