//! The writer: the same entries give the same bytes.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};

use aws_lc_rs::digest::{Context, SHA256};

use crate::digest::Sha256Digest;
use crate::ramdisk::entry::{Entry, EntryKind};
use crate::ramdisk::error::{PathError, RamdiskError};
use crate::ramdisk::header::{self, Header, padding};
use crate::ramdisk::path::{self, TRAILER};

const CHUNK: usize = 64 << 10;
const ZEROS: [u8; 3] = [0; 3];

/// Writes an archive, uncompressed, entry by entry in the order of the calls. Everything belongs to root and is of 1970; inodes
/// count from 0; a file has one link and a directory two. What the machine knows of the files (times, owners, inodes, the order in
/// a directory) goes nowhere.
///
/// After an error the output is unusable.
pub struct RamdiskWriter<W> {
    out: W,
    entries: Vec<Entry>,
    /// Whether a path is a directory.
    paths: BTreeMap<String, bool>,
}

impl<W: Write> RamdiskWriter<W> {
    /// Begins an archive at the present position of `out`, which has to be a multiple of four within the ramdisk.
    pub fn new(out: W) -> Self {
        Self {
            out,
            entries: Vec::new(),
            paths: BTreeMap::new(),
        }
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// A path that is not relative, printable ASCII, new, and in a directory that was added before; a mode above 07777; a failing
    /// output.
    pub fn directory(mut self, path: &str, mode: u32) -> Result<Self, RamdiskError> {
        self.add(path, EntryKind::Directory, mode)?;
        Ok(self)
    }

    /// Adds a regular file of `size` bytes, at most 4 GiB - 1.
    ///
    /// # Errors
    /// As for [`directory`](Self::directory); `content` that has not `size` bytes.
    pub fn file(
        mut self,
        path: &str,
        mode: u32,
        size: u64,
        content: impl Read,
    ) -> Result<Self, RamdiskError> {
        let length = u32::try_from(size)
            .ok()
            .ok_or_else(|| RamdiskError::TooLarge {
                path: path.to_owned(),
                size,
                limit: u32::MAX.into(),
            })?;
        self.start(path, header::FILE, mode, length, (0, 0))?;
        let sha256 = copy(path, size, content, &mut self.out)?;
        self.pad(size)?;
        self.end(path, EntryKind::File { sha256 }, mode, size);
        Ok(self)
    }

    /// Adds a symbolic link; its mode is 0777, as Linux shows all of them.
    ///
    /// # Errors
    /// As for [`directory`](Self::directory); a target that is empty, not printable ASCII or above 4095 bytes. It may point anywhere.
    pub fn symlink(mut self, path: &str, target: &str) -> Result<Self, RamdiskError> {
        path::check_target(target).map_err(|reason| refused(target, reason))?;
        let size = u32::try_from(target.len())
            .ok()
            .ok_or_else(|| refused(target, PathError::TooLong))?;
        self.start(path, header::SYMLINK, 0o777, size, (0, 0))?;
        self.out.write_all(target.as_bytes())?;
        self.pad(size.into())?;
        let target = target.to_owned();
        self.end(path, EntryKind::Symlink { target }, 0o777, 0);
        Ok(self)
    }

    /// Adds a character device, as `dev/console` with 5 and 1.
    ///
    /// # Errors
    /// As for [`directory`](Self::directory).
    pub fn device(
        mut self,
        path: &str,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> Result<Self, RamdiskError> {
        self.add(path, EntryKind::CharacterDevice { major, minor }, mode)?;
        Ok(self)
    }

    /// Ends the archive, padded to a multiple of four bytes, so that another may follow.
    ///
    /// # Errors
    /// A failing output.
    pub fn finish(mut self) -> Result<Vec<Entry>, RamdiskError> {
        let header = Header {
            links: 1,
            ..Header::default()
        };
        self.write(header, TRAILER)?;
        self.out.flush()?;
        Ok(self.entries)
    }

    /// An entry without content.
    fn add(&mut self, path: &str, kind: EntryKind, mode: u32) -> Result<(), RamdiskError> {
        let (code, device) = match kind {
            EntryKind::CharacterDevice { major, minor } => (header::CHARACTER, (major, minor)),
            _ => (header::DIRECTORY, (0, 0)),
        };
        self.start(path, code, mode, 0, device)?;
        self.end(path, kind, mode, 0);
        Ok(())
    }

    fn start(
        &mut self,
        path: &str,
        code: u32,
        mode: u32,
        size: u32,
        is: (u32, u32),
    ) -> Result<(), RamdiskError> {
        path::check(path).map_err(|reason| refused(path, reason))?;
        if mode & !header::PERMISSIONS != 0 {
            return Err(RamdiskError::Mode {
                path: path.to_owned(),
                mode,
            });
        }
        if let Some(parent) = path::parent(path)
            && self.paths.get(parent) != Some(&true)
        {
            return Err(RamdiskError::NoParent {
                path: path.to_owned(),
                parent: parent.to_owned(),
            });
        }
        let directory = code == header::DIRECTORY;
        if self.paths.insert(path.to_owned(), directory).is_some() {
            return Err(RamdiskError::Duplicate(path.to_owned()));
        }
        let inode = u32::try_from(self.entries.len())
            .ok()
            .ok_or(RamdiskError::TooMany {
                limit: u32::MAX.into(),
            })?;
        let header = Header {
            inode,
            mode: code | mode,
            links: if directory { 2 } else { 1 },
            size,
            is,
            ..Header::default()
        };
        self.write(header, path)
    }

    fn end(&mut self, path: &str, kind: EntryKind, mode: u32, size: u64) {
        self.entries.push(Entry {
            path: path.to_owned(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            size,
            content: None,
        });
    }

    /// `name` has at most 4095 bytes.
    fn write(&mut self, header: Header, name: &str) -> Result<(), RamdiskError> {
        let name_size = u32::try_from(name.len() + 1)
            .ok()
            .ok_or_else(|| refused(name, PathError::TooLong))?;
        self.out.write_all(
            &Header {
                name_size,
                ..header
            }
            .encode(),
        )?;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(header::LENGTH as u64 + u64::from(name_size))
    }

    fn pad(&mut self, length: u64) -> Result<(), RamdiskError> {
        let zeros = ZEROS.get(..padding(length)).unwrap_or_default();
        Ok(self.out.write_all(zeros)?)
    }
}

fn refused(path: &str, reason: PathError) -> RamdiskError {
    RamdiskError::Path {
        path: path.to_owned(),
        reason,
    }
}

/// Exactly the announced size: the header is written already.
fn copy(
    path: &str,
    size: u64,
    mut content: impl Read,
    out: &mut impl Write,
) -> Result<Sha256Digest, RamdiskError> {
    let changed = || RamdiskError::SourceChanged(path.to_owned());
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; CHUNK];
    let mut left = size;
    loop {
        let read = match content.read(&mut buffer) {
            Ok(0) if left == 0 => return Ok(Sha256Digest::finish(context)),
            Ok(0) => return Err(changed()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        left = left.checked_sub(read as u64).ok_or_else(changed)?;
        let part = buffer.get(..read).unwrap_or_default();
        context.update(part);
        out.write_all(part)?;
    }
}
