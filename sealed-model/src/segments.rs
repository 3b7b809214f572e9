//! `segments.sha256`: the SHA-256 of each MiB of each ciphertext, 32 bytes each, in the manifest's order. A file's MiBs are its
//! segments, the first one with the header before it.
//!
//! AES-GCM is no hash for somebody who knows the key: other segments with fitting tags are made at will. SHA-256 is one, so a
//! reader that compares trusts the publisher's signature alone, and the data key only to keep the secret.

use crate::layout::{HEADER, SEGMENT};
use crate::stream::Unverified;
use crate::{Error, FileEntry, Manifest, SealProgress, Sha256Digest, Source};

/// The list's file name in a package.
pub const SEGMENTS: &str = "segments.sha256";
const DIGEST: usize = 32;

/// Bytes of a file's part of the list: its digest is in the manifest.
pub(crate) fn part(segments: &[Sha256Digest]) -> Vec<u8> {
    segments.iter().flat_map(|d| *d.as_bytes()).collect()
}

/// The list, each file's part compared with what the manifest says.
pub(crate) struct SegmentDigests {
    /// In the manifest's order.
    files: Vec<Vec<[u8; DIGEST]>>,
}

impl SegmentDigests {
    /// Holds 32 bytes for each MiB of the model; a manifest bounds that.
    pub(crate) fn read<S: Source>(source: &S, manifest: &Manifest) -> Result<Self, Error> {
        let segments = |entry: &FileEntry| Ok(u64::from(entry.layout()?.segments()));
        let counts = manifest
            .files
            .iter()
            .map(segments)
            .collect::<Result<Vec<u64>, Error>>()?;
        let unavailable = |source| Error::Unavailable {
            file: SEGMENTS.into(),
            source,
        };
        let expected = counts.iter().sum::<u64>() * DIGEST as u64;
        let actual = source.size(SEGMENTS).map_err(unavailable)?;
        if actual != expected {
            return Err(Error::Size {
                file: SEGMENTS.into(),
                expected,
                actual,
            });
        }
        let mut offset = 0;
        let mut files = Vec::with_capacity(counts.len());
        for (entry, count) in manifest.files.iter().zip(counts) {
            let too_many = |_wide| Error::Internal("a list is shorter than 64 MiB");
            let mut part = vec![0; usize::try_from(count).map_err(too_many)? * DIGEST];
            source
                .read_at(SEGMENTS, offset, &mut part)
                .map_err(unavailable)?;
            offset += part.len() as u64;
            let actual = Sha256Digest::of(&part);
            if actual != entry.segments_sha256 {
                return Err(Error::Digest {
                    file: format!("{SEGMENTS}: {}", entry.path),
                    expected: entry.segments_sha256,
                    actual,
                });
            }
            let (digests, _) = part.as_chunks();
            files.push(digests.to_vec());
        }
        Ok(Self { files })
    }

    /// Whether a segment, ciphertext with its tag, is the release's.
    pub(crate) fn check(
        &self,
        file: usize,
        segment: u32,
        header: &[u8; HEADER],
        sealed: &[u8],
    ) -> Result<(), Unverified> {
        let expected = usize::try_from(segment)
            .ok()
            .and_then(|segment| self.files.get(file)?.get(segment))
            .ok_or(Unverified)?;
        let mut digest = crate::digest::Sha256::new();
        if segment == 0 {
            digest.update(header);
        }
        digest.update(sealed);
        match digest.finish().as_bytes() == expected {
            true => Ok(()),
            false => Err(Unverified),
        }
    }
}

/// Compares every byte of a package's files with what its manifest says, without any key: for mirrors and audits. That the
/// manifest is somebody's, [`inspect`](crate::inspect) tells.
///
/// # Errors
/// The first segment that is another one.
pub fn verify_ciphertexts<S: Source>(
    source: &S,
    manifest: &Manifest,
    progress: &(dyn Fn(SealProgress<'_>) + Sync),
) -> Result<(), Error> {
    let digests = SegmentDigests::read(source, manifest)?;
    let total = manifest.files.iter().map(|entry| entry.sealed_size).sum();
    let mut done = 0;
    let mut buffer = vec![0; SEGMENT];
    for (entry, expected) in manifest.files.iter().zip(&digests.files) {
        let file = entry.sealed_name();
        for (segment, expected) in (0u32..).zip(expected) {
            let offset = u64::from(segment) * SEGMENT as u64;
            let left = entry.sealed_size.saturating_sub(offset);
            let len = usize::try_from(left).map_or(SEGMENT, |left| left.min(SEGMENT));
            let (bytes, _) = buffer.split_at_mut(len);
            source
                .read_at(&file, offset, bytes)
                .map_err(|source| Error::Unavailable {
                    file: file.clone(),
                    source,
                })?;
            if Sha256Digest::of(bytes).as_bytes() != expected {
                return Err(Error::Segment { file, segment });
            }
            done += len as u64;
            progress(SealProgress {
                file: &entry.path,
                done,
                total,
            });
        }
    }
    Ok(())
}
