use std::sync::Arc;

use crate::digest::Sha256Digest;

/// One entry of a ramdisk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, without `.` and `..`; the root itself is `.`. May have control characters in it; escape before printing.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permissions with set-user-id, set-group-id and sticky bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Content in bytes; 0 for all but files.
    pub size: u64,
    /// Of a file, where the reader was asked to keep small ones.
    pub content: Option<Arc<[u8]>>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Of its content.
        sha256: Sha256Digest,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points; not checked. May have control characters in it.
        target: String,
    },
    /// A character device.
    CharacterDevice {
        /// Which driver.
        major: u32,
        /// Which of its devices.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Which driver.
        major: u32,
        /// Which of its devices.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A unix socket.
    Socket,
}

impl EntryKind {
    /// In one word, as people say it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File { .. } => "file",
            Self::Symlink { .. } => "symbolic link",
            Self::CharacterDevice { .. } => "character device",
            Self::BlockDevice { .. } => "block device",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
        }
    }
}
