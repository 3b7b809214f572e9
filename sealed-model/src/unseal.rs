use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::digest::Sha256;
use crate::layout::SEGMENT;
use crate::seal::{Staging, io_error};
use crate::{Error, SealProgress, Source, UnlockedPackage};

/// Read at once: some segments for each thread.
const CHUNK: usize = 16 * SEGMENT;

/// Writes the plaintext of a package into the directory `out`, which must not exist and appears whole or not at all. Beside the
/// tags, each file must have the SHA-256 that the publisher signed.
pub fn unseal<S: Source>(
    package: &UnlockedPackage<S>,
    out: &Path,
    progress: &(dyn Fn(SealProgress<'_>) + Sync),
) -> Result<(), Error> {
    let staging = Staging::beside(out)?;
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
    staging.publish(out)
}
