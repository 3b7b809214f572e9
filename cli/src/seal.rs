use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use sealed_model::{Manifest, SealOptions, Sha256Digest};

use crate::failure::Failure;
use crate::files;
use crate::kms::KmsArguments;
use crate::output::{self, Progress, field};

/// Encrypt and sign a model directory
///
/// Takes safetensors (also sharded), GGUF, tokenizer and configuration JSON, chat_template.jinja, vocab.txt, merges.txt and licence
/// texts; checks their headers; refuses everything that a loader could run, and says which file. Beside the ciphertexts it writes
/// model.sig (OpenSSF Model Signing over the plaintext) and bom.cdx.json (CycloneDX 1.6). The package appears whole or not at all;
/// run again after it was interrupted, the same command keeps the files that were done.
#[derive(Args)]
#[command(after_help = "\
Example:
  cloister seal ./my-model --out ./packages/my-model --name my-model --epoch 1 \\
      --key-file keys/data.key --sign-key keys/publisher.key.pem

The data key goes to the key broker under the printed key id, or with --kms-key into the package, wrapped. A new version takes a higher epoch and a key of its own.")]
pub(crate) struct Seal {
    /// The model: a Hugging Face directory, or one with a GGUF file.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The package to make; it must not exist.
    #[arg(long, value_name = "PKG")]
    out: PathBuf,
    /// Name under which callers ask for the model.
    #[arg(long)]
    name: String,
    /// Version number, from 1 on. Enclaves refuse one below the floor they are configured with.
    #[arg(long, value_name = "N")]
    epoch: u64,
    /// Data key of this version: a file with 64 hex digits that only you can read.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Publisher's private key: P-256, PKCS#8 PEM.
    #[arg(long, value_name = "PEM")]
    sign_key: PathBuf,
    #[command(flatten)]
    kms: KmsArguments,
}

impl Seal {
    pub(crate) fn run(&self, now: SystemTime) -> Result<(), Failure> {
        let key = files::data_key(&self.key_file)?;
        let signer = files::signing_key(&self.sign_key)?;
        let wrapper = self.kms.wrapper(now)?;
        let manifest = {
            let progress = Progress::new("sealing");
            let options = SealOptions {
                name: &self.name,
                epoch: self.epoch,
                key: &key,
                signer: &signer,
                created: now,
                progress: &|step| progress.show(step),
            };
            sealed_model::seal(&self.dir, &self.out, &options)
                .map_err(|error| Failure::model(&self.dir, error).resumable(&self.out))?
        };
        let mut text = made(&self.out, &manifest)?;
        if let Some(wrapper) = wrapper {
            let path = wrapper.wrap(&self.out, &manifest, &key)?;
            field(&mut text, "wrapped key", path.display());
        }
        output::print(&text)
    }
}

/// What is to be known of a package that was just made.
pub(crate) fn made(out: &Path, manifest: &Manifest) -> Result<String, Failure> {
    let path = out.join(sealed_model::MANIFEST);
    let bytes = std::fs::read(&path).map_err(|error| Failure::io("read", &path, error))?;
    let total = manifest.files.iter().map(|entry| entry.size).sum();
    let mut text = String::new();
    field(&mut text, "package", out.display());
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
    field(&mut text, "key id", &manifest.key_id);
    field(
        &mut text,
        "manifest",
        format_args!("sha256 {}", Sha256Digest::of(&bytes)),
    );
    Ok(text)
}
