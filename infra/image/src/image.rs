//! The reader.

use std::io::Read;

use crate::command_line;
use crate::digest::Sha384Digest;
use crate::error::Error;
use crate::header::{Architecture, Header};
use crate::input::Input;
use crate::kernel;
use crate::measurements::{Measurements, Measuring};
use crate::metadata::Metadata;
use crate::ramdisk::{Lister, Listing};
use crate::section::Kind;
use crate::signature::Signature;

/// An image that was read whole and holds together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The processor that it is for.
    pub architecture: Architecture,
    /// Memory for the enclave where its starter names none, in bytes. Not measured.
    pub default_memory: u64,
    /// Likewise.
    pub default_processors: u64,
    /// CRC-32 of everything but itself.
    pub checksum: u32,
    /// Size of the file, in bytes.
    pub size: u64,
    /// The kernel.
    pub kernel: Content,
    /// What a bzImage says of its version and its build, at most 512 bytes; escaped. Other kernels say nothing.
    pub kernel_version: Option<String>,
    /// What the kernel is started with. May have control characters in it; escape before printing.
    pub command_line: String,
    /// In the order in which the kernel sees them.
    pub ramdisks: Vec<Content>,
    /// What the builder said.
    pub metadata: Option<Metadata>,
    /// Checked: its certificate's key signed this PCR0. Who that is, the reader does not know.
    pub signature: Option<Signature>,
    /// What follows from all this.
    pub measurements: Measurements,
}

/// A section too large to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// In bytes.
    pub size: u64,
    /// Of the content, without the section's header.
    pub sha384: Sha384Digest,
}

impl Image {
    /// Reads to the end of `reader`, which may come from anywhere. Takes some 64 KiB of memory and at most the limits of the small
    /// sections and of the kernel's start (1.1 MiB), whatever the file claims; never reads more than [`MAX_IMAGE`](crate::MAX_IMAGE).
    ///
    /// # Errors
    /// The first thing that does not hold, in the order of the file; then checksum and signature.
    pub fn read(reader: impl Read) -> Result<Self, Error> {
        Self::parse(reader, None).map(|(image, _)| image)
    }

    /// As [`read`](Self::read), and lists the files of each ramdisk, of which those of at most `keep` bytes are kept. Takes as much
    /// memory beside that as [`Lister::ramdisk`] says. What cannot be listed is no error.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_with_files(reader: impl Read, keep: u32) -> Result<(Self, Vec<Listing>), Error> {
        Self::parse(reader, Some(Lister::new(keep)))
    }

    fn parse(reader: impl Read, mut lister: Option<Lister>) -> Result<(Self, Vec<Listing>), Error> {
        let mut listings = Vec::new();
        let mut input = Input::new(reader);
        let header = input.header()?;
        let mut found = Found::default();
        let mut measuring = Measuring::new();
        for (index, &size) in header.sizes.iter().enumerate() {
            let kind = input.section_header(index, size)?;
            found.expect(index, kind)?;
            kind.check_size(size)?;
            match kind {
                Kind::Kernel => {
                    let mut section = input.section(kind, size, &mut measuring);
                    found.kernel_version = kernel::version(&section.start(kernel::START)?);
                    found.kernel = Some(section.finish()?);
                }
                Kind::Ramdisk => {
                    let mut section = input.section(kind, size, &mut measuring);
                    if let Some(lister) = &mut lister {
                        listings.push(lister.ramdisk(&mut section)?);
                    }
                    found.ramdisks.push(section.finish()?);
                }
                Kind::CommandLine | Kind::Signature | Kind::Metadata => {
                    let content = input.small(kind, size)?;
                    measuring.update(kind, &content);
                    found.small(kind, content);
                }
            }
            measuring.end(kind);
        }
        let actual = input.end()?;
        if actual != header.checksum {
            return Err(Error::Checksum {
                expected: header.checksum,
                actual,
            });
        }
        let image = found.image(&header, measuring.finish())?;
        Ok((image, listings))
    }
}

/// The sections so far.
#[derive(Default)]
struct Found {
    kernel: Option<Content>,
    kernel_version: Option<String>,
    command_line: Option<Vec<u8>>,
    ramdisks: Vec<Content>,
    metadata: Option<Vec<u8>>,
    signature: Option<Vec<u8>>,
}

impl Found {
    /// Kernel and command line come first, since order is measured; of all but ramdisks there is one.
    fn expect(&self, index: usize, actual: Kind) -> Result<(), Error> {
        let duplicate = match actual {
            Kind::Kernel => self.kernel.is_some(),
            Kind::CommandLine => self.command_line.is_some(),
            Kind::Ramdisk => false,
            Kind::Signature => self.signature.is_some(),
            Kind::Metadata => self.metadata.is_some(),
        };
        if duplicate {
            return Err(Error::Duplicate(actual));
        }
        let expected = match index {
            0 => Kind::Kernel,
            1 => Kind::CommandLine,
            _ => return Ok(()),
        };
        if actual != expected {
            return Err(Error::Order {
                index,
                expected,
                actual,
            });
        }
        Ok(())
    }

    fn small(&mut self, kind: Kind, content: Vec<u8>) {
        match kind {
            Kind::CommandLine => self.command_line = Some(content),
            Kind::Signature => self.signature = Some(content),
            _ => self.metadata = Some(content),
        }
    }

    fn image(self, header: &Header, mut measurements: Measurements) -> Result<Image, Error> {
        let kernel = self.kernel.ok_or(Error::Missing(Kind::Kernel))?;
        let command_line = self.command_line.ok_or(Error::Missing(Kind::CommandLine))?;
        if self.ramdisks.is_empty() {
            return Err(Error::Missing(Kind::Ramdisk));
        }
        let signature = match self.signature {
            Some(bytes) => Some(Signature::verify(&bytes, &measurements.pcr0)?),
            None => None,
        };
        measurements.pcr8 = signature.as_ref().map(Signature::pcr8);
        Ok(Image {
            architecture: header.architecture,
            default_memory: header.default_memory,
            default_processors: header.default_processors,
            checksum: header.checksum,
            size: header.image_size(),
            kernel,
            kernel_version: self.kernel_version,
            command_line: command_line::check(&command_line)?.to_owned(),
            ramdisks: self.ramdisks,
            metadata: self
                .metadata
                .map(|bytes| Metadata::parse(&bytes))
                .transpose()?,
            signature,
            measurements,
        })
    }
}
