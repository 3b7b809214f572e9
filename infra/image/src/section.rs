//! The kinds of sections, and how large each may be.

use crate::error::{Error, Place};

/// Length of a section's own header.
pub(crate) const HEADER: usize = 12;

/// Largest image that is read or written: more than the memory of most parent instances gives an enclave. Bounds the work, for
/// sections are streamed.
pub const MAX_IMAGE: u64 = 16 << 30;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A bzImage, or an Image on aarch64.
    Kernel,
    /// What the kernel is started with.
    CommandLine,
    /// A cpio archive; the kernel sees all of them behind one another.
    Ramdisk,
    /// A signature of PCR0 with its certificate.
    Signature,
    /// JSON for people; not measured.
    Metadata,
}

impl Kind {
    pub(crate) fn from_code(code: u16) -> Option<Self> {
        [
            Self::Kernel,
            Self::CommandLine,
            Self::Ramdisk,
            Self::Signature,
            Self::Metadata,
        ]
        .into_iter()
        .find(|kind| kind.code() == code)
    }

    pub(crate) fn code(self) -> u16 {
        match self {
            Self::Kernel => 1,
            Self::CommandLine => 2,
            Self::Ramdisk => 3,
            Self::Signature => 4,
            Self::Metadata => 5,
        }
    }

    /// Most bytes of content.
    pub(crate) fn limit(self) -> u64 {
        match self {
            // Twenty times a distribution's kernel.
            Self::Kernel => 256 << 20,
            // COMMAND_LINE_SIZE of x86_64 and aarch64 is 2048 with the final NUL: the kernel cuts off what is longer.
            Self::CommandLine => 2047,
            Self::Ramdisk => MAX_IMAGE,
            // A certificate and a signature, two bytes for each of theirs: ten times what is usual.
            Self::Signature => 64 << 10,
            // `docker inspect` of an image is in it: some ten kilobytes.
            Self::Metadata => 1 << 20,
        }
    }

    /// Checks a size before anything of that size is read or allocated.
    pub(crate) fn check_size(self, size: u64) -> Result<(), Error> {
        if size > self.limit() {
            return Err(Error::TooLarge {
                what: Place::Section(self),
                limit: self.limit(),
                actual: size,
            });
        }
        // A command line may be empty; a kernel without one starts all the same.
        if size == 0 && self != Self::CommandLine {
            return Err(Error::Empty(self));
        }
        Ok(())
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::CommandLine => "command line",
            Self::Ramdisk => "ramdisk",
            Self::Signature => "signature",
            Self::Metadata => "metadata",
        })
    }
}
