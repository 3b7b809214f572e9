use std::path::PathBuf;

use clap::Args;
use sealed_model::{DirSource, Package};

use crate::failure::Failure;
use crate::files;
use crate::output::{self, Progress, field};

/// Decrypt a package back into a model directory
///
/// For the owner of the key. Checks the publisher's signatures, every segment and every file's SHA-256; any epoch is accepted.
/// model.sig comes back beside the files, for cloister verify-model and OpenSSF's model_signing.
#[derive(Args)]
#[command(after_help = "\
Example:
  cloister unseal ./packages/my-model --out ./my-model-again \\
      --key-file keys/data.key --publisher keys/publisher.pub.pem")]
pub(crate) struct Unseal {
    /// A directory that cloister seal made.
    #[arg(value_name = "PKG")]
    package: PathBuf,
    /// Directory for the plaintext; it must not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Data key of this version: a file with 64 hex digits that only you can read.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Public key of the publisher, PEM. May be given several times.
    #[arg(long, value_name = "PUB.pem", required = true)]
    publisher: Vec<PathBuf>,
}

impl Unseal {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let key = files::data_key(&self.key_file)?;
        let publishers: Vec<_> = self
            .publisher
            .iter()
            .map(|path| files::publisher_key(path))
            .collect::<Result<_, _>>()?;
        let failed = |error| Failure::model(&self.package, error);
        let package = Package::open_any_version(DirSource::new(&self.package), &publishers)
            .map_err(failed)?
            .unlock(key)
            .map_err(failed)?;
        {
            let progress = Progress::new("unsealing");
            sealed_model::unseal(&package, &publishers, &self.out, &|step| {
                progress.show(step)
            })
            .map_err(failed)?;
        }
        let manifest = package.manifest();
        let total = manifest.files.iter().map(|entry| entry.size).sum();
        let mut text = String::new();
        field(&mut text, "directory", self.out.display());
        field(
            &mut text,
            "model",
            format_args!("{} epoch {}", manifest.name, manifest.epoch),
        );
        field(
            &mut text,
            "files",
            format_args!("{}, {}", manifest.files.len(), output::bytes(total)),
        );
        output::print(&text)
    }
}
