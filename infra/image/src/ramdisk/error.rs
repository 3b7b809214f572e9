/// Why a ramdisk cannot be written, or cannot be listed. Paths are those of the archive; escaped where they are shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RamdiskError {
    /// Reading or writing failed; nothing is known about the ramdisk.
    #[error("input or output failed")]
    Io(#[from] std::io::Error),
    /// A name that no entry may have.
    #[error("{path:?} cannot be an entry's path")]
    Path {
        /// As it was given.
        path: String,
        /// Why.
        #[source]
        reason: PathError,
    },
    /// Permissions beyond 07777.
    #[error("mode {mode:#o} of {path:?} has more than permissions in it; give at most 0o7777")]
    Mode {
        /// Of the entry.
        path: String,
        /// As it was given.
        mode: u32,
    },
    /// The kernel would let the later one win; say it once.
    #[error("{0:?} is there twice")]
    Duplicate(String),
    /// The kernel would leave the entry out.
    #[error("{path:?} comes before its directory {parent:?}; add the directory first")]
    NoParent {
        /// Of the entry.
        path: String,
        /// What is missing.
        parent: String,
    },
    /// The format has 32 bits for a size.
    #[error("{path:?} has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Of the entry.
        path: String,
        /// In bytes.
        size: u64,
        /// In bytes.
        limit: u64,
    },
    /// More entries than there may be.
    #[error("more than {limit} entries")]
    TooMany {
        /// How many there may be.
        limit: u64,
    },
    /// An input of the writer that did not have the size it was announced with.
    #[error("{0:?} changed its size while it was read")]
    SourceChanged(String),
}

/// Why the list of a ramdisk ends early. Positions are bytes of what the kernel unpacks: for a compressed archive, decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Without a trailer, an archive would go on in the next ramdisk.
    #[error("it ends inside an archive")]
    Truncated,
    /// Neither an archive nor compressed in a way that the kernel knows.
    #[error("at byte {at} there is no archive (cpio newc) and no compressed one")]
    NotAnArchive {
        /// Position.
        at: u64,
    },
    /// Among the entries of an archive.
    #[error("at byte {at} there is no entry of an archive (cpio newc)")]
    Magic {
        /// Position.
        at: u64,
    },
    /// The kernel does not take it.
    #[error("at byte {at} there is an archive in the old format; pack it with cpio -H newc")]
    OldFormat {
        /// Position.
        at: u64,
    },
    /// In an entry's header.
    #[error("the entry at byte {at} has a number that is not 8 hex digits")]
    Number {
        /// Position.
        at: u64,
    },
    /// An entry's name.
    #[error("the name of the entry at byte {at} is refused")]
    Path {
        /// Position.
        at: u64,
        /// Why.
        #[source]
        reason: PathError,
    },
    /// Nobody reads what is there.
    #[error("the padding before byte {at} is not zero")]
    Padding {
        /// Position.
        at: u64,
    },
    /// A file type that Linux does not know.
    #[error("{path:?} has mode {mode:#o}, of no known file type")]
    Type {
        /// Of the entry.
        path: String,
        /// All of it.
        mode: u32,
    },
    /// The kernel skips such an entry.
    #[error("{path:?} has {size} bytes of content, but is not a file")]
    Content {
        /// Of the entry.
        path: String,
        /// In bytes.
        size: u64,
    },
    /// Empty, above 4095 bytes, not UTF-8, or with a NUL.
    #[error("{path:?} is a symbolic link to what cannot be a path")]
    Target {
        /// Of the link.
        path: String,
    },
    /// Accidents look like this; an attacker computes it anew.
    #[error("{path:?} has checksum {expected:08x} in its header, {actual:08x} of its content")]
    Checksum {
        /// Of the entry.
        path: String,
        /// As in the header.
        expected: u32,
        /// Computed.
        actual: u32,
    },
    /// Only its name may be of interest.
    #[error("the trailer at byte {at} has a file type or content")]
    Trailer {
        /// Position.
        at: u64,
    },
    /// What it unpacks to may be anything.
    #[error("the gzip stream {0}")]
    Gzip(&'static str),
    /// The kernel stops with an error there.
    #[error("at byte {at} of a compressed stream there is something other than an archive")]
    Junk {
        /// Position.
        at: u64,
    },
    /// Over all ramdisks of an image.
    #[error("the ramdisks have more than {limit} entries")]
    TooManyEntries {
        /// How many there may be.
        limit: u32,
    },
    /// Over all ramdisks of an image.
    #[error("the names in the ramdisks have more than {limit} bytes")]
    TooManyNames {
        /// In bytes.
        limit: u64,
    },
    /// Over all ramdisks of an image.
    #[error("the ramdisks unpack to more than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// No name at all.
    #[error("it is empty")]
    Empty,
    /// Above 4095 bytes, or a part of it above 255.
    #[error("it is longer than Linux takes (4095 bytes, 255 between slashes)")]
    TooLong,
    /// It would end the archive.
    #[error("this name ends an archive")]
    Trailer,
    /// Only for written paths: others look alike or act on terminals.
    #[error("it has a character that is not printable ASCII")]
    Character,
    /// One file, one name. For written paths also a leading slash, an empty part, and ".".
    #[error(
        "it is not a plain path from the root: no \"..\", and where it is written no leading slash, empty part or \".\""
    )]
    Component,
    /// Only for read paths.
    #[error("it has more than 64 parts")]
    TooDeep,
    /// Only for read paths: a NUL ends it, and is nowhere else.
    #[error("it does not end with its only NUL")]
    Nul,
    /// Only for read paths.
    #[error("it is not UTF-8")]
    Utf8,
}
