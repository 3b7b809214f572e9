use std::path::Path;
use std::time::SystemTime;

use crate::encrypt::Plaintext;
use crate::partial::must_not_exist;
use crate::seal::Release;
use crate::{
    DataKey, Error, FileEntry, Manifest, PublisherKey, SealProgress, Sha256Digest, SigningKey,
    Source, UnlockedPackage, name,
};

/// What [`rotate`] makes of a package.
pub struct RotateOptions<'a> {
    /// Above the package's own.
    pub epoch: u64,
    /// Another than the package's own.
    pub key: &'a DataKey,
    pub signer: &'a SigningKey,
    /// The date that the new manifest carries.
    pub created: SystemTime,
    /// Called after each segment, from several threads.
    pub progress: &'a (dyn Fn(SealProgress<'_>) + Sync),
}

/// Encrypts the files of `package` again, under another key and for a higher epoch, as the package `out`. The plaintext is not
/// signed again: `model.sig` and the bill of materials stay as they are, and one of `publishers` has to have signed the first.
/// No plaintext reaches a disk; as with [`seal`](crate::seal()), an interrupted run goes on when it is called again.
///
/// # Errors
/// [`Error::NotNewer`], [`Error::Key`] where the new key is the old one, and what is wrong with the package.
pub fn rotate<S: Source>(
    package: &UnlockedPackage<S>,
    publishers: &[PublisherKey],
    out: &Path,
    options: &RotateOptions<'_>,
) -> Result<Manifest, Error> {
    let old = package.manifest();
    name::check_model(&old.name, options.epoch)?;
    if options.epoch <= old.epoch {
        return Err(Error::NotNewer {
            epoch: options.epoch,
            old: old.epoch,
        });
    }
    if options.key.matches(&old.key_id, &old.key_check)? {
        return Err(Error::Key {
            what: "new data key",
            problem: "is the one that the package has already (make another: cloister keygen --only data)",
        });
    }
    must_not_exist(out)?;
    let documents = package.documents()?;
    documents.check(old, publishers)?;
    let inputs: Vec<_> = package
        .files()
        .iter()
        .map(|entry| Sealed { package, entry })
        .collect();
    let release = Release {
        name: &old.name,
        epoch: options.epoch,
        key: options.key,
        signer: options.signer,
        created: options.created.into(),
        progress: options.progress,
    };
    release.make(&inputs, out, |_| Ok(documents))
}

/// A file of the old package.
struct Sealed<'a, S> {
    package: &'a UnlockedPackage<S>,
    entry: &'a FileEntry,
}

impl<S: Source> Plaintext for Sealed<'_, S> {
    fn path(&self) -> &str {
        &self.entry.path
    }

    fn size(&self) -> u64 {
        self.entry.size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        if self.entry.size == 0 {
            // That it is empty is for its tag to say, too.
            return self.package.verify_file(&self.entry.path);
        }
        self.package.read_at(&self.entry.path, offset, buf)
    }

    fn accept(&self, sha256: &Sha256Digest) -> Result<(), Error> {
        match *sha256 == self.entry.sha256 {
            true => Ok(()),
            false => Err(Error::Digest {
                file: self.entry.path.clone(),
                expected: self.entry.sha256,
                actual: *sha256,
            }),
        }
    }
}
