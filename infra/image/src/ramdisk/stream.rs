//! Bytes with a position, as the kernel counts it.

use std::io::{BufRead, ErrorKind};

use crate::ramdisk::error::ArchiveError;
use crate::ramdisk::limits::MAX_UNPACKED;

/// What an archive is read from. An error of the reader looks like its end here; whoever made the reader knows better.
pub(crate) struct Stream<R> {
    reader: R,
    position: u64,
    /// Where reading ends, whatever there is.
    end: u64,
}

impl<R: BufRead> Stream<R> {
    /// Begins at `position` and is not read beyond `end`.
    pub(crate) fn new(reader: R, position: u64, end: u64) -> Self {
        Self {
            reader,
            position,
            end,
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The reader itself; what is taken from it has to be told to [`advance`](Self::advance).
    pub(crate) fn reader(&mut self) -> &mut R {
        &mut self.reader
    }

    pub(crate) fn advance(&mut self, count: u64) {
        self.position = self.position.saturating_add(count);
    }

    pub(crate) fn into_reader(self) -> R {
        self.reader
    }

    /// The next byte; none at the end.
    pub(crate) fn byte(&mut self) -> Result<Option<u8>, ArchiveError> {
        let byte = self.available()?.first().copied();
        if byte.is_some() {
            self.consume(1);
        }
        Ok(byte)
    }

    /// Skips zeros, then takes the next byte; none at the end.
    pub(crate) fn after_zeros(&mut self) -> Result<Option<u8>, ArchiveError> {
        loop {
            let available = self.available()?;
            match available.iter().position(|byte| *byte != 0) {
                Some(zeros) => {
                    self.consume(zeros);
                    return self.byte();
                }
                None if available.is_empty() => return Ok(None),
                None => {
                    let count = available.len();
                    self.consume(count);
                }
            }
        }
    }

    /// Exactly as many bytes.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        let mut rest = buffer;
        while !rest.is_empty() {
            let available = self.available()?;
            let count = available.len().min(rest.len());
            if count == 0 {
                return Err(ArchiveError::Truncated);
            }
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(available.get(..count).unwrap_or_default());
            rest = later;
            self.consume(count);
        }
        Ok(())
    }

    /// Exactly `size` bytes, part by part.
    pub(crate) fn each(
        &mut self,
        size: u64,
        mut part: impl FnMut(&[u8]),
    ) -> Result<(), ArchiveError> {
        let mut left = size;
        while left > 0 {
            let available = self.available()?;
            let count =
                usize::try_from(left).map_or(available.len(), |left| left.min(available.len()));
            if count == 0 {
                return Err(ArchiveError::Truncated);
            }
            part(available.get(..count).unwrap_or_default());
            left -= count as u64;
            self.consume(count);
        }
        Ok(())
    }

    /// Padding.
    pub(crate) fn zeros(&mut self, count: usize) -> Result<(), ArchiveError> {
        let mut bytes = [0; 3];
        let padding = bytes.get_mut(..count).unwrap_or_default();
        self.fill(padding)?;
        match padding.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(ArchiveError::Padding { at: self.position }),
        }
    }

    fn available(&mut self) -> Result<&[u8], ArchiveError> {
        if self.position >= self.end {
            return Err(ArchiveError::TooLarge {
                limit: MAX_UNPACKED,
            });
        }
        while let Err(error) = self.reader.fill_buf() {
            if error.kind() != ErrorKind::Interrupted {
                return Ok(&[]);
            }
        }
        Ok(self.reader.fill_buf().unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
        self.advance(count as u64);
    }
}
