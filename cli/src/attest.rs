use std::path::PathBuf;

use clap::Args;
use supply_chain::{Blob, Bundle, Envelope, sbom_statement, unsigned_statement};

use crate::artefact::{artifact, beside, create, failed, read};
use crate::failure::Failure;
use crate::files;
use crate::output::{self, field};

/// Sign what a document says of an enclave image
///
/// The document is a provenance (in-toto statement) or a bill of materials (CycloneDX 1.6), as cloister build-image makes them.
/// It is refused unless it names this very image. Makes DOCUMENT.sigstore.json: a bundle around a DSSE envelope.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cloister attest provenance.json --image app.eif --key image-keys/publisher.key.pem
  cloister attest sbom.cdx.json --image app.eif --key image-keys/publisher.key.pem
  cosign verify-blob-attestation --key image-keys/publisher.pub.pem --type slsaprovenance1 --insecure-ignore-tlog \\
      --bundle provenance.json.sigstore.json app.eif")]
pub(crate) struct Attest {
    #[arg(value_name = "DOCUMENT")]
    document: PathBuf,
    /// What the document has to be about.
    #[arg(long, value_name = "IMAGE")]
    image: PathBuf,
    /// Private key, ECDSA P-256 in PKCS#8 PEM, as cloister keygen makes it.
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
}

impl Attest {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let failed_here = |error| failed(&self.document, error);
        let signer = files::signing_key(&self.key)?;
        let public = signer
            .public()
            .map_err(|error| Failure::model(&self.key, error))?;
        let content = std::fs::File::open(&self.image)
            .map_err(|error| Failure::io("read", &self.image, error))?;
        let blob = Blob::read(content).map_err(|error| failed(&self.image, error))?;
        let document = read(&self.document)?;
        let statement = match is_sbom(&document) {
            true => sbom_statement(&artifact(&self.image, &blob)?, &document),
            false => unsigned_statement(&blob, document),
        }
        .map_err(failed_here)?;
        let envelope = Envelope::sign(&statement, &signer).map_err(failed_here)?;
        let bundle = Bundle::of_statement(&envelope, &public).map_err(failed_here)?;
        let out = beside(&self.document, "sigstore.json");
        create(&out, &bundle)?;
        let mut text = String::new();
        field(&mut text, "attested", self.document.display());
        field(
            &mut text,
            "image",
            format_args!("{} {}", blob.sha256(), self.image.display()),
        );
        field(&mut text, "bundle", out.display());
        field(&mut text, "key", public.id());
        output::print(&text)
    }
}

/// A guess that decides nothing: each reader checks for itself.
fn is_sbom(document: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(document)
        .is_ok_and(|value| value.get("bomFormat").is_some())
}
