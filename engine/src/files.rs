use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::LoadError;

/// The plaintext of a model, however it is stored. Names use `/` between folders.
///
/// Reads are blocking and may come from several threads at once. What an implementation returns is parsed with bounds, but
/// believed: authenticity is its task.
pub trait ModelFiles: Send + Sync {
    fn names(&self) -> Vec<String>;

    /// Bytes of a file; `None` if there is none of that name.
    fn len(&self, name: &str) -> Option<u64>;

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// Whatever the storage says; an end before `buf` is full is `UnexpectedEof`.
    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// A plain directory: for tests, benches and models that are not secret.
pub struct DirFiles(PathBuf);

impl DirFiles {
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        let plain = name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
        plain.then(|| self.0.join(name))
    }
}

impl ModelFiles for DirFiles {
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        collect(&self.0, "", MAX_FOLDER_DEPTH, &mut names);
        names.sort();
        names
    }

    fn len(&self, name: &str) -> Option<u64> {
        let metadata = fs::metadata(self.path(name)?).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let path = self.path(name).ok_or(io::ErrorKind::InvalidFilename)?;
        File::open(path)?.read_exact_at(buf, offset)
    }
}

/// Model directories have one level of folders (`1_Pooling/`).
const MAX_FOLDER_DEPTH: usize = 3;

fn collect(directory: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = entry.path();
        if path.is_file() {
            names.push(format!("{prefix}{name}"));
        } else if path.is_dir() && depth > 1 {
            collect(&path, &format!("{prefix}{name}/"), depth - 1, names);
        }
    }
}

/// A whole file of at most `limit` bytes, or `None` if the model has none of that name.
pub(crate) fn read_optional(
    files: &dyn ModelFiles,
    name: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, LoadError> {
    let Some(actual) = files.len(name) else {
        return Ok(None);
    };
    let too_large = || LoadError::FileTooLarge {
        file: name.into(),
        limit,
        actual,
    };
    if actual > limit {
        return Err(too_large());
    }
    let mut bytes = vec![0; usize::try_from(actual).map_err(|_wide| too_large())?];
    files
        .read_at(name, 0, &mut bytes)
        .map_err(|source| LoadError::Read {
            file: name.into(),
            source,
        })?;
    Ok(Some(bytes))
}

pub(crate) fn read(files: &dyn ModelFiles, name: &str, limit: u64) -> Result<Vec<u8>, LoadError> {
    read_optional(files, name, limit)?.ok_or_else(|| LoadError::MissingFile { file: name.into() })
}
