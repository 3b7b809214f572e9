//! The AWS Nitro enclave image format (EIF), version 4: what a builder packs, what the hypervisor loads and measures.
//!
//! ```text
//! header, 548 bytes, all integers big-endian
//!   4  magic ".eif"      2  version 4          2  flags: bit 0 = aarch64
//!   8  default memory    8  default processors 2  reserved 0     2  number of sections
//!   32 × 8  offset of each section's header    32 × 8  size of each section's content
//!   4  unused 0          4  CRC-32 (IEEE) of everything but itself
//! sections, each  2 type | 2 flags 0 | 8 size | content
//!   1 kernel, 2 command line, 3 ramdisk (one or more), 4 signature, 5 metadata
//! ```
//!
//! [`Image::read`] takes what an official builder writes and nothing looser: sections lie one behind the other without a gap,
//! so no byte of a file escapes both the checksum and the list of sections. It streams, and holds no large section in memory.
//! [`write()`] makes the same bytes from the same inputs, those of the official builder.
//!
//! Inside the ramdisk sections are archives: [`RamdiskWriter`] makes them, [`Lister`] and [`Image::read_with_files`] list them.
//!
//! The checksum protects from accidents only. Who built an image is told by its measurements, and by [`Signature`].

mod command_line;
mod diff;
mod digest;
mod error;
mod file_diff;
mod header;
mod image;
mod input;
pub mod kernel;
mod measurements;
mod metadata;
mod ramdisk;
mod section;
mod signature;
mod writer;

pub use diff::{Change, changes, ramdisk_registers};
pub use digest::{Pcr, Sha256Digest, Sha384Digest};
pub use error::{Error, Place, SignatureError};
pub use file_diff::{FileChange, file_changes};
pub use header::Architecture;
pub use image::{Content, Image};
pub use measurements::{Measurements, instance_pcr, role_pcr};
pub use metadata::{BuildInfo, Metadata};
pub use ramdisk::{
    ArchiveError, Compression, Entry, EntryKind, Lister, Listing, PathError, RamdiskError,
    RamdiskWriter, Remark, Stop,
};
pub use section::{Kind, MAX_IMAGE};
pub use signature::{Signature, sign};
pub use writer::{Recipe, Source, write};
