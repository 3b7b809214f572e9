use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use image::Image;
use supply_chain::{
    Blob, Bundle, CYCLONEDX_BOM, Envelope, Error, MeasurementLog, Pin, Provenance, PublisherKey,
    SLSA_PROVENANCE, Signature, Statement, bom_sha256,
};

use crate::artefact::{self, failed};
use crate::failure::Failure;
use crate::output::{self, field};

/// Check who signed an enclave image, and what was signed about it, offline
///
/// The image's own signature and its provenance have to hold; the bill of materials and the list of published measurements if they
/// are given. Everything has to be signed by a key given here. What runs is told by evidence only: compare the registers
/// printed here with those of cloister verify, or put them into a policy.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cloister verify-image app.eif --key publisher.pub.pem --provenance provenance.json.sigstore.json
  cloister verify-image app.eif --key publisher.pub.pem --provenance provenance.json.sigstore.json \\
      --sbom sbom.cdx.json.sigstore.json --measurements measurements.json --at-least 7 \\
      --commit 5aefc2d1… --builder https://builder.example/v1")]
pub(crate) struct VerifyImage {
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Public key to believe, PEM. May be given several times.
    #[arg(long, value_name = "PEM", required = true)]
    key: Vec<PathBuf>,
    /// Signature of the image: a bundle, or base64. Default: IMAGE.sigstore.json.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Attested provenance: a bundle, or a DSSE envelope.
    #[arg(long, value_name = "FILE")]
    provenance: PathBuf,
    /// Attested bill of materials: a bundle, or a DSSE envelope.
    #[arg(long, value_name = "FILE")]
    sbom: Option<PathBuf>,
    /// List in which the image has to be published, and not revoked.
    #[arg(long, value_name = "FILE")]
    measurements: Option<PathBuf>,
    /// Entry that the list must have: its number, or better its SHA-256. Without, an old list is taken for the newest.
    #[arg(long, value_name = "PIN", requires = "measurements", value_parser = pin)]
    at_least: Option<Pin>,
    /// Commit that the provenance has to name.
    #[arg(long, value_name = "HEX")]
    commit: Option<String>,
    /// Builder that the provenance has to name.
    #[arg(long, value_name = "URI")]
    builder: Option<String>,
    /// SHA-256 of the enclave's configuration that the provenance has to name.
    #[arg(long, value_name = "HEX")]
    config: Option<String>,
}

pub(crate) fn pin(text: &str) -> Result<Pin, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

impl VerifyImage {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let keys = artefact::keys(&self.key)?;
        let (image, blob) = artefact::image(&self.image)?;
        let mut text = String::new();
        field(
            &mut text,
            "image",
            format_args!("{} {}", blob.sha256(), self.image.display()),
        );

        let path = self
            .signature
            .clone()
            .unwrap_or_else(|| artefact::beside(&self.image, "sigstore.json"));
        let signer = signature(&path).and_then(|signature| {
            blob.verify(&signature, &keys)
                .map_err(|error| failed(&path, error))
        })?;
        field(&mut text, "signed by", signer.id());

        let (statement, by) = statement(&self.provenance, &keys, SLSA_PROVENANCE, &blob)?;
        let provenance =
            Provenance::of(&statement).map_err(|error| failed(&self.provenance, error))?;
        self.appraise(&provenance, &mut text)?;
        field(&mut text, "says", by.id());

        if let Some(path) = &self.sbom {
            let (bom, by) = self::statement(path, &keys, CYCLONEDX_BOM, &blob)?;
            // It could be an older one of the same image.
            bom_sha256(&bom)
                .and_then(|digest| statement.names(&digest).map(drop))
                .map_err(|error| failed(path, error))?;
            field(&mut text, "sbom by", by.id());
        }
        if let Some(path) = &self.measurements {
            self.published(path, &keys, &blob, &image, &mut text)?;
        }
        for (index, pcr) in image.measurements.registers() {
            field(&mut text, &format!("PCR{index}"), pcr);
        }
        output::print(&text)
    }

    /// What the provenance says, and whether it had to.
    fn appraise(&self, provenance: &Provenance, text: &mut String) -> Result<(), Failure> {
        let failed = |error| failed(&self.provenance, error);
        let config = provenance.config_sha256().map_err(failed)?.to_string();
        let commit = provenance.commit().map_err(failed)?;
        for (what, found, expected) in [
            ("commit", commit, &self.commit),
            ("builder", provenance.builder(), &self.builder),
            ("config", &config, &self.config),
        ] {
            if let Some(expected) = expected.as_ref().filter(|expected| *expected != found) {
                return Err(failed(Error::Unexpected {
                    what,
                    expected: expected.clone(),
                    found: found.escape_debug().to_string(),
                }));
            }
        }
        let (name, version) = (provenance.name(), provenance.version());
        field(
            text,
            "built as",
            format_args!("{} {}", name.escape_debug(), version.escape_debug()),
        );
        field(text, "from", commit);
        field(text, "config", config);
        field(text, "builder", provenance.builder().escape_debug());
        Ok(())
    }

    fn published(
        &self,
        path: &Path,
        keys: &[PublisherKey],
        blob: &Blob,
        image: &Image,
        text: &mut String,
    ) -> Result<(), Failure> {
        let failed = |error| failed(path, error);
        let log = MeasurementLog::read(&artefact::read(path)?, keys).map_err(failed)?;
        if let Some(pin) = &self.at_least {
            log.require(pin).map_err(failed)?;
        }
        let refused = |problem: String| Failure::refused(anyhow!("{}: {problem}", path.display()));
        let publication = log
            .publications()
            .find(|publication| publication.image.eif_sha256 == *blob.sha256())
            .ok_or_else(|| refused("this image was never published".into()))?;
        if let Some((time, reason)) = publication.revoked {
            return Err(refused(format!(
                "this image was revoked {time}: {}",
                reason.escape_debug()
            )));
        }
        // Policies are made from the list's registers, so they have to be this image's.
        if publication.image.pcrs != artefact::registers(image) {
            return Err(refused(format!(
                "entry {} has other registers than the image it names",
                publication.sequence
            )));
        }
        field(
            text,
            "published",
            format_args!("entry {}, {}", publication.sequence, publication.time),
        );
        field(text, "list until", log.head().map_err(failed)?);
        Ok(())
    }
}

fn signature(path: &Path) -> Result<Signature, Failure> {
    let bytes = artefact::read(path)?;
    let signature = match bytes.first() {
        Some(b'{') => Bundle::parse(&bytes).and_then(|bundle| match bundle {
            Bundle::Blob(signature) => Ok(signature),
            Bundle::Statement(_) => Err(wrong_bundle("a signature of the file")),
        }),
        _ => Signature::parse(&bytes),
    };
    signature.map_err(|error| failed(path, error))
}

/// A statement of this type about this image, and whose.
fn statement<'k>(
    path: &Path,
    keys: &'k [PublisherKey],
    predicate: &str,
    blob: &Blob,
) -> Result<(Statement, &'k PublisherKey), Failure> {
    let bytes = artefact::read(path)?;
    let envelope = match bytes.starts_with(b"{\"payload") {
        true => Envelope::parse(&bytes),
        false => Bundle::parse(&bytes).and_then(|bundle| match bundle {
            Bundle::Statement(envelope) => Ok(envelope),
            Bundle::Blob(_) => Err(wrong_bundle("a signed statement")),
        }),
    };
    envelope
        .and_then(|envelope| envelope.verify(keys))
        .and_then(|(statement, key)| {
            statement.expect(predicate)?;
            statement.names(blob.sha256())?;
            Ok((statement, key))
        })
        .map_err(|error| failed(path, error))
}

fn wrong_bundle(expected: &str) -> Error {
    Error::Unexpected {
        what: "bundle",
        expected: expected.into(),
        found: "the other kind".into(),
    }
}
