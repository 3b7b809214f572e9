//! `cloister measurements`: the list of published images.

mod add;
mod policy;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use supply_chain::{MeasurementLog, Pin, Publication};

use crate::artefact::{self, failed};
use crate::failure::Failure;
use crate::output::{self, field};
use crate::verify_image::pin;

/// Publish images and revoke them, in a signed list to which entries are only added
///
/// Whoever relies on images pins the last entry he saw (--at-least): without a pin, an old list, in which what was revoked
/// since is still good, cannot be told from the newest.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cloister measurements append app.eif --provenance provenance.json --sbom sbom.cdx.json --key publisher.key.pem --new
  cloister measurements verify --key publisher.pub.pem --at-least 7
  cloister measurements policy --key publisher.pub.pem --at-least 7 --format gateway
  cloister measurements revoke 3 --reason 'CVE-2026-0001 in the TLS stack' --key publisher.key.pem")]
pub(crate) struct Measurements {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Append(add::Append),
    Revoke(add::Revoke),
    Verify(Verify),
    List(List),
    Policy(policy::Policy),
}

/// A list, and whom to believe about it.
#[derive(Args)]
struct Trusted {
    /// The list.
    #[arg(long, value_name = "FILE", default_value = "measurements.json")]
    log: PathBuf,
    /// Public key to believe, PEM. May be given several times.
    #[arg(long, value_name = "PEM", required = true)]
    key: Vec<PathBuf>,
    /// Entry that the list must have: its number, or better its SHA-256.
    #[arg(long, value_name = "PIN", value_parser = pin)]
    at_least: Option<Pin>,
}

/// Check a list whole, and name its last entry
#[derive(Args)]
struct Verify {
    #[command(flatten)]
    trusted: Trusted,
}

/// Show every image that was ever published, and where it stands
#[derive(Args)]
struct List {
    #[command(flatten)]
    trusted: Trusted,
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    Json,
}

impl Measurements {
    pub(crate) fn run(&self, now: SystemTime) -> Result<(), Failure> {
        match &self.command {
            Command::Append(command) => command.run(now),
            Command::Revoke(command) => command.run(now),
            Command::Verify(command) => command.run(),
            Command::List(command) => command.run(),
            Command::Policy(command) => command.run(),
        }
    }
}

impl Trusted {
    fn read(&self) -> Result<MeasurementLog, Failure> {
        let keys = artefact::keys(&self.key)?;
        let bytes = artefact::read(&self.log)?;
        let log = MeasurementLog::read(&bytes, &keys).map_err(|error| self.failed(error))?;
        if let Some(pin) = &self.at_least {
            log.require(pin).map_err(|error| self.failed(error))?;
        }
        Ok(log)
    }

    fn failed(&self, error: supply_chain::Error) -> Failure {
        failed(&self.log, error)
    }
}

impl Verify {
    fn run(&self) -> Result<(), Failure> {
        let log = self.trusted.read()?;
        output::print(&summary(&self.trusted.log, &log)?)
    }
}

/// What to pin next time.
fn summary(path: &Path, log: &MeasurementLog) -> Result<String, Failure> {
    let head = log.head().map_err(|error| failed(path, error))?;
    let mut text = String::new();
    field(&mut text, "list", path.display());
    field(&mut text, "entries", head.sequence);
    field(&mut text, "active", log.active(None).count());
    field(
        &mut text,
        "revoked",
        log.publications().filter(|p| p.revoked.is_some()).count(),
    );
    field(&mut text, "pin", head.hash);
    Ok(text)
}

impl List {
    fn run(&self) -> Result<(), Failure> {
        let log = self.trusted.read()?;
        output::print(&match self.format {
            Format::Text => log.publications().map(|p| line(&p)).collect(),
            Format::Json => {
                let all: Vec<Value> = log.publications().map(|p| json(&p)).collect();
                format!("{:#}\n", Value::from(all))
            }
        })
    }
}

fn line(publication: &Publication<'_>) -> String {
    let status = match publication.revoked {
        None => "active".to_owned(),
        Some((time, reason)) => format!("revoked {time}: {}", reason.escape_debug()),
    };
    let image = publication.image;
    format!(
        "{:>5}  {}  {} {}  {status}\n       PCR0 {}\n",
        publication.sequence, publication.time, image.name, image.version, image.pcrs.pcr0
    )
}

fn json(publication: &Publication<'_>) -> Value {
    json!({
        "sequence": publication.sequence,
        "published": publication.time,
        "status": if publication.revoked.is_none() { "active" } else { "revoked" },
        "revoked": publication.revoked.map(|(time, reason)| json!({"time": time, "reason": reason})),
        "image": publication.image,
    })
}
