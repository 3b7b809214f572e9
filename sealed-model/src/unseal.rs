use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::digest::Sha256;
use crate::layout::SEGMENT;
use crate::partial::{must_not_exist, parent, publish};
use crate::seal::io_error;
use crate::{Error, MODEL_SIG, PublisherKey, SealProgress, Source, UnlockedPackage};

/// Read at once: some segments for each thread.
const CHUNK: usize = 16 * SEGMENT;

/// Writes the plaintext of a package, and its `model.sig`, into the directory `out`, which must not exist and appears whole or
/// not at all. Beside the tags, each file must have the SHA-256 that the publisher signed in the manifest, and that one of
/// `publishers` signed in `model.sig`.
///
/// # Errors
/// What is wrong with the package; the plaintext written so far is removed.
pub fn unseal<S: Source>(
    package: &UnlockedPackage<S>,
    publishers: &[PublisherKey],
    out: &Path,
    progress: &(dyn Fn(SealProgress<'_>) + Sync),
) -> Result<(), Error> {
    must_not_exist(out)?;
    let documents = package.documents()?;
    documents.check(package.manifest(), publishers)?;
    // Private, and gone with whatever ends this run but a kill: it holds plaintext.
    let beside = parent(out);
    let staging = tempfile::Builder::new()
        .prefix(".cloister-")
        .tempdir_in(&beside)
        .map_err(|source| io_error("create a directory in", &beside, source))?;
    let total = package.files().iter().map(|entry| entry.size).sum();
    let mut done = 0;
    let mut buffer = Zeroizing::new(vec![0; CHUNK]);
    for entry in package.files() {
        // A manifest lists safe relative paths only.
        let path = staging.path().join(&entry.path);
        let failed = |source| io_error("write", &path, source);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file = File::create_new(&path).map_err(failed)?;
        let mut digest = Sha256::new();
        if entry.size == 0 {
            package.verify_file(&entry.path)?;
        }
        let mut at = 0;
        while at < entry.size {
            let len = usize::try_from(entry.size - at).map_or(CHUNK, |left| left.min(CHUNK));
            let (chunk, _) = buffer.split_at_mut(len);
            package.read_at(&entry.path, at, chunk)?;
            digest.update(chunk);
            file.write_all(chunk).map_err(failed)?;
            at += len as u64;
            done += len as u64;
            progress(SealProgress {
                file: &entry.path,
                done,
                total,
            });
        }
        let actual = digest.finish();
        if actual != entry.sha256 {
            return Err(Error::Digest {
                file: entry.path.clone(),
                expected: entry.sha256,
                actual,
            });
        }
        file.sync_all().map_err(failed)?;
    }
    let path = staging.path().join(MODEL_SIG);
    fs::write(&path, &documents.model_sig).map_err(|source| io_error("write", &path, source))?;
    must_not_exist(out)?;
    publish(staging.path(), out)?;
    // Nothing is left to remove.
    drop(staging.keep());
    Ok(())
}
