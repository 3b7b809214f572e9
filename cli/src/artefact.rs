//! Files beside an enclave image: read with a bound, written once, refused by name.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use image::Image;
use supply_chain::{
    Artifact, Blob, BlobReader, Error, ErrorKind, MAX_ENVELOPE, PublisherKey, Register, Registers,
};

use crate::failure::{Chain, Failure};
use crate::files;

/// What the library said about the file `path`.
pub(crate) fn failed(path: &Path, error: Error) -> Failure {
    let kind = error.kind();
    match error {
        // These name their own path.
        Error::Io {
            action,
            path,
            source,
        } => Failure::io(action, &path, source),
        Error::Content(source) => Failure::io("read", path, source),
        error => {
            let text = anyhow!("{}: {}", path.display(), Chain(&error));
            match kind {
                ErrorKind::Invalid => Failure::usage(text),
                ErrorKind::Internal => Failure::bug(text),
                _ => Failure::refused(text),
            }
        }
    }
}

/// An image, and the digest of the very bytes that were measured.
pub(crate) fn image(path: &Path) -> Result<(Image, Blob), Failure> {
    let file = File::open(path).map_err(|error| Failure::io("read", path, error))?;
    let mut reader = BlobReader::new(BufReader::new(file));
    let image = Image::read(&mut reader).map_err(|error| Failure::image(path, error))?;
    let blob = reader.finish().map_err(|error| failed(path, error))?;
    Ok((image, blob))
}

pub(crate) fn registers(image: &Image) -> Registers {
    let register = |pcr: image::Pcr| Register::from(*pcr.as_bytes());
    Registers {
        pcr0: register(image.measurements.pcr0),
        pcr1: register(image.measurements.pcr1),
        pcr2: register(image.measurements.pcr2),
        pcr8: image.measurements.pcr8.map(register),
    }
}

/// A document; the library has its own bound, this one is for the memory.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let limit = MAX_ENVELOPE as u64 + 1;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| Failure::io("read", path, error))?;
    Ok(bytes)
}

/// As a statement names it: without the directory.
pub(crate) fn artifact(path: &Path, blob: &Blob) -> Result<Artifact, Failure> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| {
        Failure::usage(anyhow!(
            "{}: has no name that a statement could give it",
            path.display()
        ))
    })?;
    Ok(Artifact {
        name: name.to_owned(),
        sha256: *blob.sha256(),
    })
}

pub(crate) fn keys(paths: &[PathBuf]) -> Result<Vec<PublisherKey>, Failure> {
    paths
        .iter()
        .map(|path| files::publisher_key(path))
        .collect()
}

/// `app.eif` and `sig` are `app.eif.sig`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Writes a new file; one that exists stays as it is.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::usage(anyhow!(
            "{}: exists already: remove it first",
            path.display()
        )),
        _ => Failure::io("write", path, error),
    })
}
