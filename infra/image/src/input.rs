//! Bytes of an image as they are read: checked, counted and measured on the way.

use std::io::{self, ErrorKind, Read};

use aws_lc_rs::digest::{Context, SHA384};

use crate::digest::Sha384Digest;
use crate::error::{Error, Place};
use crate::header::{self, Header, take};
use crate::image::Content;
use crate::measurements::Measuring;
use crate::section::{self, Kind};

/// The file, with the checksum of what was read of it.
pub(crate) struct Input<R> {
    reader: R,
    checksum: crc32fast::Hasher,
}

impl<R: Read> Input<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            checksum: crc32fast::Hasher::new(),
        }
    }

    pub(crate) fn header(&mut self) -> Result<Header, Error> {
        let mut bytes = [0; header::LENGTH];
        fill(&mut self.reader, &mut bytes, Place::Header)?;
        let header = Header::parse(&bytes)?;
        self.checksum
            .update(bytes.get(..header::CHECKSUM_AT).unwrap_or_default());
        Ok(header)
    }

    pub(crate) fn section_header(&mut self, index: usize, table: u64) -> Result<Kind, Error> {
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

    pub(crate) fn section<'a>(
        &'a mut self,
        kind: Kind,
        size: u64,
        measuring: &'a mut Measuring,
    ) -> Section<'a, R> {
        Section {
            input: self,
            measuring,
            context: Context::new(&SHA384),
            kind,
            size,
            left: size,
        }
    }

    /// `size` is within the limit of `kind`.
    pub(crate) fn small(&mut self, kind: Kind, size: u64) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        let read = (&mut self.reader).take(size).read_to_end(&mut content)?;
        if read as u64 != size {
            return Err(Error::Truncated(Place::Section(kind)));
        }
        self.checksum.update(&content);
        Ok(content)
    }

    /// The checksum of everything, which nothing may follow.
    pub(crate) fn end(mut self) -> Result<u32, Error> {
        match fill(&mut self.reader, &mut [0], Place::Image) {
            Ok(()) => Err(Error::TrailingBytes),
            Err(Error::Truncated(_)) => Ok(self.checksum.finalize()),
            Err(error) => Err(error),
        }
    }
}

/// A large section. Everything that is read of it is measured; in the end it was read whole.
pub(crate) struct Section<'a, R> {
    input: &'a mut Input<R>,
    measuring: &'a mut Measuring,
    context: Context,
    kind: Kind,
    size: u64,
    left: u64,
}

impl<R: Read> Section<'_, R> {
    /// Its first bytes; fewer where it ends before.
    pub(crate) fn start(&mut self, length: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn finish(mut self) -> Result<Content, Error> {
        io::copy(&mut self, &mut io::sink())?;
        if self.left > 0 {
            return Err(Error::Truncated(Place::Section(self.kind)));
        }
        let sha384 = Sha384Digest::finish(self.context);
        let size = self.size;
        Ok(Content { size, sha384 })
    }
}

/// Where the file ends too early, the section ends; [`Section::finish`] says so.
impl<R: Read> Read for Section<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let part = buffer.get_mut(..length).unwrap_or_default();
        let read = self.input.reader.read(part)?;
        let part = part.get(..read).unwrap_or_default();
        self.input.checksum.update(part);
        self.context.update(part);
        self.measuring.update(self.kind, part);
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
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
