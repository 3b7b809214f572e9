//! A package in the making: `.NAME.cloister-partial` beside the package NAME, renamed when all of it is on disk.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::seal::io_error;

/// Where a run that makes the package `out` keeps what it has done so far. It holds ciphertext only.
pub fn partial_path(out: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(out.file_name().unwrap_or_default());
    name.push(".cloister-partial");
    parent(out).join(name)
}

/// The directory that becomes `out`, held by this run alone. What an earlier run left in it is still there.
pub(crate) struct Partial<'a> {
    out: &'a Path,
    path: PathBuf,
    /// An advisory lock on the directory, gone with this process.
    _lock: File,
}

impl<'a> Partial<'a> {
    pub(crate) fn open(out: &'a Path) -> Result<Self, Error> {
        must_not_exist(out)?;
        let path = partial_path(out);
        let failed = |source| io_error("create", &path, source);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A link, or a directory of somebody else's, is not one that a run of ours left.
                if !path.symlink_metadata().map_err(failed)?.is_dir() {
                    return Err(failed(io::ErrorKind::NotADirectory.into()));
                }
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
            }
            other => other.map_err(failed)?,
        }
        let lock = File::open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        Ok(Self {
            out,
            path,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes all files but those named.
    pub(crate) fn retain(&self, names: &BTreeSet<String>) -> Result<(), Error> {
        for entry in self.entries()? {
            if !entry
                .file_name()
                .is_some_and(|name| name.to_str().is_some_and(|name| names.contains(name)))
            {
                fs::remove_file(&entry).map_err(|source| io_error("remove", &entry, source))?;
            }
        }
        Ok(())
    }

    pub(crate) fn write(&self, file: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path.join(file);
        let write = || {
            let mut file = File::create_new(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|source| io_error("write", &path, source))
    }

    pub(crate) fn publish(self) -> Result<(), Error> {
        must_not_exist(self.out)?;
        publish(&self.path, self.out)
    }

    fn entries(&self) -> Result<Vec<PathBuf>, Error> {
        let list = || {
            fs::read_dir(&self.path)?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<Vec<_>>>()
        };
        list().map_err(|source| io_error("list", &self.path, source))
    }
}

impl Drop for Partial<'_> {
    /// Files that are whole stay for the next run; with none, nothing is left.
    fn drop(&mut self) {
        for entry in self.entries().unwrap_or_default() {
            if entry.extension().is_none_or(|extension| extension != "enc") {
                drop(fs::remove_file(entry));
            }
        }
        drop(fs::remove_dir(&self.path));
    }
}

/// Makes `out` of the directory `made`, in one step and on disk.
pub(crate) fn publish(made: &Path, out: &Path) -> Result<(), Error> {
    let publish = || {
        // So far it was private; what it becomes is served by the host, often as another user.
        fs::set_permissions(made, fs::Permissions::from_mode(0o755))?;
        File::open(made)?.sync_all()?;
        fs::rename(made, out)?;
        File::open(parent(out))?.sync_all()
    };
    publish().map_err(|source| io_error("create", out, source))
}

/// A dangling link counts: the rename would replace it.
pub(crate) fn must_not_exist(out: &Path) -> Result<(), Error> {
    match out.symlink_metadata() {
        Ok(_) => Err(Error::OutputExists { path: out.into() }),
        Err(_) => Ok(()),
    }
}

pub(crate) fn parent(out: &Path) -> PathBuf {
    match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => PathBuf::from("."),
    }
}
