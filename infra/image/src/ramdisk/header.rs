//! The first 110 bytes of an entry.

use crate::ramdisk::error::ArchiveError;

/// Length in bytes.
pub(crate) const LENGTH: usize = 110;
/// Without a checksum.
const PLAIN: &[u8; 6] = b"070701";
const CHECKED: &[u8; 6] = b"070702";
/// What `cpio -o` writes if it is not told otherwise (`-H odc`). The kernel does not take it.
const OLD: &[u8; 6] = b"070707";

/// File type bits of a mode (`S_IFMT`, inode(7)).
pub(crate) const TYPE: u32 = 0o170_000;
pub(crate) const SOCKET: u32 = 0o140_000;
pub(crate) const SYMLINK: u32 = 0o120_000;
pub(crate) const FILE: u32 = 0o100_000;
pub(crate) const BLOCK: u32 = 0o060_000;
pub(crate) const DIRECTORY: u32 = 0o040_000;
pub(crate) const CHARACTER: u32 = 0o020_000;
pub(crate) const FIFO: u32 = 0o010_000;
/// What is not type.
pub(crate) const PERMISSIONS: u32 = 0o7777;

/// The fields in their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) inode: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    pub(crate) mtime: u32,
    pub(crate) size: u32,
    /// Major and minor of the device that the file was on.
    pub(crate) on: (u32, u32),
    /// Major and minor of the device that the entry is.
    pub(crate) is: (u32, u32),
    /// With the final NUL.
    pub(crate) name_size: u32,
    /// Sum of the content's bytes, where the magic says that there is one.
    pub(crate) check: u32,
}

impl Header {
    /// The header, and whether its checksum means anything. `at` is where it is in the archive, for errors.
    pub(crate) fn parse(bytes: &[u8; LENGTH], at: u64) -> Result<(Self, bool), ArchiveError> {
        let (magic, mut rest) = bytes.split_at(PLAIN.len());
        let checked = match magic {
            magic if magic == PLAIN => false,
            magic if magic == CHECKED => true,
            magic if magic == OLD => return Err(ArchiveError::OldFormat { at }),
            _ => return Err(ArchiveError::Magic { at }),
        };
        let mut field = || {
            let (digits, next) = rest.split_at_checked(8)?;
            rest = next;
            let mut value = [0; 4];
            hex::decode_to_slice(digits, &mut value).ok()?;
            Some(u32::from_be_bytes(value))
        };
        let mut field = || field().ok_or(ArchiveError::Number { at });
        // In this order.
        let header = Self {
            inode: field()?,
            mode: field()?,
            uid: field()?,
            gid: field()?,
            links: field()?,
            mtime: field()?,
            size: field()?,
            on: (field()?, field()?),
            is: (field()?, field()?),
            name_size: field()?,
            check: field()?,
        };
        Ok((header, checked))
    }

    pub(crate) fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let (magic, mut rest) = bytes.split_at_mut(PLAIN.len());
        magic.copy_from_slice(PLAIN);
        let fields = [
            self.inode,
            self.mode,
            self.uid,
            self.gid,
            self.links,
            self.mtime,
            self.size,
            self.on.0,
            self.on.1,
            self.is.0,
            self.is.1,
            self.name_size,
            self.check,
        ];
        for field in fields {
            let (digits, next) = rest.split_at_mut(8);
            digits.copy_from_slice(format!("{field:08X}").as_bytes());
            rest = next;
        }
        bytes
    }
}

/// Zeros up to the next multiple of four.
pub(crate) fn padding(length: u64) -> usize {
    match length % 4 {
        1 => 3,
        2 => 2,
        3 => 1,
        _ => 0,
    }
}
