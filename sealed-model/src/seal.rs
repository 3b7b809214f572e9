use std::io;
use std::path::Path;
use std::time::SystemTime;

use time::OffsetDateTime;

use crate::documents::{BOM, MODEL_SIG};
use crate::encrypt::{Encryption, Plaintext};
use crate::envelope::Envelope;
use crate::manifest::MAX_TOTAL;
use crate::partial::{Partial, must_not_exist};
use crate::progress::Meter;
use crate::segments::SEGMENTS;
use crate::{
    DataKey, Documents, Error, FileEntry, MANIFEST, Manifest, SIGNATURE, SealProgress, SignedModel,
    SigningKey, accept, bom, name, sign_model,
};

/// What [`seal`] makes of a directory.
pub struct SealOptions<'a> {
    pub name: &'a str,
    /// From 1 on; each release of a model takes a higher one, and a key of its own.
    pub epoch: u64,
    pub key: &'a DataKey,
    pub signer: &'a SigningKey,
    /// The date that the manifest carries.
    pub created: SystemTime,
    /// Called after each segment, from several threads.
    pub progress: &'a (dyn Fn(SealProgress<'_>) + Sync),
}

/// Seals the model in `dir` as the package `out`, which must not exist. It appears whole or not at all: everything is written
/// beside it first, in [`partial_path`](crate::partial_path), and renamed when it is on disk. Called again after it was
/// interrupted, it keeps the files that were done.
///
/// # Errors
/// [`Error::Rejected`] names the first file that must not be in a model, and why.
pub fn seal(dir: &Path, out: &Path, options: &SealOptions<'_>) -> Result<Manifest, Error> {
    name::check_model(options.name, options.epoch)?;
    must_not_exist(out)?;
    let (inputs, facts) = accept::collect(dir)?;
    let release = Release {
        name: options.name,
        epoch: options.epoch,
        key: options.key,
        signer: options.signer,
        created: options.created.into(),
        progress: options.progress,
    };
    release.make(&inputs, out, |files| {
        let plain = files
            .iter()
            .map(|entry| (entry.path.as_str(), entry.sha256));
        let model_sig = sign_model(options.name, plain, options.signer)?;
        let (model, _) = SignedModel::verify(&model_sig, &[options.signer.public()?])?;
        let bom = bom::bom(options.name, release.created, &facts, &model, files)?;
        Ok(Documents { model_sig, bom })
    })
}

/// One package to be made, of files on disk or of another package.
pub(crate) struct Release<'a> {
    pub(crate) name: &'a str,
    pub(crate) epoch: u64,
    pub(crate) key: &'a DataKey,
    pub(crate) signer: &'a SigningKey,
    pub(crate) created: OffsetDateTime,
    pub(crate) progress: &'a (dyn Fn(SealProgress<'_>) + Sync),
}

impl Release<'_> {
    /// `documents` gets the files in order of their paths.
    pub(crate) fn make(
        &self,
        inputs: &[impl Plaintext],
        out: &Path,
        documents: impl FnOnce(&[FileEntry]) -> Result<Documents, Error>,
    ) -> Result<Manifest, Error> {
        let total = inputs.iter().map(Plaintext::size);
        let total = total.fold(0u64, u64::saturating_add);
        if total > MAX_TOTAL {
            return Err(Error::TooLarge {
                file: "the model".into(),
                max: MAX_TOTAL,
                actual: total,
            });
        }
        let partial = Partial::open(out)?;
        let names = inputs.iter().map(|input| name::sealed_name(input.path()));
        partial.retain(&names.collect())?;
        let encryption = Encryption {
            name: self.name,
            epoch: self.epoch,
            key: self.key,
            dir: partial.path(),
            meter: &Meter::new(total, self.progress),
        };
        let (files, lists): (Vec<_>, Vec<_>) = encryption
            .run(inputs)?
            .into_iter()
            .map(|sealed| (sealed.entry, sealed.segments))
            .unzip();
        let documents = documents(&files)?;
        let manifest = Manifest::assemble(
            self.name,
            self.epoch,
            self.key,
            self.created,
            &documents,
            files,
        )?;
        let bytes = manifest.to_bytes()?;
        // A reader refuses a longer one; long names in many files could get there.
        if bytes.len() as u64 > crate::MAX_MANIFEST_BYTES {
            return Err(Error::TooLarge {
                file: MANIFEST.into(),
                max: crate::MAX_MANIFEST_BYTES,
                actual: bytes.len() as u64,
            });
        }
        let envelope = Envelope::sign(&bytes, self.signer)?.to_bytes()?;
        partial.write(SEGMENTS, &lists.concat())?;
        partial.write(MODEL_SIG, &documents.model_sig)?;
        partial.write(BOM, &documents.bom)?;
        partial.write(MANIFEST, &bytes)?;
        partial.write(SIGNATURE, &envelope)?;
        partial.publish()?;
        Ok(manifest)
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io {
        action,
        path: path.into(),
        source,
    }
}
