use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the files of a package are read from: a directory, a server on the host. Blocking, and hostile: sizes and bytes are
/// believed only after they were checked. An error means "not delivered" and may be retried.
pub trait Source: Send + Sync {
    /// Bytes of the file `name` (a name without `/`).
    fn size(&self, name: &str) -> io::Result<u64>;

    /// Fills `buf` from `offset` on, wholly or not at all.
    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// A package in a local directory.
pub struct DirSource(pub PathBuf);

impl DirSource {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }
}

impl Source for DirSource {
    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.0.join(name).metadata()?.len())
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        File::open(self.0.join(name))?.read_exact_at(buf, offset)
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<S: Source + ?Sized> Source for $pointer {
            fn size(&self, name: &str) -> io::Result<u64> {
                (**self).size(name)
            }

            fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
                (**self).read_at(name, offset, buf)
            }
        }
    )*};
}

forward!(Arc<S>, Box<S>, &S);
