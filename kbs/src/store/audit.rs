//! Reading the log as its auditor does: each entry follows the one before, and the whole is what checkpoints signed.

use std::collections::BTreeMap;
use std::io::{BufRead, Read as _};
use std::path::Path;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use super::chain::{COLUMNS, GENESIS};
use super::entry::{Broken, Entry, Record};
use super::note::{Checkpoint, LogPublicKey, MAX_NOTE};
use super::tree::{Node, Tree};
use super::{Store, StoreError, file_error};

/// A line of an export: an entry of a page at most, or a checkpoint.
const MAX_LINE: u64 = 256 * 1024;

/// Reads a checkpoint; an error names where it was found.
pub(super) fn open_note(
    name: &str,
    note: &str,
    key: &LogPublicKey,
) -> Result<Checkpoint, StoreError> {
    key.open(note).map_err(|problem| StoreError::Checkpoint {
        source_name: name.to_owned(),
        problem,
    })
}

/// A checkpoint file's text; none when there is no such file.
pub(super) fn read_note(path: &Path) -> Result<Option<String>, StoreError> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(file_error(path, source)),
    };
    let mut note = String::new();
    file.take(MAX_NOTE as u64 + 1)
        .read_to_string(&mut note)
        .map_err(|source| file_error(path, source))?;
    Ok(Some(note))
}

/// What the tree has to be at each length that somebody signed.
#[derive(Default)]
pub(super) struct Expected {
    by_size: BTreeMap<u64, Vec<Node>>,
    newest: u64,
    verified: u64,
}

impl Expected {
    pub(super) fn add(&mut self, checkpoint: Checkpoint) {
        let Checkpoint { size, root } = checkpoint;
        self.newest = self.newest.max(size);
        self.by_size.entry(size).or_default().push(root);
    }

    /// At the tree's length; each length comes once.
    pub(super) fn check(&mut self, tree: &Tree) -> Result<(), StoreError> {
        let Some(signed) = self.by_size.remove(&tree.size()) else {
            return Ok(());
        };
        let root = tree.root();
        for expected in signed {
            if expected != root {
                return Err(broken(
                    tree.size(),
                    "it, or one before, is not what a checkpoint signed",
                ));
            }
            self.verified += 1;
        }
        Ok(())
    }

    /// Nobody signed more than there is.
    pub(super) fn finish(&self, size: u64) -> Result<(), StoreError> {
        if self.by_size.is_empty() {
            return Ok(());
        }
        Err(broken(
            size.saturating_add(1),
            "it is gone: a checkpoint signed a longer log",
        ))
    }
}

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audited {
    /// Entries, all of them in order.
    pub entries: u64,
    /// `hash` of the last one, or zeros.
    pub hash: String,
    /// Checkpoints that the log agrees with.
    pub checkpoints: u64,
    /// Entries that the newest of them covers.
    pub signed: u64,
}

/// Follows the chain, entry by entry.
struct Audit<'a> {
    /// Without it, the chain shows edits by whoever cannot sign checkpoints.
    mac: Option<&'a hmac::Key>,
    tree: Tree,
    prev: String,
}

impl<'a> Audit<'a> {
    fn new(mac: Option<&'a hmac::Key>) -> Self {
        Self {
            mac,
            tree: Tree::default(),
            prev: GENESIS.to_owned(),
        }
    }

    fn entry(&mut self, record: &Record, mac: &str) -> Result<(), StoreError> {
        let Record { entry, hash } = record;
        let seq = self.tree.size() + 1;
        if u64::try_from(entry.seq) != Ok(seq) {
            return Err(broken(seq, "an entry is missing"));
        }
        if entry.prev != self.prev {
            return Err(broken(seq, "it does not follow the entry before"));
        }
        if *hash != entry.hash() {
            return Err(broken(seq, "it was changed"));
        }
        if let Some(key) = self.mac {
            let mac = hex::decode(mac).unwrap_or_default();
            if hmac::verify(key, hash.as_bytes(), &mac).is_err() {
                return Err(broken(seq, "it was not written by this broker"));
            }
        }
        let mut leaf: Node = [0; 32];
        hex::decode_to_slice(hash, &mut leaf).map_err(|_form| broken(seq, "it was changed"))?;
        self.tree.push(&leaf);
        self.prev.clone_from(hash);
        Ok(())
    }

    fn finish(self, expected: Expected) -> Result<Audited, StoreError> {
        expected.finish(self.tree.size())?;
        Ok(Audited {
            entries: self.tree.size(),
            hash: self.prev,
            checkpoints: expected.verified,
            signed: expected.newest,
        })
    }
}

impl Store {
    /// Hands every entry to `each`, oldest first, after checking it against the one before.
    ///
    /// # Errors
    /// [`StoreError::Log`] at the first entry that does not fit; those before it are sound.
    pub(crate) fn read_log(&self, mut each: impl FnMut(&Record)) -> Result<(), StoreError> {
        let mut audit = Audit::new(Some(&self.keys.mac));
        self.entries(|record, mac| {
            audit.entry(record, mac)?;
            each(record);
            Ok(())
        })
    }

    /// The whole log against its chain, the checkpoints in the database, and those of `files`.
    ///
    /// # Errors
    /// [`StoreError::Log`] at the first entry that does not fit.
    pub(crate) fn audit(&self, files: &[&Path]) -> Result<Audited, StoreError> {
        let key = self.keys.signer.public();
        let mut expected = of_files(files, key)?;
        self.checkpoints(|note| {
            expected.add(open_note("in the database", note, key)?);
            Ok(())
        })?;
        let mut audit = Audit::new(Some(&self.keys.mac));
        expected.check(&audit.tree)?;
        self.entries(|record, mac| {
            audit.entry(record, mac)?;
            expected.check(&audit.tree)
        })?;
        audit.finish(expected)
    }

    /// Every checkpoint and then every entry as one JSON object per line, as [`audit_export`] reads them.
    ///
    /// # Errors
    /// As [`Store::read_log`]; what was handed over until then is sound.
    pub(crate) fn export(
        &self,
        mut line: impl FnMut(&str) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // In this order the log has all that they sign, however it grows meanwhile.
        self.checkpoints(|note| {
            line(&json(&Line::Checkpoint {
                checkpoint: note.to_owned(),
            }))
        })?;
        let mut audit = Audit::new(Some(&self.keys.mac));
        self.entries(|record, mac| {
            audit.entry(record, mac)?;
            let Record { entry, hash } = record;
            line(&json(&Line::Entry {
                entry: Box::new(entry.clone()),
                hash: hash.clone(),
            }))
        })
    }

    fn entries(
        &self,
        mut each: impl FnMut(&Record, &str) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let connection = self.reader();
        let mut statement =
            connection.prepare(&format!("SELECT {COLUMNS} FROM release_log ORDER BY seq"))?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let mac: String = row.get("mac")?;
            let record = Record {
                entry: Entry::read(row)?,
                hash: row.get("hash")?,
            };
            each(&record, &mac)?;
        }
        Ok(())
    }

    /// Oldest first.
    fn checkpoints(
        &self,
        mut each: impl FnMut(&str) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let connection = self.reader();
        let mut statement = connection.prepare("SELECT note FROM log_checkpoint ORDER BY size")?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let note: String = row.get(0)?;
            each(&note)?;
        }
        Ok(())
    }
}

/// A line of an export.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Entry { entry: Box<Entry>, hash: String },
    Checkpoint { checkpoint: String },
}

fn json(line: &Line) -> String {
    serde_json::to_string(line).unwrap_or_default()
}

/// What an auditor without any secret does: an export against its own chain, the checkpoints in it, and those of
/// `files`, all under `key`.
///
/// # Errors
/// [`StoreError::Log`] at the first entry that does not fit; a line that is none of an export counts as one that was
/// changed.
pub(crate) fn audit_export(
    mut export: impl BufRead,
    key: &LogPublicKey,
    files: &[&Path],
) -> Result<Audited, StoreError> {
    let mut expected = of_files(files, key)?;
    let mut audit = Audit::new(None);
    let mut line = Vec::new();
    loop {
        line.clear();
        let seq = audit.tree.size() + 1;
        let unread = || broken(seq, "its line is not one of an export");
        let mut limited = (&mut export).take(MAX_LINE);
        let read = limited.read_until(b'\n', &mut line);
        if read.map_err(|_io| unread())? == 0 {
            break;
        }
        match serde_json::from_slice(&line).map_err(|_form| unread())? {
            Line::Checkpoint { checkpoint } if seq == 1 => {
                expected.add(open_note("in the export", &checkpoint, key)?);
            }
            Line::Checkpoint { .. } => return Err(unread()),
            Line::Entry { entry, hash } => {
                expected.check(&audit.tree)?;
                let entry = *entry;
                audit.entry(&Record { entry, hash }, "")?;
            }
        }
    }
    expected.check(&audit.tree)?;
    audit.finish(expected)
}

fn of_files(files: &[&Path], key: &LogPublicKey) -> Result<Expected, StoreError> {
    let mut expected = Expected::default();
    for file in files {
        let not_found = || file_error(file, std::io::ErrorKind::NotFound.into());
        let note = read_note(file)?.ok_or_else(not_found)?;
        expected.add(open_note(&file.display().to_string(), &note, key)?);
    }
    Ok(expected)
}

fn broken(seq: u64, what: &'static str) -> StoreError {
    Broken {
        seq: i64::try_from(seq).unwrap_or(i64::MAX),
        what,
    }
    .into()
}
