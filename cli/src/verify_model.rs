use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use sealed_model::{MODEL_SIG, SignedModel};

use crate::failure::Failure;
use crate::files;
use crate::output::{self, Progress, field};

/// The library refuses a longer one.
const MAX_SIGNATURE: u64 = (16 << 20) + 1;

/// Check a plaintext model directory against its signature
///
/// Takes an OpenSSF Model Signing v1.0 bundle, of cloister or of model_signing sign key with a P-256 key: each signed file must be
/// there with its SHA-256, and nothing else but what the signature ignores (version control, and the signature itself).
#[derive(Args)]
#[command(after_help = "\
Examples:
  cloister verify-model ./my-model --publisher keys/publisher.pub.pem          with the model.sig in it
  cloister verify-model ./my-model --signature ./packages/my-model/model.sig --publisher keys/publisher.pub.pem

The same by other means:
  model_signing verify key ./my-model --signature ./my-model/model.sig --public_key keys/publisher.pub.pem")]
pub(crate) struct VerifyModel {
    /// A model directory.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The bundle. Default: model.sig in the directory.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Public key of a publisher to accept, PEM. May be given several times.
    #[arg(long, value_name = "PUB.pem", required = true)]
    publisher: Vec<PathBuf>,
}

impl VerifyModel {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let publishers: Vec<_> = self
            .publisher
            .iter()
            .map(|path| files::publisher_key(path))
            .collect::<Result<_, _>>()?;
        let path = match &self.signature {
            Some(path) => path.clone(),
            None => self.dir.join(MODEL_SIG),
        };
        let unreadable = |error| Failure::io("read", &path, error);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_SIGNATURE).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        if !self.dir.is_dir() {
            return Err(Failure::usage(anyhow!(
                "{}: is not a directory",
                self.dir.display()
            )));
        }
        let (model, publisher) = SignedModel::verify(&bytes, &publishers)
            .map_err(|error| Failure::model(&path, error))?;
        {
            let progress = Progress::new("comparing");
            model
                .check_dir(&self.dir, &path, &|step| progress.show(step))
                .map_err(|error| Failure::model(&self.dir, error))?;
        }
        let mut text = String::new();
        field(&mut text, "directory", self.dir.display());
        field(&mut text, "model", model.name());
        field(&mut text, "files", model.files().len());
        field(
            &mut text,
            "digest",
            format_args!("sha256 {}", model.digest()),
        );
        field(&mut text, "publisher", publisher.id());
        field(&mut text, "signature", "valid");
        output::print(&text)
    }
}
