use std::path::PathBuf;

use clap::Args;
use supply_chain::{Blob, Bundle};

use crate::artefact::{beside, create, failed};
use crate::failure::Failure;
use crate::files;
use crate::output::{self, field};

/// Sign files, so that cosign and cloister verify them with a public key, offline
///
/// Of FILE makes FILE.sig (base64) and FILE.sigstore.json (Sigstore bundle): two forms of one signature. Use a key of its own for
/// images, another one than for models. To sign what a document says of an image, use cloister attest.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cloister keygen --out image-keys --only publisher
  cloister sign app.eif --key image-keys/publisher.key.pem
  cosign verify-blob --key image-keys/publisher.pub.pem --bundle app.eif.sigstore.json --insecure-ignore-tlog app.eif
  openssl base64 -d -A -in app.eif.sig | openssl dgst -sha256 -verify image-keys/publisher.pub.pem -signature /dev/stdin app.eif")]
pub(crate) struct Sign {
    /// What to sign: any file.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Private key, ECDSA P-256 in PKCS#8 PEM, as cloister keygen makes it.
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
}

impl Sign {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let signer = files::signing_key(&self.key)?;
        let public = signer
            .public()
            .map_err(|error| Failure::model(&self.key, error))?;
        let mut text = String::new();
        for path in &self.files {
            let failed = |error| failed(path, error);
            let content =
                std::fs::File::open(path).map_err(|error| Failure::io("read", path, error))?;
            let blob = Blob::read(content).map_err(failed)?;
            let signature = blob.sign(&signer).map_err(failed)?;
            let bundle = Bundle::of_blob(&blob, &signature, &public).map_err(failed)?;
            let (raw, bundled) = (beside(path, "sig"), beside(path, "sigstore.json"));
            create(&raw, signature.to_base64().as_bytes())?;
            create(&bundled, &bundle)?;
            field(&mut text, "signed", path.display());
            field(&mut text, "sha256", blob.sha256());
            field(&mut text, "signature", raw.display());
            field(&mut text, "bundle", bundled.display());
        }
        field(&mut text, "key", public.id());
        output::print(&text)
    }
}
