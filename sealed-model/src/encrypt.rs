//! Plaintext files into ciphertexts, in parallel, and on from where an interrupted run stopped.
//!
//! A nonce must never meet two plaintexts. So a file is the smallest thing that is kept: a new encryption takes a new salt and
//! with it a new file key; one that was cut off is thrown away and never continued, since its file may have changed under the
//! nonces it had used. A ciphertext has its name only when it is whole and on disk, and it is kept only where every segment of
//! it opens with this key, for this model, epoch and path, to the bytes that the file has now.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::digest::Sha256;
use crate::layout::{HEADER, Layout, SEGMENT, TAG, len_of};
use crate::progress::Meter;
use crate::seal::io_error;
use crate::stream::{FileKey, Header};
use crate::workers::Workers;
use crate::{DataKey, Error, FileEntry, Sha256Digest, name, segments};

/// A plaintext file: on disk, or in another package.
pub(crate) trait Plaintext: Sync {
    fn path(&self) -> &str;
    fn size(&self) -> u64;
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error>;
    /// Asked when all of it was read: whether these were the right bytes.
    fn accept(&self, sha256: &Sha256Digest) -> Result<(), Error>;
}

/// A file's line in the manifest and its part of `segments.sha256`.
pub(crate) struct Sealed {
    pub(crate) entry: FileEntry,
    pub(crate) segments: Vec<u8>,
}

pub(crate) struct Encryption<'a> {
    pub(crate) name: &'a str,
    pub(crate) epoch: u64,
    pub(crate) key: &'a DataKey,
    /// Where the ciphertexts go.
    pub(crate) dir: &'a Path,
    pub(crate) meter: &'a Meter<'a>,
}

/// Buffers of one thread, sized beforehand: growing would leave plaintext in freed memory.
struct Buffers {
    plain: Zeroizing<Vec<u8>>,
    opened: Zeroizing<Vec<u8>>,
    sealed: Vec<u8>,
}

impl Buffers {
    fn new() -> Self {
        let plaintext = || Zeroizing::new(Vec::with_capacity(SEGMENT));
        Self {
            plain: plaintext(),
            opened: plaintext(),
            sealed: Vec::with_capacity(SEGMENT),
        }
    }
}

impl Encryption<'_> {
    /// In order of their paths.
    pub(crate) fn run(&self, inputs: &[impl Plaintext]) -> Result<Vec<Sealed>, Error> {
        let mut queue: Vec<_> = inputs.iter().collect();
        // The longest first, so that no thread is left with it at the end.
        queue.sort_by_key(|input| Reverse(input.size()));
        let done = Mutex::new(Vec::with_capacity(inputs.len()));
        Workers::new().run(queue, Buffers::new, |buffers, input| {
            let sealed = self.file(input, buffers)?;
            done.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(sealed);
            Ok(())
        })?;
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by(|a: &Sealed, b| a.entry.path.cmp(&b.entry.path));
        Ok(done)
    }

    fn file(&self, input: &impl Plaintext, buffers: &mut Buffers) -> Result<Sealed, Error> {
        let too_large = || Error::TooLarge {
            file: input.path().into(),
            max: crate::layout::MAX_PLAINTEXT,
            actual: input.size(),
        };
        let layout = Layout::new(input.size()).ok_or_else(too_large)?;
        let path = self.dir.join(name::sealed_name(input.path()));
        match File::open(&path) {
            Ok(earlier) => {
                if let Some(sealed) = self.keep(input, layout, &earlier, buffers)? {
                    return Ok(sealed);
                }
                fs::remove_file(&path).map_err(|source| io_error("remove", &path, source))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("read", &path, error)),
        }
        self.encrypt(input, layout, &path, buffers)
    }

    fn encrypt(
        &self,
        input: &impl Plaintext,
        layout: Layout,
        path: &Path,
        buffers: &mut Buffers,
    ) -> Result<Sealed, Error> {
        let header = Header::random()?;
        let key = self.file_key(&header, input)?;
        let part = path.with_added_extension("part");
        let failed = |source| io_error("write", &part, source);
        let mut out = File::create_new(&part).map_err(failed)?;
        let header = header.to_bytes();
        out.write_all(&header).map_err(failed)?;
        let mut tally = Tally::new(layout);
        let plain = &mut buffers.plain;
        for segment in 0..layout.segments() {
            let range = layout.plaintext_of(segment);
            plain.resize(len_of(&range), 0);
            input.read(range.start, plain)?;
            tally.plain.update(plain);
            // From here on the buffer holds ciphertext.
            let tag = key.seal(segment, layout.is_last(segment), plain)?;
            plain.extend_from_slice(&tag);
            tally.sealed(segment, &header, plain);
            out.write_all(plain).map_err(failed)?;
            self.meter.add(input.path(), range.end - range.start);
        }
        let sealed = tally.finish(input)?;
        out.sync_all().map_err(failed)?;
        fs::rename(&part, path).map_err(failed)?;
        Ok(sealed)
    }

    /// None where `earlier` is not the whole ciphertext of the file as it is now.
    fn keep(
        &self,
        input: &impl Plaintext,
        layout: Layout,
        earlier: &File,
        buffers: &mut Buffers,
    ) -> Result<Option<Sealed>, Error> {
        let mut header = [0; HEADER];
        let whole = earlier
            .metadata()
            .is_ok_and(|metadata| metadata.len() == layout.ciphertext_len())
            && earlier.read_exact_at(&mut header, 0).is_ok();
        let Some(parsed) = Header::from_bytes(&header).filter(|_| whole) else {
            return Ok(None);
        };
        let key = self.file_key(&parsed, input)?;
        let mut tally = Tally::new(layout);
        let Buffers {
            plain,
            opened,
            sealed,
        } = buffers;
        let mut done = 0;
        for segment in 0..layout.segments() {
            let (range, at) = (layout.plaintext_of(segment), layout.ciphertext_of(segment));
            plain.resize(len_of(&range), 0);
            opened.resize(plain.len(), 0);
            sealed.resize(plain.len() + TAG, 0);
            input.read(range.start, plain)?;
            let same = earlier.read_exact_at(sealed, at.start).is_ok()
                && key
                    .open(segment, layout.is_last(segment), sealed, opened)
                    .is_ok()
                && opened == plain;
            if !same {
                self.meter.take_back(done);
                return Ok(None);
            }
            tally.plain.update(plain);
            tally.sealed(segment, &header, sealed);
            done += range.end - range.start;
            self.meter.add(input.path(), range.end - range.start);
        }
        tally.finish(input).map(Some)
    }

    fn file_key(&self, header: &Header, input: &impl Plaintext) -> Result<FileKey, Error> {
        let data = name::associated_data(self.name, self.epoch, input.path())?;
        FileKey::derive(self.key, header, &data)
    }
}

/// The digests of a file, as it passes.
struct Tally {
    layout: Layout,
    plain: Sha256,
    segments: Vec<Sha256Digest>,
}

impl Tally {
    fn new(layout: Layout) -> Self {
        Self {
            layout,
            plain: Sha256::new(),
            segments: Vec::new(),
        }
    }

    fn sealed(&mut self, segment: u32, header: &[u8], bytes: &[u8]) {
        let mut digest = Sha256::new();
        if segment == 0 {
            digest.update(header);
        }
        digest.update(bytes);
        self.segments.push(digest.finish());
    }

    fn finish(self, input: &impl Plaintext) -> Result<Sealed, Error> {
        let sha256 = self.plain.finish();
        input.accept(&sha256)?;
        let segments = segments::part(&self.segments);
        let entry = FileEntry {
            path: input.path().into(),
            size: input.size(),
            sha256,
            sealed_size: self.layout.ciphertext_len(),
            segments_sha256: Sha256Digest::of(&segments),
        };
        Ok(Sealed { entry, segments })
    }
}
