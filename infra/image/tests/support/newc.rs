//! Archives made by hand, so that they can be wrong.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use image::{Lister, Listing};

/// An entry as it is in the archive, right unless a test changes it.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) magic: &'static str,
    /// Inode, mode, uid, gid, links, mtime, size, device (2), device that it is (2), name size, checksum.
    pub(crate) fields: [String; 13],
    pub(crate) name: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) padding: u8,
}

pub(crate) const INODE: usize = 0;
pub(crate) const MODE: usize = 1;
pub(crate) const LINKS: usize = 4;
pub(crate) const SIZE: usize = 6;
pub(crate) const NAME_SIZE: usize = 11;
pub(crate) const CHECK: usize = 12;

impl Raw {
    pub(crate) fn new(name: &str, mode: u32, content: &[u8]) -> Self {
        let mut raw = Self {
            magic: "070701",
            fields: std::array::from_fn(|_| "00000000".into()),
            name: [name.as_bytes(), &[0]].concat(),
            content: content.to_vec(),
            padding: 0,
        };
        raw.set(MODE, mode);
        raw.set(LINKS, 1);
        raw.set(SIZE, u32::try_from(content.len()).unwrap());
        raw.set(NAME_SIZE, u32::try_from(name.len() + 1).unwrap());
        raw
    }

    pub(crate) fn set(&mut self, field: usize, value: u32) {
        self.fields[field] = format!("{value:08x}");
    }

    pub(crate) fn with(mut self, field: usize, value: u32) -> Self {
        self.set(field, value);
        self
    }

    pub(crate) fn file(name: &str, content: &[u8]) -> Self {
        Self::new(name, 0o100_644, content)
    }

    pub(crate) fn directory(name: &str) -> Self {
        Self::new(name, 0o040_755, b"").with(LINKS, 2)
    }

    pub(crate) fn symlink(name: &str, target: &str) -> Self {
        Self::new(name, 0o120_777, target.as_bytes())
    }

    pub(crate) fn trailer() -> Self {
        Self::new("TRAILER!!!", 0, b"")
    }
}

/// The entries and nothing else.
pub(crate) fn open_archive(entries: &[Raw]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend(entry.magic.as_bytes());
        bytes.extend(entry.fields.concat().as_bytes());
        bytes.extend(&entry.name);
        bytes.resize(bytes.len().next_multiple_of(4), entry.padding);
        bytes.extend(&entry.content);
        bytes.resize(bytes.len().next_multiple_of(4), entry.padding);
    }
    bytes
}

/// With a trailer behind them.
pub(crate) fn archive(entries: &[Raw]) -> Vec<u8> {
    open_archive(&[entries, &[Raw::trailer()]].concat())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Lists ramdisks one behind the other.
pub(crate) fn listed(ramdisks: &[&[u8]]) -> Vec<Listing> {
    let mut lister = Lister::new(0);
    ramdisks
        .iter()
        .map(|bytes| lister.ramdisk(*bytes).unwrap())
        .collect()
}

pub(crate) fn paths(listing: &Listing) -> Vec<&str> {
    listing.entries.iter().map(|e| e.path.as_str()).collect()
}
