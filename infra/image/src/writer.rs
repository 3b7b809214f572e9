//! The writer: the same inputs give the same bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::command_line;
use crate::error::Error;
use crate::header::{self, Architecture, Header};
use crate::metadata::Metadata;
use crate::section::{self, Kind};

const CHUNK: usize = 64 << 10;

/// What goes into an image.
pub struct Recipe<'a> {
    /// The processor that it is for.
    pub architecture: Architecture,
    /// Memory for the enclave where its starter names none, in bytes.
    pub default_memory: u64,
    /// Likewise.
    pub default_processors: u64,
    /// The kernel.
    pub kernel: Source<'a>,
    /// What the kernel is started with, at most 2047 bytes.
    pub command_line: &'a str,
    /// At least one, in the order in which the kernel shall see them. The first counts into PCR1, the others into PCR2.
    pub ramdisks: Vec<Source<'a>>,
    /// Not measured.
    pub metadata: &'a Metadata,
    /// What [`sign`](crate::sign) made of the PCR0 of this very image. The writer does not check it; [`Image::read`](crate::Image::read) does.
    pub signature: Option<&'a [u8]>,
}

/// Bytes of a size that is known beforehand.
pub struct Source<'a> {
    reader: Box<dyn Read + 'a>,
    size: u64,
}

impl<'a> Source<'a> {
    /// From memory.
    pub fn bytes(bytes: &'a [u8]) -> Self {
        Self {
            reader: Box::new(bytes),
            size: bytes.len() as u64,
        }
    }

    /// A file, as long as it is now.
    ///
    /// # Errors
    /// Its size cannot be told, or it is not a file.
    pub fn file(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(Self {
            reader: Box::new(file),
            size: metadata.len(),
        })
    }
}

/// Writes an image to `out`, from its start. Sections come in the official builder's order: kernel, command line, metadata,
/// ramdisks, signature.
///
/// # Errors
/// An input that the reader would refuse, and what reading and writing may bring. `out` is unusable then.
pub fn write(recipe: Recipe<'_>, out: &mut (impl Write + Seek)) -> Result<(), Error> {
    command_line::check(recipe.command_line.as_bytes())?;
    let metadata = recipe.metadata.to_bytes()?;
    let mut sections = vec![
        (Kind::Kernel, recipe.kernel),
        (
            Kind::CommandLine,
            Source::bytes(recipe.command_line.as_bytes()),
        ),
        (Kind::Metadata, Source::bytes(&metadata)),
    ];
    if recipe.ramdisks.is_empty() {
        return Err(Error::Missing(Kind::Ramdisk));
    }
    sections.extend(recipe.ramdisks.into_iter().map(|r| (Kind::Ramdisk, r)));
    sections.extend(
        recipe
            .signature
            .map(|bytes| (Kind::Signature, Source::bytes(bytes))),
    );
    for (kind, source) in &sections {
        kind.check_size(source.size)?;
    }
    let header = Header {
        architecture: recipe.architecture,
        default_memory: recipe.default_memory,
        default_processors: recipe.default_processors,
        sizes: sections.iter().map(|(_, source)| source.size).collect(),
        checksum: 0,
    };
    let bytes = header.encode()?;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(bytes.get(..header::CHECKSUM_AT).unwrap_or_default());
    let start = out.stream_position()?;
    out.write_all(&bytes)?;
    for (kind, source) in sections {
        let mut head = Vec::with_capacity(section::HEADER);
        head.extend(kind.code().to_be_bytes());
        head.extend(0_u16.to_be_bytes());
        head.extend(source.size.to_be_bytes());
        checksum.update(&head);
        out.write_all(&head)?;
        copy(kind, source, out, &mut checksum)?;
    }
    out.seek(SeekFrom::Start(start + header::CHECKSUM_AT as u64))?;
    out.write_all(&checksum.finalize().to_be_bytes())?;
    out.seek(SeekFrom::End(0))?;
    Ok(out.flush()?)
}

/// Exactly the announced size: the header is written already.
fn copy(
    kind: Kind,
    mut source: Source<'_>,
    out: &mut impl Write,
    checksum: &mut crc32fast::Hasher,
) -> Result<(), Error> {
    let mut buffer = vec![0; CHUNK];
    let mut left = source.size;
    loop {
        let read = match source.reader.read(&mut buffer) {
            Ok(0) if left == 0 => return Ok(()),
            Ok(0) => return Err(Error::SourceChanged(kind)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        left = left
            .checked_sub(read as u64)
            .ok_or(Error::SourceChanged(kind))?;
        let part = buffer.get(..read).unwrap_or_default();
        checksum.update(part);
        out.write_all(part)?;
    }
}
