//! One archive: entries up to and with the trailer. As strict as the kernel, and stricter where it would skip or hide something.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use crate::digest::Sha256Digest;
use crate::ramdisk::entry::{Entry, EntryKind};
use crate::ramdisk::error::{ArchiveError, PathError};
use crate::ramdisk::header::{self, Header, padding};
use crate::ramdisk::limits::Budget;
use crate::ramdisk::path::{self, MAX_NAME, TRAILER};
use crate::ramdisk::stream::Stream;

/// What an archive said of one path, and how the kernel would take it.
pub(crate) struct Found {
    pub(crate) entry: Entry,
    /// The path that this is another name of.
    pub(crate) link_to: Option<String>,
}

/// The names of one inode.
struct Links {
    first: String,
    positions: Vec<usize>,
    /// The entry whose content all of them have: the last that brought any.
    content: usize,
}

/// Entries behind a first byte that was read, and is a `0`.
pub(crate) fn read(
    stream: &mut Stream<impl BufRead>,
    budget: &mut Budget,
) -> Result<Vec<Found>, ArchiveError> {
    let mut found: Vec<Found> = Vec::new();
    // The kernel forgets them at each trailer, too.
    let mut inodes: HashMap<(u32, (u32, u32), u32), Links> = HashMap::new();
    let mut first = true;
    loop {
        let at = stream.position() - u64::from(first);
        let mut bytes = [b'0'; header::LENGTH];
        let rest = bytes.get_mut(usize::from(first)..).unwrap_or_default();
        stream.fill(rest)?;
        first = false;
        let (header, checked) = Header::parse(&bytes, at)?;
        let name = name(stream, &header, at)?;
        if name == TRAILER {
            if header.mode & header::TYPE != 0 || header.size != 0 {
                return Err(ArchiveError::Trailer { at });
            }
            settle(&mut found, inodes.into_values());
            return Ok(found);
        }
        budget.entry(&name)?;
        let path = path::normal(&name).map_err(|reason| ArchiveError::Path { at, reason })?;
        let position = found.len();
        let entry = entry(stream, budget, &header, path, checked)?;
        let mut link_to = None;
        // As the kernel: link counts below two are believed, and so is every inode.
        if header.links >= 2
            && !matches!(entry.kind, EntryKind::Directory | EntryKind::Symlink { .. })
        {
            let key = (header.inode, header.on, header.mode & header::TYPE);
            match inodes.get_mut(&key) {
                None => {
                    let links = Links {
                        first: entry.path.clone(),
                        positions: vec![position],
                        content: position,
                    };
                    inodes.insert(key, links);
                }
                Some(links) => {
                    // Kept once more for each further name.
                    budget.name(&links.first)?;
                    link_to = Some(links.first.clone());
                    links.positions.push(position);
                    if entry.size > 0 {
                        links.content = position;
                    }
                }
            }
        }
        found.push(Found { entry, link_to });
    }
}

/// Gives all names of an inode the content that they have in the end: an archive brings it once, mostly with the last.
fn settle(found: &mut [Found], inodes: impl Iterator<Item = Links>) {
    for links in inodes {
        let Some(Found { entry, .. }) = found.get(links.content) else {
            continue;
        };
        let (kind, size, content) = (entry.kind.clone(), entry.size, entry.content.clone());
        for position in links.positions {
            if let Some(Found { entry, .. }) = found.get_mut(position) {
                entry.kind = kind.clone();
                entry.size = size;
                entry.content.clone_from(&content);
            }
        }
    }
}

fn name(
    stream: &mut Stream<impl BufRead>,
    header: &Header,
    at: u64,
) -> Result<String, ArchiveError> {
    let refused = |reason| ArchiveError::Path { at, reason };
    let size = usize::try_from(header.name_size)
        .ok()
        .filter(|size| *size <= MAX_NAME)
        .ok_or(refused(PathError::TooLong))?;
    let mut name = vec![0; size];
    stream.fill(&mut name)?;
    // The kernel ends a name at its first NUL: what follows would be there for others only.
    if name.pop() != Some(0) || name.contains(&0) {
        return Err(refused(PathError::Nul));
    }
    stream.zeros(padding(header::LENGTH as u64 + size as u64))?;
    String::from_utf8(name).ok().ok_or(refused(PathError::Utf8))
}

fn entry(
    stream: &mut Stream<impl BufRead>,
    budget: &mut Budget,
    header: &Header,
    path: String,
    checked: bool,
) -> Result<Entry, ArchiveError> {
    let (major, minor) = header.is;
    let mut size = u64::from(header.size);
    let mut kept = None;
    let kind = match header.mode & header::TYPE {
        header::FILE => {
            let content = content(stream, budget, header.size)?;
            if checked && content.sum != header.check {
                return Err(ArchiveError::Checksum {
                    path,
                    expected: header.check,
                    actual: content.sum,
                });
            }
            kept = content.kept;
            let sha256 = content.sha256;
            EntryKind::File { sha256 }
        }
        header::SYMLINK => {
            let target = target(stream, header.size, &path)?;
            budget.name(&target)?;
            size = 0;
            EntryKind::Symlink { target }
        }
        // The kernel skips such an entry.
        _ if size > 0 => return Err(ArchiveError::Content { path, size }),
        header::DIRECTORY => EntryKind::Directory,
        header::CHARACTER => EntryKind::CharacterDevice { major, minor },
        header::BLOCK => EntryKind::BlockDevice { major, minor },
        header::FIFO => EntryKind::Fifo,
        header::SOCKET => EntryKind::Socket,
        _ => {
            let mode = header.mode;
            return Err(ArchiveError::Type { path, mode });
        }
    };
    Ok(Entry {
        path,
        kind,
        mode: header.mode & header::PERMISSIONS,
        uid: header.uid,
        gid: header.gid,
        mtime: header.mtime,
        size,
        content: kept,
    })
}

struct Content {
    sha256: Sha256Digest,
    sum: u32,
    kept: Option<Arc<[u8]>>,
}

fn content(
    stream: &mut Stream<impl BufRead>,
    budget: &mut Budget,
    size: u32,
) -> Result<Content, ArchiveError> {
    let keep = budget.keep(size);
    let mut kept = Vec::new();
    let mut context = Context::new(&SHA256);
    let mut sum = 0_u32;
    stream.each(size.into(), |part| {
        context.update(part);
        sum = part
            .iter()
            .fold(sum, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        if keep {
            kept.extend_from_slice(part);
        }
    })?;
    stream.zeros(padding(size.into()))?;
    Ok(Content {
        sha256: Sha256Digest::finish(context),
        sum,
        kept: keep.then(|| kept.into()),
    })
}

fn target(
    stream: &mut Stream<impl BufRead>,
    size: u32,
    path: &str,
) -> Result<String, ArchiveError> {
    let refused = || ArchiveError::Target {
        path: path.to_owned(),
    };
    let length = usize::try_from(size)
        .ok()
        .filter(|length| (1..MAX_NAME).contains(length))
        .ok_or_else(refused)?;
    let mut target = vec![0; length];
    stream.fill(&mut target)?;
    stream.zeros(padding(size.into()))?;
    String::from_utf8(target)
        .ok()
        .filter(|target| !target.contains('\0'))
        .ok_or_else(refused)
}
