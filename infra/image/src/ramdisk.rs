//! Ramdisks: what the kernel unpacks into its first file system, before anything runs.
//!
//! ```text
//! "newc" cpio (kernel: Documentation/driver-api/early-userspace/buffer-format.rst), one entry behind the other:
//!   6  magic "070701", or "070702" with a checksum
//!   13 × 8  hex digits: inode, mode, uid, gid, links, mtime, size, device (2), device that the entry is (2), name size, checksum
//!   name and NUL, padded to 4 | content, padded to 4
//! the last entry of an archive is called TRAILER!!!
//! ```
//!
//! [`RamdiskWriter`] makes the same bytes from the same entries, those of `cpio -o -H newc --reproducible`. [`Lister`] reads what the
//! kernel would unpack (init/initramfs.c), and tells of what it would leave out.

mod archive;
mod compression;
mod entry;
mod error;
mod gzip;
mod header;
mod limits;
mod list;
mod path;
mod remark;
mod stream;
mod tree;
mod writer;

pub use compression::Compression;
pub use entry::{Entry, EntryKind};
pub use error::{ArchiveError, PathError, RamdiskError};
pub use list::{Lister, Listing, Stop};
pub use remark::Remark;
pub use writer::RamdiskWriter;
