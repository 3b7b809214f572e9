//! One gzip member (RFC 1952), with as much of its header as the kernel understands.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::DeflateDecoder;

use crate::ramdisk::error::ArchiveError;
use crate::ramdisk::limits::Budget;
use crate::ramdisk::path::MAX_NAME;
use crate::ramdisk::stream::Stream;

const DEFLATE: u8 = 8;
/// FTEXT means nothing, FNAME is skipped. With others the kernel takes header bytes for data (lib/decompress_inflate.c).
const TEXT: u8 = 1;
const NAME: u8 = 8;
const CHUNK: usize = 64 << 10;

/// The decompressed bytes of a member.
pub(crate) type Member<'a, R> = Stream<BufReader<Inflate<&'a mut R>>>;

/// Reads a member whose magic was read already. `read` has to read to the end, or fail.
pub(crate) fn member<R: BufRead, T>(
    outer: &mut Stream<R>,
    budget: &mut Budget,
    read: impl FnOnce(&mut Member<'_, R>, &mut Budget) -> Result<T, ArchiveError>,
) -> Result<T, ArchiveError> {
    header(outer)?;
    let inflate = Inflate {
        decoder: DeflateDecoder::new(outer.reader()),
        checksum: crc32fast::Hasher::new(),
        damaged: false,
    };
    let reader = BufReader::with_capacity(CHUNK, inflate);
    let mut stream = Stream::new(reader, 0, budget.unpacked());
    let value = read(&mut stream, budget);
    budget.spend(stream.position());
    let inflate = stream.into_reader().into_inner();
    if inflate.damaged {
        return Err(ArchiveError::Gzip("is damaged"));
    }
    let value = value?;
    let (taken, size) = (inflate.decoder.total_in(), inflate.decoder.total_out());
    let checksum = inflate.checksum.finalize();
    outer.advance(taken);
    let mut trailer = [0; 8];
    outer.fill(&mut trailer)?;
    // The size is modulo 2^32 (RFC 1952, 2.3.1).
    let expected = u64::from(checksum) | size << 32;
    match u64::from_le_bytes(trailer) == expected {
        true => Ok(value),
        false => Err(ArchiveError::Gzip(
            "has another checksum or size than it says",
        )),
    }
}

fn header(outer: &mut Stream<impl BufRead>) -> Result<(), ArchiveError> {
    // Method, flags, time (4), extra flags, system.
    let mut bytes = [0; 8];
    outer.fill(&mut bytes)?;
    let [method, flags, ..] = bytes;
    if method != DEFLATE {
        return Err(ArchiveError::Gzip("is not compressed with deflate"));
    }
    if flags & !(TEXT | NAME) != 0 {
        return Err(ArchiveError::Gzip(
            "has header fields that the kernel does not skip; compress with gzip -n",
        ));
    }
    if flags & NAME != 0 {
        for _ in 0..MAX_NAME {
            match outer.byte()? {
                Some(0) => return Ok(()),
                Some(_) => {}
                None => return Err(ArchiveError::Truncated),
            }
        }
        return Err(ArchiveError::Gzip("has an endless name"));
    }
    Ok(())
}

/// Decompresses, and remembers what a trailer has to say.
pub(crate) struct Inflate<R> {
    decoder: DeflateDecoder<R>,
    checksum: crc32fast::Hasher,
    damaged: bool,
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self
            .decoder
            .read(buffer)
            .inspect_err(|error| self.damaged |= error.kind() != io::ErrorKind::Interrupted)?;
        self.checksum.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}
