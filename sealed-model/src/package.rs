use crate::envelope::{Envelope, MAX_ENVELOPE_BYTES};
use crate::manifest::MAX_MANIFEST_BYTES;
use crate::{
    DataKey, Documents, Error, Manifest, PublisherKey, Sha256Digest, Source, UnlockedPackage,
};

/// The manifest's file name in a package.
pub const MANIFEST: &str = "manifest.json";
/// The signature's file name in a package.
pub const SIGNATURE: &str = "manifest.sig";

/// A package whose manifest a trusted publisher signed and whose files have the sizes it says. Still locked.
#[derive(Debug)]
pub struct Package<S> {
    source: S,
    manifest: Manifest,
    digest: Sha256Digest,
    publisher: PublisherKey,
}

impl<S: Source> Package<S> {
    /// Opens the package of model `expected_name`, signed by one of `trusted`, of `min_epoch` or later.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where the source did not deliver; anything else is final.
    pub fn open(
        source: S,
        trusted: &[PublisherKey],
        expected_name: &str,
        min_epoch: u64,
    ) -> Result<Self, Error> {
        let signed = Signed::read(&source)?;
        let publisher = signed.envelope.verify(&signed.manifest, trusted)?.clone();
        let manifest = Manifest::parse(&signed.manifest)?;
        if manifest.name != expected_name {
            return Err(Error::WrongName {
                expected: expected_name.into(),
                actual: manifest.name,
            });
        }
        if manifest.epoch < min_epoch {
            return Err(Error::StaleEpoch {
                floor: min_epoch,
                actual: manifest.epoch,
            });
        }
        check_sizes(&source, &manifest)?;
        Ok(Self {
            digest: Sha256Digest::of(&signed.manifest),
            source,
            manifest,
            publisher,
        })
    }

    /// Like [`Self::open`], for tools of the model's owner that take name and epoch as they come: an old version opens too.
    pub fn open_any_version(source: S, trusted: &[PublisherKey]) -> Result<Self, Error> {
        let signed = Signed::read(&source)?;
        signed.envelope.verify(&signed.manifest, trusted)?;
        let name = Manifest::parse(&signed.manifest)?.name;
        Self::open(source, trusted, &name, 0)
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the signed bytes of the manifest: the identity of this model version.
    pub fn manifest_sha256(&self) -> [u8; 32] {
        *self.digest.as_bytes()
    }

    /// Who signed it.
    pub fn publisher(&self) -> &PublisherKey {
        &self.publisher
    }

    /// The signature and the bill of materials beside the manifest. An enclave needs neither.
    ///
    /// # Errors
    /// [`Error::Digest`] where one is not what the manifest says.
    pub fn documents(&self) -> Result<Documents, Error> {
        Documents::read(&self.source, &self.manifest)
    }

    /// # Errors
    /// [`Error::WrongKey`] where `key` is not the one this package was sealed with.
    pub fn unlock(self, key: DataKey) -> Result<UnlockedPackage<S>, Error> {
        let manifest = &self.manifest;
        if !key.matches(&manifest.key_id, &manifest.key_check)? {
            return Err(Error::WrongKey {
                key_id: manifest.key_id.clone(),
            });
        }
        UnlockedPackage::new(self.source, self.manifest, key)
    }
}

/// What a package says of itself, for people.
#[derive(Debug)]
pub struct Inspection {
    /// Authentic only where `signature` is [`SignatureVerdict::Valid`].
    pub manifest: Manifest,
    pub manifest_sha256: Sha256Digest,
    /// The key id in the envelope.
    pub claimed_publisher: String,
    pub signature: SignatureVerdict,
    /// Of `model.sig`, over the plaintext files; it and the bill of materials are those that the manifest names.
    pub model_signature: SignatureVerdict,
}

/// What can be said of a manifest's signature with the publisher keys at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureVerdict {
    Valid,
    /// By a publisher that is not among the given keys, so it was not checked.
    UnknownPublisher,
    Invalid,
}

/// Reads the manifest of a package without any key, whoever signed it. Decide nothing by the result.
pub fn inspect<S: Source>(source: &S, publishers: &[PublisherKey]) -> Result<Inspection, Error> {
    let signed = Signed::read(source)?;
    let signature = match signed.envelope.verify(&signed.manifest, publishers) {
        Ok(_) => SignatureVerdict::Valid,
        Err(Error::UnknownPublisher { .. }) => SignatureVerdict::UnknownPublisher,
        Err(_) => SignatureVerdict::Invalid,
    };
    let manifest = Manifest::parse(&signed.manifest)?;
    check_sizes(source, &manifest)?;
    let documents = Documents::read(source, &manifest)?;
    let model_signature = match documents.check(&manifest, publishers) {
        Ok(_) => SignatureVerdict::Valid,
        Err(_) if publishers.is_empty() => SignatureVerdict::UnknownPublisher,
        Err(_) => SignatureVerdict::Invalid,
    };
    Ok(Inspection {
        model_signature,
        manifest,
        manifest_sha256: Sha256Digest::of(&signed.manifest),
        claimed_publisher: signed.envelope.claimed_signer(),
        signature,
    })
}

/// The two files as they came, the manifest unparsed: nothing but the signature looks at it first.
struct Signed {
    envelope: Envelope,
    manifest: Vec<u8>,
}

impl Signed {
    fn read<S: Source>(source: &S) -> Result<Self, Error> {
        let envelope = read_bounded(source, SIGNATURE, MAX_ENVELOPE_BYTES)?;
        Ok(Self {
            envelope: Envelope::parse(&envelope)?,
            manifest: read_bounded(source, MANIFEST, MAX_MANIFEST_BYTES)?,
        })
    }
}

pub(crate) fn read_bounded<S: Source>(source: &S, file: &str, max: u64) -> Result<Vec<u8>, Error> {
    let unavailable = |source| Error::Unavailable {
        file: file.into(),
        source,
    };
    let size = source.size(file).map_err(unavailable)?;
    let len = usize::try_from(size).ok().filter(|_| size <= max);
    let mut bytes = vec![
        0;
        len.ok_or_else(|| Error::TooLarge {
            file: file.into(),
            max,
            actual: size,
        })?
    ];
    source.read_at(file, 0, &mut bytes).map_err(unavailable)?;
    Ok(bytes)
}

/// A tail cut off or bytes appended show here; that the bytes are right, each segment shows when it is read.
fn check_sizes<S: Source>(source: &S, manifest: &Manifest) -> Result<(), Error> {
    for entry in &manifest.files {
        let file = entry.sealed_name();
        let actual = source.size(&file).map_err(|source| Error::Unavailable {
            file: file.clone(),
            source,
        })?;
        if actual != entry.sealed_size {
            return Err(Error::Size {
                file,
                expected: entry.sealed_size,
                actual,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
