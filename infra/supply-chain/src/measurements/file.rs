use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{MAX_LOG, MeasurementLog};
use crate::Error;

/// The file of a list while one process, and no other, may add to it.
pub struct LogFile {
    path: PathBuf,
    /// Open and locked; the lock ends with it. The file itself is replaced, so that it is the directory that is locked.
    directory: File,
}

impl LogFile {
    /// Waits for nobody: two that add at the same time would lose one entry.
    ///
    /// # Errors
    /// [`Error::Io`] where the directory is not there, or somebody else adds right now.
    pub fn lock(path: &Path) -> Result<Self, Error> {
        let failed = |action| {
            move |source: io::Error| Error::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let directory = File::open(parent(path)).map_err(failed("open the directory of"))?;
        directory
            .try_lock()
            .map_err(io::Error::from)
            .map_err(failed("lock, because another process adds to"))?;
        Ok(Self {
            path: path.to_owned(),
            directory,
        })
    }

    /// The bytes, or `None` where there is no such file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::TooLarge`].
    pub fn read(&self) -> Result<Option<Vec<u8>>, Error> {
        match read(&self.path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Replaces the file: readers see the old one or the new one, whole.
    ///
    /// # Errors
    /// [`Error::Io`]; then the old one is still there.
    pub fn replace(&self, log: &MeasurementLog) -> Result<(), Error> {
        let bytes = log.to_bytes()?;
        let write = || {
            let mut file = tempfile::Builder::new()
                .prefix(".measurements-")
                .tempfile_in(parent(&self.path))?;
            file.write_all(&bytes)?;
            file.as_file()
                .set_permissions(fs::Permissions::from_mode(0o644))?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            self.directory.sync_all()
        };
        write().map_err(|source: io::Error| Error::Io {
            action: "write",
            path: self.path.clone(),
            source,
        })
    }
}

/// A list's bytes, not verified.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_LOG as u64 + 1).read_to_end(&mut bytes))
        .map_err(|source| Error::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
    match bytes.len() <= MAX_LOG {
        true => Ok(bytes),
        false => Err(Error::TooLarge {
            what: "measurements",
            max: MAX_LOG as u64,
            actual: bytes.len() as u64,
        }),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
