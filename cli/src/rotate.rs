use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use sealed_model::{DirSource, Package, RotateOptions};

use crate::failure::Failure;
use crate::files;
use crate::output::{self, Progress};
use crate::seal::made;

/// Encrypt a package again, under another key and for a higher epoch
///
/// For a key that has to be retired. The plaintext is checked against what the publisher signed, reaches no disk, and is not
/// signed again: model.sig and the bill of materials stay as they are. The new manifest is signed with --sign-key. The package
/// appears whole or not at all; run again after it was interrupted, the same command keeps the files that were done.
#[derive(Args)]
#[command(after_help = "\
Example:
  cloister keygen --out keys/epoch-2 --only data
  cloister rotate ./packages/my-model --out ./packages/my-model-2 --epoch 2 \\
      --key-file keys/data.key --new-key-file keys/epoch-2/data.key \\
      --publisher keys/publisher.pub.pem --sign-key keys/publisher.key.pem

Then give the new key to the key broker, raise the floor in the enclaves' configuration, and remove the old key at the broker.")]
pub(crate) struct Rotate {
    /// A directory that cloister seal made.
    #[arg(value_name = "PKG")]
    package: PathBuf,
    /// The package to make; it must not exist.
    #[arg(long, value_name = "PKG")]
    out: PathBuf,
    /// Version number of the new package, above that of the old one.
    #[arg(long, value_name = "N")]
    epoch: u64,
    /// Data key of the old package: a file with 64 hex digits that only you can read.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Data key of the new package, in the same form.
    #[arg(long, value_name = "FILE")]
    new_key_file: PathBuf,
    /// Public key of the publisher of the old package, PEM. May be given several times.
    #[arg(long, value_name = "PUB.pem", required = true)]
    publisher: Vec<PathBuf>,
    /// Publisher's private key, for the new manifest: P-256, PKCS#8 PEM.
    #[arg(long, value_name = "PEM")]
    sign_key: PathBuf,
}

impl Rotate {
    pub(crate) fn run(&self, now: SystemTime) -> Result<(), Failure> {
        let key = files::data_key(&self.key_file)?;
        let new_key = files::data_key(&self.new_key_file)?;
        let signer = files::signing_key(&self.sign_key)?;
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
        let manifest = {
            let progress = Progress::new("rotating");
            let options = RotateOptions {
                epoch: self.epoch,
                key: &new_key,
                signer: &signer,
                created: now,
                progress: &|step| progress.show(step),
            };
            sealed_model::rotate(&package, &publishers, &self.out, &options)
                .map_err(|error| failed(error).resumable(&self.out))?
        };
        output::print(&made(&self.out, &manifest)?)
    }
}
