use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use image::EntryKind;
use image_builder::{Built, CONFIG, INIT, PROGRAM, Parts, Signer, build};
use serde::Deserialize;
use supply_chain::{Artifact, Blob, Build, ImageFile, Kernel, Sha256Digest, SourceTree, Tool};

use crate::artefact::{self, beside};
use crate::describe::{self, Documents};
use crate::failure::Failure;
use crate::files;
use crate::output::{self, field};

/// Pack a Cloister enclave image, and write down what is in it and where it came from
///
/// The same inputs give the same bytes. scripts/build-image compiles the parts and calls this.
#[derive(Args)]
#[command(after_help = "\
Written to --out:
  app.eif          the image
  enclave.toml     the configuration in it, as it is measured
and with --facts also
  build.json       what went in, and where it came from
  sbom.cdx.json    bill of materials, CycloneDX 1.6: crates, kernel, every file
  provenance.json  in-toto statement, SLSA v1

Example:
  cloister build-image --kernel bzImage --init init --enclave enclave --config enclave.toml --out build")]
pub(crate) struct BuildImage {
    /// bzImage, from scripts/build-kernel.
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// First process, from scripts/build-programs.
    #[arg(long, value_name = "FILE")]
    init: PathBuf,
    /// Enclave program, from scripts/build-programs.
    #[arg(long, value_name = "FILE")]
    enclave: PathBuf,
    /// Its configuration.
    #[arg(long, value_name = "TOML")]
    config: PathBuf,
    /// A model owner's part of the configuration: one or more `[[models]]` and nothing else. May be given several times.
    #[arg(long, value_name = "TOML")]
    model_policy: Vec<PathBuf>,
    /// Directory to make; it must not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the image. Not measured.
    #[arg(long, default_value = "enclave")]
    name: String,
    /// Version of the image. Not measured.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"), value_name = "VERSION")]
    image_version: String,
    /// Certificate (PEM, P-384) that the image is signed under: PCR8.
    #[arg(long, value_name = "PEM", requires = "eif_key")]
    eif_certificate: Option<PathBuf>,
    /// Its private key (PEM, PKCS#8).
    #[arg(long, value_name = "PEM", requires = "eif_certificate")]
    eif_key: Option<PathBuf>,
    /// Where the parts came from (JSON, as scripts/build-image writes it): makes SBOM and provenance.
    #[arg(long, value_name = "JSON", requires_all = ["cargo_metadata", "cargo_lock"])]
    facts: Option<PathBuf>,
    /// Output of `cargo metadata`.
    #[arg(long, value_name = "JSON")]
    cargo_metadata: Option<PathBuf>,
    #[arg(long, value_name = "LOCK")]
    cargo_lock: Option<PathBuf>,
}

/// What the image does not tell of itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    source: SourceTree,
    kernel: KernelFacts,
    libraries: Vec<Tool>,
    tools: Vec<Tool>,
    builder: String,
    target: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KernelFacts {
    version: String,
    licence: String,
    config_sha256: Option<Sha256Digest>,
    source_uri: String,
    source_sha256: Sha256Digest,
}

/// Of a configuration or policy; an enclave reads no larger one.
const MAX_TOML: u64 = 1 << 20;
const MAX_FACTS: u64 = 1 << 20;
const MAX_METADATA: u64 = 64 << 20;
const MAX_LOCK: u64 = 8 << 20;
/// The members of the workspace that are in the image.
const LINKED: [&str; 2] = ["enclave", "init"];

impl BuildImage {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        // Without a slash at its end, which would put the partial directory inside.
        let out: PathBuf = self.out.components().collect();
        if out.exists() {
            return Err(Failure::usage(anyhow!(
                "{}: exists already: choose another --out, or remove it",
                out.display()
            )));
        }
        let partial = beside(&out, "partial");
        drop(fs::remove_dir_all(&partial));
        fs::create_dir_all(&partial).map_err(|e| Failure::io("make", &partial, e))?;
        let made = self.make(&partial).and_then(|built| {
            fs::rename(&partial, &out).map_err(|e| Failure::io("write", &out, e))?;
            Ok(built)
        });
        let built = made.inspect_err(|_| drop(fs::remove_dir_all(&partial)))?;
        let mut text = String::new();
        field(&mut text, "image", out.join("app.eif").display());
        field(&mut text, "size", output::bytes(built.image.size));
        for (index, pcr) in built.image.measurements.registers() {
            field(&mut text, &format!("PCR{index}"), pcr);
        }
        output::print(&text)
    }

    fn make(&self, out: &Path) -> Result<Built, Failure> {
        let facts = self.facts()?;
        let config = self.config()?;
        let signer = match (&self.eif_certificate, &self.eif_key) {
            (Some(certificate), Some(key)) => {
                Some((artefact::read(certificate)?, files::secret(key)?))
            }
            _ => None,
        };
        let signer = signer.as_ref().map(|(certificate, key)| Signer {
            certificate,
            key: key.as_bytes(),
        });
        let parts = Parts {
            kernel: &self.kernel,
            init: &self.init,
            enclave: &self.enclave,
            config: &config,
            name: &self.name,
            version: &self.image_version,
        };
        let eif = out.join("app.eif");
        let built = build(&parts, signer.as_ref(), &eif).map_err(|error| match error {
            image_builder::Error::Io { path, source } => {
                Failure::io("read or write", &path, source)
            }
            other => Failure::usage(anyhow!(other)),
        })?;
        write(out, "enclave.toml", &config)?;
        if let Some(facts) = facts {
            let build = self.describe(facts, &config, &built, &eif)?;
            self.documents(&build, out)?;
        }
        Ok(built)
    }

    /// The configuration with the model owners' parts behind it.
    fn config(&self) -> Result<Vec<u8>, Failure> {
        let mut config = read(&self.config, MAX_TOML)?;
        for path in &self.model_policy {
            let policy = read(path, MAX_TOML)?;
            let table: Option<toml::Table> = std::str::from_utf8(&policy)
                .ok()
                .and_then(|text| text.parse().ok());
            let models_only = table.is_some_and(|table| {
                table.len() == 1 && table.get("models").is_some_and(toml::Value::is_array)
            });
            if !models_only {
                return Err(Failure::usage(anyhow!(
                    "{}: is no model policy: it holds [[models]] tables and nothing else",
                    path.display()
                )));
            }
            config.extend_from_slice(b"\n");
            config.extend_from_slice(&policy);
        }
        Ok(config)
    }

    fn facts(&self) -> Result<Option<Facts>, Failure> {
        let Some(path) = &self.facts else {
            return Ok(None);
        };
        serde_json::from_slice(&read(path, MAX_FACTS)?)
            .map(Some)
            .map_err(|error| Failure::usage(anyhow!("{}: {error}", path.display())))
    }

    fn describe(
        &self,
        facts: Facts,
        config: &[u8],
        built: &Built,
        eif: &Path,
    ) -> Result<Build, Failure> {
        let mut files = Vec::new();
        for (ramdisk, entries) in (1..).zip(&built.ramdisks) {
            for entry in entries {
                if let EntryKind::File { sha256 } = &entry.kind {
                    files.push(ImageFile {
                        path: entry.path.clone(),
                        ramdisk,
                        mode: entry.mode,
                        size: entry.size,
                        sha256: (*sha256.as_bytes()).into(),
                        package: match entry.path.as_str() {
                            INIT => Some("init".to_owned()),
                            PROGRAM => Some("enclave".to_owned()),
                            _ => None,
                        },
                    });
                }
            }
        }
        debug_assert!(files.iter().any(|file| file.path == CONFIG));
        let policies = self.model_policy.iter().map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Ok(Artifact {
                name: name.into_owned(),
                sha256: Sha256Digest::of(&read(path, MAX_TOML)?),
            })
        });
        Ok(Build {
            name: self.name.clone(),
            version: self.image_version.clone(),
            image: Artifact {
                name: "app.eif".to_owned(),
                sha256: digest(eif)?,
            },
            command_line: built.image.command_line.clone(),
            config_sha256: Sha256Digest::of(config),
            model_policies: policies.collect::<Result<_, Failure>>()?,
            source_date_epoch: Some(0),
            target: facts.target,
            source: facts.source,
            kernel: Kernel {
                version: facts.kernel.version,
                licence: facts.kernel.licence,
                sha256: digest(&self.kernel)?,
                config_sha256: facts.kernel.config_sha256,
                source_uri: facts.kernel.source_uri,
                source_sha256: facts.kernel.source_sha256,
            },
            files,
            libraries: facts.libraries,
            tools: facts.tools,
            builder: facts.builder,
        })
    }

    fn documents(&self, build: &Build, out: &Path) -> Result<(), Failure> {
        let described = |error: supply_chain::Error| Failure::usage(anyhow!(error));
        build.check().map_err(described)?;
        let json = serde_json::to_vec_pretty(build).map_err(Failure::bug)?;
        write(out, "build.json", &json)?;
        let (Some(metadata), Some(lock)) = (&self.cargo_metadata, &self.cargo_lock) else {
            return Ok(());
        };
        let (metadata, lock) = (read(metadata, MAX_METADATA)?, read(lock, MAX_LOCK)?);
        let documents = Documents::of(build, &metadata, &lock, &LINKED).map_err(described)?;
        write(out, describe::SBOM, &documents.sbom)?;
        write(out, describe::PROVENANCE, &documents.provenance)
    }
}

fn read(path: &Path, max: u64) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::io("read", path, error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > max {
        true => Err(Failure::usage(anyhow!(
            "{}: is larger than {max} bytes",
            path.display()
        ))),
        false => Ok(bytes),
    }
}

fn digest(path: &Path) -> Result<Sha256Digest, Failure> {
    let file = File::open(path).map_err(|error| Failure::io("read", path, error))?;
    let blob = Blob::read(file).map_err(|error| artefact::failed(path, error))?;
    Ok(*blob.sha256())
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let path = dir.join(name);
    fs::write(&path, bytes).map_err(|error| Failure::io("write", &path, error))
}
