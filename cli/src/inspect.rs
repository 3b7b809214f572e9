use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use sealed_model::{DirSource, Inspection, SignatureVerdict};
use serde_json::json;

use crate::failure::Failure;
use crate::files;
use crate::output::{self, Progress, field};

/// Show what a package holds, without its key
///
/// Reads the manifest, its signature, model.sig, the bill of materials and the sizes of the files. The encrypted bytes themselves
/// are checked where they are opened, segment by segment; with --all they are compared here, too.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cloister inspect ./packages/my-model
  cloister inspect ./packages/my-model --publisher keys/publisher.pub.pem     exit code 77 unless they signed it
  cloister inspect ./packages/my-model --publisher keys/publisher.pub.pem --all     for a mirror: every byte is as published
  cloister inspect ./packages/my-model --json | jq -r .manifest_sha256")]
pub(crate) struct Inspect {
    /// A directory that cloister seal made.
    #[arg(value_name = "PKG")]
    package: PathBuf,
    /// Public key of a publisher to accept, PEM. May be given several times.
    #[arg(long, value_name = "PUB.pem")]
    publisher: Vec<PathBuf>,
    /// Read every file and compare it with the manifest.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let publishers: Vec<_> = self
            .publisher
            .iter()
            .map(|path| files::publisher_key(path))
            .collect::<Result<_, _>>()?;
        let source = DirSource::new(&self.package);
        let failed = |error| Failure::model(&self.package, error);
        let inspection = sealed_model::inspect(&source, &publishers).map_err(failed)?;
        if self.all {
            let progress = Progress::new("comparing");
            let manifest = &inspection.manifest;
            sealed_model::verify_ciphertexts(&source, manifest, &|step| progress.show(step))
                .map_err(failed)?;
        }
        let say = |verdict| match verdict {
            SignatureVerdict::Valid => "valid",
            SignatureVerdict::UnknownPublisher if publishers.is_empty() => "not checked",
            SignatureVerdict::UnknownPublisher => "unknown publisher",
            SignatureVerdict::Invalid => "invalid",
        };
        let verdict = say(inspection.signature);
        let model_verdict = say(inspection.model_signature);
        if self.json {
            let value = json!({
                "manifest": inspection.manifest,
                "manifest_sha256": inspection.manifest_sha256,
                "publisher": inspection.claimed_publisher,
                "signature": verdict,
                "model_signature": model_verdict,
                "all_bytes_compared": self.all,
            });
            output::print(&format!("{value:#}\n"))?;
        } else {
            output::print(&table(&inspection, verdict, model_verdict))?;
        }
        let (manifest, model) = (inspection.signature, inspection.model_signature);
        if publishers.is_empty()
            || (manifest, model) == (SignatureVerdict::Valid, SignatureVerdict::Valid)
        {
            return Ok(());
        }
        if manifest == SignatureVerdict::Valid {
            return Err(Failure::refused(anyhow!(
                "{}: model.sig: {model_verdict}: not of these files, or not by a given publisher",
                self.package.display(),
            )));
        }
        Err(Failure::refused(anyhow!(
            "{}: manifest.sig: {verdict}: signed as {}, not by the given publisher",
            self.package.display(),
            inspection.claimed_publisher
        )))
    }
}

fn table(inspection: &Inspection, verdict: &str, model_verdict: &str) -> String {
    let manifest = &inspection.manifest;
    let hint = match verdict {
        "not checked" => " (give --publisher PUB.pem)",
        _ => "",
    };
    let mut text = String::new();
    field(&mut text, "model", &manifest.name);
    field(&mut text, "epoch", manifest.epoch);
    field(&mut text, "format", &manifest.format);
    field(&mut text, "created", &manifest.created);
    field(&mut text, "key id", &manifest.key_id);
    field(
        &mut text,
        "manifest",
        format_args!("sha256 {}", inspection.manifest_sha256),
    );
    field(&mut text, "publisher", &inspection.claimed_publisher);
    field(&mut text, "signature", format_args!("{verdict}{hint}"));
    field(
        &mut text,
        "model.sig",
        format_args!("sha256 {}, {model_verdict}", manifest.model_sig_sha256),
    );
    field(
        &mut text,
        "bom",
        format_args!("sha256 {}", manifest.bom_sha256),
    );
    text += &format!(
        "\n{:>12}  {:>12}  {:<64}  FILE\n",
        "SIZE", "SEALED", "SHA-256"
    );
    for entry in &manifest.files {
        text += &format!(
            "{:>12}  {:>12}  {}  {}\n",
            entry.size, entry.sealed_size, entry.sha256, entry.path
        );
    }
    let total: u64 = manifest.files.iter().map(|entry| entry.size).sum();
    text += &format!("{} files, {}\n", manifest.files.len(), output::bytes(total));
    text
}
