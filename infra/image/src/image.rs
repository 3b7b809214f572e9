//! The reader.

use std::io::{ErrorKind, Read};

use aws_lc_rs::digest::{Context, SHA384};

use crate::command_line;
use crate::digest::Sha384Digest;
use crate::error::{Error, Place};
use crate::header::{self, Architecture, Header, take};
use crate::measurements::{Measurements, Measuring};
use crate::metadata::Metadata;
use crate::section::{self, Kind};
use crate::signature::Signature;

/// Sections pass through a buffer of this size.
const CHUNK: usize = 64 << 10;

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
    /// sections (1.1 MiB), whatever the file claims; never reads more than [`MAX_IMAGE`](crate::MAX_IMAGE).
    ///
    /// # Errors
    /// The first thing that does not hold, in the order of the file; then checksum and signature.
    pub fn read(reader: impl Read) -> Result<Self, Error> {
        let mut input = Input {
            reader,
            checksum: crc32fast::Hasher::new(),
        };
        let mut bytes = [0; header::LENGTH];
        fill(&mut input.reader, &mut bytes, Place::Header)?;
        let header = Header::parse(&bytes)?;
        input
            .checksum
            .update(bytes.get(..header::CHECKSUM_AT).unwrap_or_default());

        let mut found = Found::default();
        let mut measuring = Measuring::new();
        for (index, &size) in header.sizes.iter().enumerate() {
            let kind = input.section_header(index, size)?;
            found.expect(index, kind)?;
            kind.check_size(size)?;
            match kind {
                Kind::Kernel | Kind::Ramdisk => {
                    let sha384 = input.stream(kind, size, &mut measuring)?;
                    found.content(kind, Content { size, sha384 });
                }
                Kind::CommandLine | Kind::Signature | Kind::Metadata => {
                    let content = input.small(kind, size)?;
                    measuring.update(kind, &content);
                    found.small(kind, content);
                }
            }
            measuring.end(kind);
        }
        input.end()?;
        let actual = input.checksum.finalize();
        if actual != header.checksum {
            return Err(Error::Checksum {
                expected: header.checksum,
                actual,
            });
        }
        found.image(&header, measuring.finish())
    }
}

/// The sections so far.
#[derive(Default)]
struct Found {
    kernel: Option<Content>,
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

    fn content(&mut self, kind: Kind, content: Content) {
        match kind {
            Kind::Kernel => self.kernel = Some(content),
            _ => self.ramdisks.push(content),
        }
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

struct Input<R> {
    reader: R,
    checksum: crc32fast::Hasher,
}

impl<R: Read> Input<R> {
    fn section_header(&mut self, index: usize, table: u64) -> Result<Kind, Error> {
        let place = Place::SectionHeader(index);
        let mut bytes = [0; section::HEADER];
        fill(&mut self.reader, &mut bytes, place)?;
        self.checksum.update(&bytes);
        let mut rest = &bytes[..];
        let code = u16::from_be_bytes(take(&mut rest)?);
        let flags = u16::from_be_bytes(take(&mut rest)?);
        let section = u64::from_be_bytes(take(&mut rest)?);
        let kind = Kind::from_code(code).ok_or(Error::UnknownSection {
            index,
            actual: code,
        })?;
        if flags != 0 {
            return Err(Error::Flags {
                place,
                actual: flags,
            });
        }
        if section != table {
            return Err(Error::SizeMismatch {
                index,
                table,
                section,
            });
        }
        Ok(kind)
    }

    fn stream(
        &mut self,
        kind: Kind,
        size: u64,
        measuring: &mut Measuring,
    ) -> Result<Sha384Digest, Error> {
        let mut context = Context::new(&SHA384);
        let mut buffer = vec![0; CHUNK];
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let part = buffer.get_mut(..length).unwrap_or_default();
            fill(&mut self.reader, part, Place::Section(kind))?;
            self.checksum.update(part);
            context.update(part);
            measuring.update(kind, part);
            left -= length as u64;
        }
        Ok(Sha384Digest::finish(context))
    }

    /// `size` is within the limit of `kind`.
    fn small(&mut self, kind: Kind, size: u64) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        let read = (&mut self.reader).take(size).read_to_end(&mut content)?;
        if read as u64 != size {
            return Err(Error::Truncated(Place::Section(kind)));
        }
        self.checksum.update(&content);
        Ok(content)
    }

    fn end(&mut self) -> Result<(), Error> {
        match fill(&mut self.reader, &mut [0], Place::Image) {
            Ok(()) => Err(Error::TrailingBytes),
            Err(Error::Truncated(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8], place: Place) -> Result<(), Error> {
    reader
        .read_exact(buffer)
        .map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Error::Truncated(place),
            _ => Error::Io(error),
        })
}
