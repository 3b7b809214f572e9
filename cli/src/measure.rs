mod arguments;
mod files;
mod report;
mod runtime;

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use attestation::RUNTIME_PCR;
use clap::{Args, ValueEnum};
use image::{Image, Listing, Pcr, instance_pcr, role_pcr};

use crate::failure::Failure;
use crate::output;
use crate::policy_text;
use arguments::{instance, role};
use runtime::Runtime;

pub(crate) use arguments::key_id;
pub(crate) use files::{entry_json, mode, tail};
pub(crate) use runtime::CONFIG;

/// Tell what the secure module will report for an enclave image
///
/// Reads the image whole, refuses it unless everything in it holds together (a signature included), and computes its registers.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cloister measure app.eif --files
  cloister measure app.eif --manifest packages/chat/manifest.json         PCR16, for a session policy
  cloister measure app.eif --format gateway                      images = … for a gateway's policy, [[issuer.map]] of kbs.toml
  cloister measure app.eif --format rego --key-id models/chat/epoch-3 > policy.rego
  cloister measure app.eif --format kms --role arn:aws:iam::123456789012:role/enclave")]
pub(crate) struct Measure {
    /// An enclave image, EIF version 4.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// IAM role of the parent instance: adds PCR3.
    #[arg(long, value_name = "ARN", value_parser = role)]
    role: Option<String>,
    /// Parent instance: adds PCR4. It is another one after each replacement of the instance.
    #[arg(long, value_name = "ID", value_parser = instance)]
    instance: Option<String>,
    /// Key that a rego policy gives to this image. May be given several times.
    #[arg(long, value_name = "ID", value_parser = key_id)]
    key_id: Vec<String>,
    /// List every file of the ramdisks; --format json always does.
    #[arg(long)]
    files: bool,
    /// manifest.json of a sealed model that is served: adds PCR16. One for each `[[models]]` of the configuration, in that order.
    #[arg(long, value_name = "FILE")]
    manifest: Vec<PathBuf>,
    /// Configuration that PCR16 is told from, instead of app/enclave.toml in the image.
    #[arg(long, value_name = "FILE", requires = "manifest")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// Everything.
    Json,
    /// Condition block for the key policy of an AWS KMS key.
    Kms,
    /// Policy for kbs.
    Rego,
    /// Line of a gateway's configuration.
    Gateway,
}

impl Measure {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        if (self.format == Format::Rego) == self.key_id.is_empty() {
            return Err(Failure::usage(anyhow!(
                "--format rego and --key-id go together: name the keys, as models/<name>/epoch-<n>"
            )));
        }
        if !self.manifest.is_empty() && matches!(self.format, Format::Kms | Format::Rego) {
            return Err(Failure::usage(anyhow!(
                "--manifest: PCR16 is extended after the keys were released, so no policy on keys can require it: \
                 leave it out, or take --format gateway"
            )));
        }
        if self.files && !matches!(self.format, Format::Text | Format::Json) {
            return Err(Failure::usage(anyhow!(
                "--files goes with --format text or json"
            )));
        }
        let measured = self.measure()?;
        output::print(&match self.format {
            Format::Text if self.files => {
                report::table(&self.image, &measured) + &files::table(&measured.listings)
            }
            Format::Text => report::table(&self.image, &measured),
            Format::Json => format!("{:#}\n", report::json(&measured)),
            Format::Kms => policy_text::kms(&measured.registers),
            Format::Rego => policy_text::rego(&[measured.registers], &self.key_id),
            Format::Gateway => policy_text::gateway(&[measured.registers]),
        })
    }

    fn measure(&self) -> Result<Measured, Failure> {
        let inside = !self.manifest.is_empty() && self.config.is_none();
        let listed = self.files || inside || self.format == Format::Json;
        let (image, listings) = match listed {
            true => read_with_files(&self.image, runtime::MAX_CONFIG)?,
            false => (read(&self.image)?, Vec::new()),
        };
        let runtime = match self.manifest.as_slice() {
            [] => None,
            manifests => Some(Runtime::new(self.config.as_deref(), &listings, manifests)?),
        };
        let mut registers: Vec<_> = image.measurements.registers().collect();
        registers.extend(self.role.as_deref().map(|arn| (3, role_pcr(arn))));
        registers.extend(self.instance.as_deref().map(|id| (4, instance_pcr(id))));
        registers.extend(runtime.as_ref().map(|runtime| (RUNTIME_PCR, runtime.pcr())));
        registers.sort_by_key(|(index, _)| *index);
        Ok(Measured {
            image,
            listings,
            runtime,
            registers,
        })
    }
}

/// What was found out about an image.
struct Measured {
    image: Image,
    /// Empty where nobody asked for files.
    listings: Vec<Listing>,
    runtime: Option<Runtime>,
    /// In the order of their index.
    registers: Vec<(u8, Pcr)>,
}

/// Reads an image, and says which file was refused, and why.
pub(crate) fn read(path: &Path) -> Result<Image, Failure> {
    let file = std::fs::File::open(path).map_err(|error| Failure::io("read", path, error))?;
    Image::read(std::io::BufReader::new(file)).map_err(|error| Failure::image(path, error))
}

/// Likewise, with the files of its ramdisks, of which those of at most `keep` bytes are kept.
pub(crate) fn read_with_files(path: &Path, keep: u32) -> Result<(Image, Vec<Listing>), Failure> {
    let file = std::fs::File::open(path).map_err(|error| Failure::io("read", path, error))?;
    Image::read_with_files(std::io::BufReader::new(file), keep)
        .map_err(|error| Failure::image(path, error))
}
