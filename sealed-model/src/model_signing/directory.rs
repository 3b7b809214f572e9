//! A model directory against its signature.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::SignedModel;
use crate::digest::Sha256;
use crate::layout::SEGMENT;
use crate::progress::Meter;
use crate::seal::io_error;
use crate::workers::Workers;
use crate::{Error, SealProgress};

struct Found {
    path: String,
    on_disk: PathBuf,
    size: u64,
}

impl SignedModel {
    /// Whether `dir` holds the signed files, each with its bytes, and nothing else but what the signature ignores. The file
    /// `signature` is left out where it lies in there.
    ///
    /// # Errors
    /// [`Error::ModelFile`] or [`Error::Digest`] with the first file that is not as signed.
    pub fn check_dir(
        &self,
        dir: &Path,
        signature: &Path,
        progress: &(dyn Fn(SealProgress<'_>) + Sync),
    ) -> Result<(), Error> {
        let found = self.list(dir, signature)?;
        let there: BTreeSet<&str> = found.iter().map(|file| file.path.as_str()).collect();
        if let Some((path, _)) = self.files().find(|(path, _)| !there.contains(path)) {
            return Err(differs(path, "is signed, but not there"));
        }
        let meter = Meter::new(found.iter().map(|file| file.size).sum(), progress);
        Workers::new().run(
            found,
            || vec![0; SEGMENT],
            |buffer, file| self.check_file(&file, buffer, &meter),
        )
    }

    fn check_file(&self, file: &Found, buffer: &mut [u8], meter: &Meter<'_>) -> Result<(), Error> {
        let expected = *self
            .files
            .get(&file.path)
            .ok_or_else(|| differs(&file.path, "is not signed"))?;
        let failed = |source| io_error("read", &file.on_disk, source);
        let mut bytes = File::open(&file.on_disk).map_err(failed)?;
        let mut digest = Sha256::new();
        loop {
            let len = bytes.read(buffer).map_err(failed)?;
            if len == 0 {
                break;
            }
            let (read, _) = buffer.split_at(len);
            digest.update(read);
            meter.add(&file.path, len as u64);
        }
        let actual = digest.finish();
        match actual == expected {
            true => Ok(()),
            false => Err(Error::Digest {
                file: shown(&file.path),
                expected,
                actual,
            }),
        }
    }

    /// Every file that counts; each is a signed one.
    fn list(&self, dir: &Path, signature: &Path) -> Result<Vec<Found>, Error> {
        let own = fs::canonicalize(signature).ok();
        let mut found = Vec::new();
        let mut walk = WalkDir::new(dir)
            .min_depth(1)
            .sort_by_file_name()
            .into_iter();
        while let Some(entry) = walk.next() {
            let entry = entry.map_err(|error| Error::Io {
                action: "list",
                path: error.path().unwrap_or(dir).to_owned(),
                source: error
                    .into_io_error()
                    .unwrap_or_else(|| std::io::ErrorKind::Other.into()),
            })?;
            let relative = entry.path().strip_prefix(dir).unwrap_or(entry.path());
            let path = relative.to_string_lossy().into_owned();
            if self.ignored.contains(&path) {
                if entry.file_type().is_dir() {
                    walk.skip_current_dir();
                }
                continue;
            }
            if entry.file_type().is_dir() {
                continue;
            }
            if entry.path_is_symlink() && !self.follow_links {
                return Err(differs(&path, "is a link, and the signature allows none"));
            }
            let metadata = fs::metadata(entry.path())
                .map_err(|source| io_error("read", entry.path(), source))?;
            if metadata.is_dir() {
                return Err(differs(&path, "is a link to a directory"));
            }
            if !metadata.is_file() {
                return Err(differs(&path, "is not a regular file"));
            }
            if own.is_some() && fs::canonicalize(entry.path()).ok() == own {
                continue;
            }
            if !self.files.contains_key(&path) {
                return Err(differs(&path, "is not signed"));
            }
            found.push(Found {
                path,
                size: metadata.len(),
                on_disk: entry.into_path(),
            });
        }
        Ok(found)
    }
}

/// Names in a directory may be anything.
fn shown(path: &str) -> String {
    crate::json::shown(path)
}

fn differs(path: &str, problem: &'static str) -> Error {
    Error::ModelFile {
        file: shown(path),
        problem,
    }
}
