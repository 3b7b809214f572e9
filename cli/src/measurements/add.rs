use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::anyhow;
use clap::Args;
use supply_chain::{Event, LogFile, MeasurementLog, Pin, PublishedImage, Revocation, Timestamp};

use super::summary;
use crate::artefact::{self, failed};
use crate::failure::Failure;
use crate::verify_image::pin;
use crate::{files, output};

/// Publish an image
///
/// Its registers are computed from the image; name, version, commit and configuration are those of the provenance. The three files have to
/// name one another. Refused are an image, measurements or a name with version that the list has already, revoked or not.
#[derive(Args)]
pub(super) struct Append {
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Its provenance: the statement, not the bundle.
    #[arg(long, value_name = "FILE")]
    provenance: PathBuf,
    /// Its bill of materials, CycloneDX 1.6.
    #[arg(long, value_name = "FILE")]
    sbom: PathBuf,
    /// Begin a list. Without, a list that is missing is an error: somebody may have removed it.
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    signing: Signing,
}

/// Declare that a published image must not be trusted any more
#[derive(Args)]
pub(super) struct Revoke {
    /// Number of the entry that published it.
    #[arg(value_name = "ENTRY")]
    sequence: u64,
    /// Why, for people: at most 256 bytes.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    signing: Signing,
}

#[derive(Args)]
struct Signing {
    /// The list.
    #[arg(long, value_name = "FILE", default_value = "measurements.json")]
    log: PathBuf,
    /// Private key that signs the new entry.
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Public key that signed earlier entries, beside this one. May be given several times.
    #[arg(long, value_name = "PEM")]
    trust: Vec<PathBuf>,
    /// Entry that the list must have: its number, or better its SHA-256.
    #[arg(long, value_name = "PIN", value_parser = pin)]
    at_least: Option<Pin>,
    /// Of the entry, as 2026-11-25T10:00:00Z. Default: now.
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<Timestamp>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|error: supply_chain::Error| error.to_string())
}

impl Append {
    pub(super) fn run(&self, now: SystemTime) -> Result<(), Failure> {
        let (image, blob) = artefact::image(&self.image)?;
        let published = PublishedImage::describe(
            &blob,
            artefact::registers(&image),
            &artefact::read(&self.provenance)?,
            &artefact::read(&self.sbom)?,
        )
        .map_err(|error| failed(&self.provenance, error))?;
        self.signing
            .add(Event::Published(Box::new(published)), self.new, now)
    }
}

impl Revoke {
    pub(super) fn run(&self, now: SystemTime) -> Result<(), Failure> {
        let revocation = Revocation {
            sequence: self.sequence,
            reason: self.reason.clone(),
        };
        self.signing.add(Event::Revoked(revocation), false, now)
    }
}

impl Signing {
    fn add(&self, event: Event, new: bool, now: SystemTime) -> Result<(), Failure> {
        let failed = |error| failed(&self.log, error);
        let signer = files::signing_key(&self.key)?;
        let mut keys = artefact::keys(&self.trust)?;
        keys.push(
            signer
                .public()
                .map_err(|error| Failure::model(&self.key, error))?,
        );
        let time = match &self.time {
            Some(time) => time.clone(),
            None => Timestamp::try_from(now).map_err(failed)?,
        };
        let file = LogFile::lock(&self.log).map_err(failed)?;
        let log = match (file.read().map_err(failed)?, new) {
            (None, true) if self.at_least.is_some() => {
                return Err(wrong(
                    &self.log,
                    "a list that begins now cannot have a pinned entry",
                ));
            }
            (None, true) => MeasurementLog::start(event, time, &signer),
            (Some(bytes), false) => MeasurementLog::read(&bytes, &keys).and_then(|log| {
                if let Some(pin) = &self.at_least {
                    log.require(pin)?;
                }
                log.append(event, time, &signer)
            }),
            (None, false) => return Err(wrong(&self.log, "is missing: --new begins a list")),
            (Some(_), true) => {
                return Err(wrong(
                    &self.log,
                    "is there already: leave out --new to add to it",
                ));
            }
        }
        .map_err(failed)?;
        file.replace(&log).map_err(failed)?;
        output::print(&summary(&self.log, &log)?)
    }
}

fn wrong(path: &Path, problem: &str) -> Failure {
    Failure::usage(anyhow!("{}: {problem}", path.display()))
}
