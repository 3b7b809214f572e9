use std::cmp::Reverse;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::accept::{self, Input, Rejection};
use crate::digest::Sha256;
use crate::envelope::Envelope;
use crate::layout::{Layout, SEGMENT, len_of};
use crate::stream::{FileKey, Header};
use crate::workers::Workers;
use crate::{DataKey, Error, FileEntry, MANIFEST, Manifest, SIGNATURE, SigningKey, name};

/// What [`seal`] makes of a directory.
pub struct SealOptions<'a> {
    pub name: &'a str,
    /// From 1 on; each release of a model takes a higher one, and a key of its own.
    pub epoch: u64,
    pub key: &'a DataKey,
    pub signer: &'a SigningKey,
    /// The date that the manifest carries.
    pub created: SystemTime,
    /// Called after each segment, from several threads.
    pub progress: &'a (dyn Fn(SealProgress<'_>) + Sync),
}

/// How far a run is, in plaintext bytes over all files.
#[derive(Debug, Clone, Copy)]
pub struct SealProgress<'a> {
    /// The file that just moved on.
    pub file: &'a str,
    pub done: u64,
    pub total: u64,
}

/// Seals the model in `dir` as the package `out`, which must not exist. It appears whole or not at all: everything is written
/// beside it first, and renamed when it is on disk.
///
/// # Errors
/// [`Error::Rejected`] names the first file that must not be in a model, and why.
pub fn seal(dir: &Path, out: &Path, options: &SealOptions<'_>) -> Result<Manifest, Error> {
    name::check_model(options.name, options.epoch)?;
    let staging = Staging::beside(out)?;
    let inputs = accept::collect(dir)?;
    let total = inputs.iter().map(|input| input.size).sum();
    let done = AtomicU64::new(0);
    let entries = Mutex::new(Vec::with_capacity(inputs.len()));
    let mut queue: Vec<_> = inputs.iter().collect();
    // The longest first, so that no thread is left with it at the end.
    queue.sort_by_key(|input| Reverse(input.size));
    Workers::new().run(
        queue,
        || (),
        |(), input| {
            let entry = seal_file(input, staging.path(), options, |bytes| {
                let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                (options.progress)(SealProgress {
                    file: &input.path,
                    done,
                    total,
                });
            })?;
            entries
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(entry);
            Ok(())
        },
    )?;
    let mut files = entries.into_inner().unwrap_or_else(PoisonError::into_inner);
    files.sort_by(|a: &FileEntry, b| a.path.cmp(&b.path));
    let manifest = Manifest::assemble(
        options.name,
        options.epoch,
        options.key,
        options.created.into(),
        files,
    )?;
    let bytes = manifest.to_bytes()?;
    // A reader refuses a longer one; long names in many files could get there.
    if bytes.len() as u64 > crate::MAX_MANIFEST_BYTES {
        return Err(Error::TooLarge {
            file: MANIFEST.into(),
            max: crate::MAX_MANIFEST_BYTES,
            actual: bytes.len() as u64,
        });
    }
    let envelope = Envelope::sign(&bytes, options.signer)?.to_bytes()?;
    staging.write(MANIFEST, &bytes)?;
    staging.write(SIGNATURE, &envelope)?;
    staging.publish(out)?;
    Ok(manifest)
}

fn seal_file(
    input: &Input,
    staging: &Path,
    options: &SealOptions<'_>,
    progress: impl Fn(u64),
) -> Result<FileEntry, Error> {
    let layout = Layout::new(input.size).ok_or_else(|| rejected(input, Rejection::Changed))?;
    let data = name::associated_data(options.name, options.epoch, &input.path)?;
    let header = Header::random()?;
    let key = FileKey::derive(options.key, &header, &data)?;
    let (mut plain, mut sealed) = (Sha256::new(), Sha256::new());
    let mut buffer = Zeroizing::new(Vec::with_capacity(SEGMENT));

    let path = staging.join(name::sealed_name(&input.path));
    let failed = |source| io_error("write", &path, source);
    let mut out = File::create_new(&path).map_err(failed)?;
    let header = header.to_bytes();
    sealed.update(&header);
    out.write_all(&header).map_err(failed)?;
    for segment in 0..layout.segments() {
        let range = layout.plaintext_of(segment);
        buffer.resize(len_of(&range), 0);
        input
            .file
            .read_exact_at(&mut buffer, range.start)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => rejected(input, Rejection::Changed),
                _ => io_error("read", Path::new(&input.path), source),
            })?;
        plain.update(&buffer);
        let tag = key.seal(segment, layout.is_last(segment), &mut buffer)?;
        buffer.extend_from_slice(&tag);
        sealed.update(&buffer);
        out.write_all(&buffer).map_err(failed)?;
        progress(range.end - range.start);
    }
    if input.file.metadata().map_err(failed)?.len() != input.size {
        return Err(rejected(input, Rejection::Changed));
    }
    out.sync_all().map_err(failed)?;
    Ok(FileEntry {
        path: input.path.clone(),
        size: input.size,
        sha256: plain.finish(),
        sealed_size: layout.ciphertext_len(),
        sealed_sha256: sealed.finish(),
    })
}

fn rejected(input: &Input, reason: Rejection) -> Error {
    Error::Rejected {
        file: input.path.clone(),
        reason,
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io {
        action,
        path: path.into(),
        source,
    }
}

/// A directory that becomes `out` in one step, or vanishes.
pub(crate) struct Staging(TempDir);

impl Staging {
    pub(crate) fn beside(out: &Path) -> Result<Self, Error> {
        // A dangling link counts: the rename would replace it.
        if out.symlink_metadata().is_ok() {
            return Err(Error::OutputExists { path: out.into() });
        }
        let parent = parent(out);
        tempfile::Builder::new()
            .prefix(".cloister-")
            .tempdir_in(&parent)
            .map(Self)
            .map_err(|source| io_error("create a directory in", &parent, source))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, file: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path().join(file);
        let write = || {
            let mut file = File::create_new(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|source| io_error("write", &path, source))
    }

    pub(crate) fn publish(self, out: &Path) -> Result<(), Error> {
        let publish = || {
            // The temporary directory was private; what it became is served by the host, often as another user.
            fs::set_permissions(self.path(), fs::Permissions::from_mode(0o755))?;
            File::open(self.path())?.sync_all()?;
            fs::rename(self.path(), out)?;
            File::open(parent(out))?.sync_all()
        };
        publish().map_err(|source| io_error("create", out, source))?;
        // Nothing is left to remove.
        drop(self.0.keep());
        Ok(())
    }
}

fn parent(out: &Path) -> PathBuf {
    match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => PathBuf::from("."),
    }
}
