//! Ramdisk after ramdisk, as the kernel takes them: one row of bytes, in which each archive begins where it has to.

use std::io::{self, BufRead, BufReader, Read};

use crate::ramdisk::archive::{self, Found};
use crate::ramdisk::compression::Compression;
use crate::ramdisk::entry::Entry;
use crate::ramdisk::error::ArchiveError;
use crate::ramdisk::gzip::{self, Member};
use crate::ramdisk::limits::Budget;
use crate::ramdisk::remark::Remark;
use crate::ramdisk::stream::Stream;
use crate::ramdisk::tree::Tree;

const CHUNK: usize = 64 << 10;

/// What is in a ramdisk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// In their order, which is that in which the kernel makes them.
    pub entries: Vec<Entry>,
    /// What the entries alone do not tell.
    pub remarks: Vec<Remark>,
    /// Why there may be more than the list has; none if it is whole.
    pub stopped: Option<Stop>,
}

/// Why a list is not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// Compressed in a way that is not read here. The kernel may well unpack it.
    Compressed(Compression),
    /// An archive that begins at no multiple of four bytes: the kernel leaves it out, and all that follows.
    Unaligned {
        /// Where it begins, counted over all ramdisks.
        at: u64,
    },
    /// Something that no kernel unpacks whole, or that nobody should pack. Nothing of the archive that has it is listed.
    Refused(ArchiveError),
    /// An earlier ramdisk ended the list.
    Before,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Compressed(how) => write!(f, "compressed with {how}, not listed"),
            Self::Unaligned { at } => write!(
                f,
                "the kernel leaves out this archive and all that follows: it begins at byte {at} of the ramdisks, \
                 not at a multiple of four"
            ),
            Self::Refused(error) => {
                write!(f, "not listed: {error}")?;
                match std::error::Error::source(error) {
                    Some(cause) => write!(f, ": {cause}"),
                    None => Ok(()),
                }
            }
            Self::Before => f.write_str("not listed: an earlier ramdisk could not be listed whole"),
        }
    }
}

/// Lists the ramdisks of an image, given in their order.
pub struct Lister {
    budget: Budget,
    tree: Tree,
    ramdisks: usize,
    /// Where the next ramdisk begins, counted over all of them.
    offset: u64,
    /// Behind an uncompressed archive nothing but zeros may come before a multiple of four.
    after_plain: bool,
    over: bool,
}

impl Lister {
    /// Files of at most `keep` bytes are kept with their entries, 8 MiB in all.
    pub fn new(keep: u32) -> Self {
        Self {
            budget: Budget::new(keep),
            tree: Tree::default(),
            ramdisks: 0,
            offset: 0,
            after_plain: false,
            over: false,
        }
    }

    /// Reads the next ramdisk to its end. Nothing in it is an error: what cannot be listed is said in the list. Takes 200 KiB of memory
    /// beside the list, whose limits are 262144 entries with 16 MiB of names over all ramdisks.
    ///
    /// # Errors
    /// What the reader said.
    pub fn ramdisk(&mut self, reader: impl Read) -> io::Result<Listing> {
        self.ramdisks += 1;
        let mut listing = Listing {
            stopped: self.over.then_some(Stop::Before),
            ..Listing::default()
        };
        let tracked = Tracked {
            reader,
            count: 0,
            failed: None,
        };
        let reader = BufReader::with_capacity(CHUNK, tracked);
        let mut stream = Stream::new(reader, self.offset, u64::MAX);
        if !self.over {
            listing.stopped = self
                .archives(&mut stream, &mut listing)
                .unwrap_or_else(|error| Some(Stop::Refused(error)));
        }
        match listing.stopped {
            None => {}
            Some(Stop::Compressed(_)) => {
                self.tree.blind = true;
                self.after_plain = false;
            }
            Some(_) => self.over = true,
        }
        let mut tracked = stream.into_reader().into_inner();
        if tracked.failed.is_none() {
            // What fails here is remembered, too.
            drop(io::copy(&mut tracked, &mut io::sink()));
        }
        if let Some(error) = tracked.failed {
            return Err(error);
        }
        self.offset = self.offset.saturating_add(tracked.count);
        Ok(listing)
    }

    fn archives(
        &mut self,
        stream: &mut Stream<impl BufRead>,
        listing: &mut Listing,
    ) -> Result<Option<Stop>, ArchiveError> {
        while let Some(first) = stream.after_zeros()? {
            let at = stream.position() - 1;
            let plain = first == b'0';
            if !at.is_multiple_of(4) && (plain || self.after_plain) {
                return Ok(Some(Stop::Unaligned { at }));
            }
            self.after_plain = plain;
            if plain {
                let found = archive::read(stream, &mut self.budget)?;
                self.add(found, listing);
                continue;
            }
            let second = stream.byte()?.ok_or(ArchiveError::NotAnArchive { at })?;
            match Compression::from_magic([first, second]) {
                Some(Compression::Gzip) => {
                    for found in gzip::member(stream, &mut self.budget, inside)? {
                        self.add(found, listing);
                    }
                }
                Some(other) => return Ok(Some(Stop::Compressed(other))),
                None => return Err(ArchiveError::NotAnArchive { at }),
            }
        }
        Ok(None)
    }

    fn add(&mut self, found: Vec<Found>, listing: &mut Listing) {
        for found in found {
            self.tree.add(self.ramdisks, &found, &mut listing.remarks);
            listing.entries.push(found.entry);
        }
    }
}

/// The archives in a compressed stream, at least one.
fn inside<R: BufRead>(
    stream: &mut Member<'_, R>,
    budget: &mut Budget,
) -> Result<Vec<Vec<Found>>, ArchiveError> {
    let mut archives = Vec::new();
    loop {
        let first = match archives.is_empty() {
            true => Some(stream.byte()?.ok_or(ArchiveError::Truncated)?),
            false => stream.after_zeros()?,
        };
        let Some(first) = first else {
            return Ok(archives);
        };
        let at = stream.position() - 1;
        if first != b'0' || !at.is_multiple_of(4) {
            return Err(ArchiveError::Junk { at });
        }
        archives.push(archive::read(stream, budget)?);
    }
}

/// Counts, and remembers what the layers above take for the end.
struct Tracked<R> {
    reader: R,
    count: u64,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Tracked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.reader.read(buffer) {
            Ok(read) => {
                self.count = self.count.saturating_add(read as u64);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}
