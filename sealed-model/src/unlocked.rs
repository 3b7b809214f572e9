use std::ops::Range;
use std::sync::{Mutex, OnceLock};

use zeroize::Zeroizing;

use crate::buffer::Buffer;
use crate::cache::{Plaintext, SegmentCache};
use crate::layout::{HEADER, Layout, SEGMENT, len_of};
use crate::pieces::{Piece, pieces};
use crate::segments::SegmentDigests;
use crate::stream::{FileKey, Header, Unverified};
use crate::workers::Workers;
use crate::{DataKey, Documents, Error, FileEntry, Manifest, Source, associated_data};

/// A package that gives out plaintext, each byte only after the tag of its segment was verified. Cheap to share between threads.
pub struct UnlockedPackage<S> {
    source: S,
    manifest: Manifest,
    /// In the manifest's order.
    files: Vec<OpenFile>,
    key: DataKey,
    /// Where the publisher's word counts for each segment, not only that of whoever has the data key.
    digests: Option<SegmentDigests>,
    cache: SegmentCache,
    workers: Workers,
    /// Ciphertext buffers between calls, at most one per thread that was ever busy at once.
    buffers: Mutex<Vec<Vec<u8>>>,
}

struct OpenFile {
    index: usize,
    path: String,
    sealed_name: String,
    layout: Layout,
    associated_data: Vec<u8>,
    /// Derived on first use, since it takes the file's header.
    key: OnceLock<(FileKey, [u8; HEADER])>,
}

impl<S: Source> UnlockedPackage<S> {
    pub(crate) fn new(source: S, manifest: Manifest, key: DataKey) -> Result<Self, Error> {
        let open = |(index, entry): (usize, &FileEntry)| {
            Ok(OpenFile {
                index,
                path: entry.path.clone(),
                sealed_name: entry.sealed_name(),
                layout: entry.layout()?,
                associated_data: associated_data(&manifest.name, manifest.epoch, &entry.path)?,
                key: OnceLock::new(),
            })
        };
        let files = manifest
            .files
            .iter()
            .enumerate()
            .map(open)
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            source,
            files,
            manifest,
            key,
            digests: None,
            cache: SegmentCache::default(),
            workers: Workers::new(),
            buffers: Mutex::default(),
        })
    }

    /// From here on each segment must have the SHA-256 that the publisher signed, too, before it is decrypted. A tag says that
    /// somebody with the data key made a segment; this says that the publisher's release has it.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or where the package's list is not the one that was signed.
    pub fn check_segments(mut self) -> Result<Self, Error> {
        self.digests = Some(SegmentDigests::read(&self.source, &self.manifest)?);
        Ok(self)
    }

    /// The signature and the bill of materials beside the manifest.
    ///
    /// # Errors
    /// [`Error::Digest`] where one is not what the manifest says.
    pub fn documents(&self) -> Result<Documents, Error> {
        Documents::read(&self.source, &self.manifest)
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// In order of their paths.
    pub fn files(&self) -> &[FileEntry] {
        &self.manifest.files
    }

    /// Plaintext bytes of a file; none where the package has no such file.
    pub fn len(&self, path: &str) -> Option<u64> {
        self.file(path).ok().map(|file| file.layout.plaintext_len())
    }

    /// Fills `buf` with plaintext from `offset` on. Whole segments are decrypted straight into `buf`, large reads by several
    /// threads. On an error `buf` is zeros.
    ///
    /// # Errors
    /// [`Error::Unavailable`] (retry), [`Error::Segment`] (final), or a range that the file does not have.
    pub fn read_at(&self, path: &str, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        let file = self.file(path)?;
        let len = buf.len() as u64;
        let size = file.layout.plaintext_len();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(Error::OutOfRange {
                file: path.into(),
                offset,
                len,
                size,
            });
        }
        let outcome = self.fill(file, pieces(&file.layout, offset, buf));
        if outcome.is_err() {
            buf.fill(0);
        }
        outcome
    }

    /// A whole file.
    ///
    /// # Errors
    /// As [`Self::read_at`], and where the file is longer than `max` bytes; nothing was allocated then.
    pub fn read(&self, path: &str, max: u64) -> Result<Zeroizing<Vec<u8>>, Error> {
        let size = self.file(path)?.layout.plaintext_len();
        let len = usize::try_from(size).ok().filter(|_| size <= max);
        let len = len.ok_or_else(|| Error::TooLarge {
            file: path.into(),
            max,
            actual: size,
        })?;
        let mut bytes = Zeroizing::new(vec![0; len]);
        if len == 0 {
            // That it is empty is for its tag to say, too.
            self.verify_file(path)?;
        }
        self.read_at(path, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Verifies every segment of a file and keeps nothing of it.
    pub fn verify_file(&self, path: &str) -> Result<(), Error> {
        let file = self.file(path)?;
        let all = (0..file.layout.segments()).collect();
        self.workers.run(
            all,
            || {
                (
                    Buffer::take(&self.buffers),
                    Zeroizing::new(Vec::with_capacity(SEGMENT)),
                )
            },
            |(sealed, plaintext), segment: u32| {
                plaintext.resize(len_of(&file.layout.plaintext_of(segment)), 0);
                self.decrypt(file, segment..segment + 1, sealed, plaintext)
            },
        )
    }

    /// Verifies every segment of every file.
    pub fn verify(&self) -> Result<(), Error> {
        self.files
            .iter()
            .try_for_each(|file| self.verify_file(&file.path))
    }

    fn file(&self, path: &str) -> Result<&OpenFile, Error> {
        self.files
            .binary_search_by(|file| file.path.as_str().cmp(path))
            .ok()
            .and_then(|at| self.files.get(at))
            .ok_or_else(|| Error::NoSuchFile { file: path.into() })
    }

    fn fill(&self, file: &OpenFile, pieces: Vec<Piece<'_>>) -> Result<(), Error> {
        self.workers.run(
            pieces,
            || Buffer::take(&self.buffers),
            |sealed, piece| match piece {
                Piece::Whole { first, count, into } => {
                    self.decrypt(file, first..first + count, sealed, into)
                }
                Piece::Part {
                    segment,
                    range,
                    into,
                } => {
                    let plaintext = self.segment(file, segment, sealed)?;
                    let part = plaintext
                        .get(range)
                        .ok_or(Error::Internal("a part lies in its segment"))?;
                    into.copy_from_slice(part);
                    Ok(())
                }
            },
        )
    }

    /// A whole segment, from the cache or into it.
    fn segment(
        &self,
        file: &OpenFile,
        segment: u32,
        sealed: &mut Buffer<'_>,
    ) -> Result<Plaintext, Error> {
        let id = (file.index, segment);
        if let Some(plaintext) = self.cache.find(id) {
            return Ok(plaintext);
        }
        let mut plaintext = self.cache.buffer();
        plaintext.resize(len_of(&file.layout.plaintext_of(segment)), 0);
        self.decrypt(file, segment..segment + 1, sealed, &mut plaintext)?;
        let plaintext = Plaintext::new(plaintext);
        self.cache.insert(id, Plaintext::clone(&plaintext));
        Ok(plaintext)
    }

    /// Fetches consecutive segments and decrypts them into `into`, which is as long as their plaintext.
    fn decrypt(
        &self,
        file: &OpenFile,
        segments: Range<u32>,
        sealed: &mut Buffer<'_>,
        mut into: &mut [u8],
    ) -> Result<(), Error> {
        let (key, header) = self.file_key(file)?;
        let first = file.layout.ciphertext_of(segments.start);
        let last = file.layout.ciphertext_of(segments.end.saturating_sub(1));
        let mut sealed = sealed.of_len(len_of(&(first.start..last.end)));
        self.source
            .read_at(&file.sealed_name, first.start, sealed)
            .map_err(|source| unavailable(file, source))?;
        for segment in segments {
            let (ciphertext, later) = sealed
                .split_at_mut_checked(len_of(&file.layout.ciphertext_of(segment)))
                .ok_or(Error::Internal("a run holds its segments"))?;
            let (plaintext, rest) = into
                .split_at_mut_checked(len_of(&file.layout.plaintext_of(segment)))
                .ok_or(Error::Internal("a piece holds its segments"))?;
            let refused = |Unverified| Error::Segment {
                file: file.sealed_name.clone(),
                segment,
            };
            if let Some(digests) = &self.digests {
                digests
                    .check(file.index, segment, header, ciphertext)
                    .map_err(refused)?;
            }
            key.open(segment, file.layout.is_last(segment), ciphertext, plaintext)
                .map_err(refused)?;
            (sealed, into) = (later, rest);
        }
        Ok(())
    }

    fn file_key<'f>(&self, file: &'f OpenFile) -> Result<&'f (FileKey, [u8; HEADER]), Error> {
        if let Some(key) = file.key.get() {
            return Ok(key);
        }
        let mut header = [0; HEADER];
        self.source
            .read_at(&file.sealed_name, 0, &mut header)
            .map_err(|source| unavailable(file, source))?;
        let parsed = Header::from_bytes(&header).ok_or_else(|| Error::Segment {
            file: file.sealed_name.clone(),
            segment: 0,
        })?;
        let key = FileKey::derive(&self.key, &parsed, &file.associated_data)?;
        Ok(file.key.get_or_init(|| (key, header)))
    }
}

fn unavailable(file: &OpenFile, source: std::io::Error) -> Error {
    Error::Unavailable {
        file: file.sealed_name.clone(),
        source,
    }
}
