use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use supply_chain::{Artifact, Build, CrateGraph, Error, Sha256Digest, provenance, sbom};

use crate::artefact::{create, failed};
use crate::failure::Failure;
use crate::output::{self, field};

/// `cargo metadata` of a workspace of a thousand crates has some 5 MB.
const MAX_INPUT: u64 = 64 << 20;

/// Write the bill of materials and the provenance of an enclave image
///
/// cloister build-image does this by itself; here it can be done again from what it recorded. The same inputs give the same bytes, so
/// that two people can compare what they got. Both files are unsigned: cloister attest signs them.
#[derive(Args)]
#[command(after_help = "\
Example:
  cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu > metadata.json
  cloister describe build.json --cargo-metadata metadata.json --package enclave --package init --out-dir .")]
pub(crate) struct Describe {
    /// What went into the build and what came out, in JSON (docs/supply-chain.md).
    #[arg(value_name = "BUILD")]
    build: PathBuf,
    /// Output of cargo metadata, as in the example.
    #[arg(long, value_name = "JSON")]
    cargo_metadata: PathBuf,
    /// Of the same source tree.
    #[arg(long, value_name = "FILE", default_value = "Cargo.lock")]
    lock: PathBuf,
    /// Package of the workspace that is in the image. May be given several times.
    #[arg(long, value_name = "NAME", required = true)]
    package: Vec<String>,
    /// Directory for sbom.cdx.json and provenance.json. Files that exist are never overwritten.
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

pub(crate) const SBOM: &str = "sbom.cdx.json";
pub(crate) const PROVENANCE: &str = "provenance.json";

/// What is said about a build; the provenance names the bill of materials.
pub(crate) struct Documents {
    pub(crate) sbom: Vec<u8>,
    pub(crate) provenance: Vec<u8>,
    /// Their number.
    pub(crate) crates: usize,
}

impl Documents {
    /// # Errors
    /// A lock file that the build does not name, or what the library refuses.
    pub(crate) fn of(
        build: &Build,
        metadata: &[u8],
        lock: &[u8],
        packages: &[&str],
    ) -> Result<Self, Error> {
        if Sha256Digest::of(lock) != build.source.cargo_lock_sha256 {
            return Err(Error::Input {
                what: "source.cargo_lock_sha256".into(),
                problem: "is another lock file's: take both from one source tree".into(),
            });
        }
        let crates = CrateGraph::from_cargo(metadata, lock, packages)?;
        let sbom = sbom(build, &crates)?;
        let also = [Artifact {
            name: SBOM.into(),
            sha256: Sha256Digest::of(&sbom),
        }];
        Ok(Self {
            provenance: provenance(build, &also)?,
            sbom,
            crates: crates.crates().count(),
        })
    }
}

impl Describe {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let failed_build = |error| failed(&self.build, error);
        let build = Build::from_json(&read(&self.build)?).map_err(failed_build)?;
        let packages: Vec<&str> = self.package.iter().map(String::as_str).collect();
        let (metadata, lock) = (read(&self.cargo_metadata)?, read(&self.lock)?);
        let documents = Documents::of(&build, &metadata, &lock, &packages).map_err(failed_build)?;
        let mut text = String::new();
        for (name, bytes) in [(SBOM, &documents.sbom), (PROVENANCE, &documents.provenance)] {
            let path = self.out_dir.join(name);
            create(&path, bytes)?;
            field(
                &mut text,
                "written",
                format_args!("{} {}", Sha256Digest::of(bytes), path.display()),
            );
        }
        field(&mut text, "crates", documents.crates);
        output::print(&text)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_INPUT + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::io("read", path, error))?;
    Ok(bytes)
}
