use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::Rejection;
use crate::model_signing::IGNORED;
use crate::{Error, MAX_FILES, name};

/// Safe relative path and path on disk of every file, links and specials refused.
pub(super) fn list(dir: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let mut found = Vec::new();
    let mut folded = BTreeMap::new();
    let walk = WalkDir::new(dir)
        .min_depth(1)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| {
            entry.depth() != 1 || !IGNORED.iter().any(|ignored| entry.file_name() == *ignored)
        });
    for entry in walk {
        let entry = entry.map_err(|error| Error::Io {
            action: "list",
            path: error.path().unwrap_or(dir).to_owned(),
            source: error
                .into_io_error()
                .unwrap_or_else(|| io::ErrorKind::Other.into()),
        })?;
        let relative = entry.path().strip_prefix(dir).unwrap_or(entry.path());
        let path = relative.to_string_lossy().into_owned();
        let reject = |reason| {
            Err(Error::Rejected {
                file: path.escape_debug().to_string(),
                reason,
            })
        };
        let kind = entry.file_type();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            return reject(Rejection::Hidden);
        }
        if kind.is_symlink() {
            return reject(Rejection::Link);
        }
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            return reject(Rejection::NotRegular);
        }
        if !name::is_safe_path(&path) {
            return reject(Rejection::Name);
        }
        if let Some(other) = folded.insert(path.to_ascii_lowercase(), path.clone()) {
            return reject(Rejection::SameNameButCase { other });
        }
        if found.len() == MAX_FILES {
            return Err(Error::TooManyFiles { max: MAX_FILES });
        }
        found.push((path, entry.into_path()));
    }
    Ok(found)
}
