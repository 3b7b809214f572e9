use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use image::{Image, Pcr, instance_pcr, role_pcr};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::Failure;
use crate::output::{self, field};
use crate::policy_text;

/// Tell what the secure module will report for an enclave image
///
/// Reads the image whole, refuses it unless everything in it holds together (a signature included), and computes its registers.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cloister measure app.eif
  cloister measure app.eif --format gateway                      images = … for gateway.toml, [[issuer.map]] of kbs.toml
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
        let image = read(&self.image)?;
        let registers = self.registers(&image);
        output::print(&match self.format {
            Format::Text => self.table(&image, &registers),
            Format::Json => format!("{:#}\n", self.json(&image, &registers)),
            Format::Kms => policy_text::kms(&registers),
            Format::Rego => policy_text::rego(&registers, &self.key_id),
            Format::Gateway => policy_text::gateway(&registers),
        })
    }

    /// In the order of their index.
    fn registers(&self, image: &Image) -> Vec<(u8, Pcr)> {
        let mut registers: Vec<_> = image.measurements.registers().collect();
        registers.extend(self.role.as_deref().map(|arn| (3, role_pcr(arn))));
        registers.extend(self.instance.as_deref().map(|id| (4, instance_pcr(id))));
        registers.sort_by_key(|(index, _)| *index);
        registers
    }

    fn table(&self, image: &Image, registers: &[(u8, Pcr)]) -> String {
        let mut text = String::new();
        field(&mut text, "image", self.image.display());
        let size = output::bytes(image.size);
        field(
            &mut text,
            "format",
            format_args!(
                "EIF 4, {}, {size}, CRC-32 {:08x}",
                image.architecture, image.checksum
            ),
        );
        let memory = output::bytes(image.default_memory);
        field(
            &mut text,
            "defaults",
            format_args!(
                "{memory} of memory, {} processors (not measured)",
                image.default_processors
            ),
        );
        if let Some(metadata) = &image.metadata {
            let [name, version] =
                [metadata.name(), metadata.version()].map(Option::unwrap_or_default);
            field(
                &mut text,
                "metadata",
                format_args!(
                    "{} {} (not measured)",
                    name.escape_debug(),
                    version.escape_debug()
                ),
            );
        }
        match &image.signature {
            None => field(&mut text, "signature", "none"),
            Some(signature) => field(
                &mut text,
                "signature",
                format_args!(
                    "of PCR0, by {}, usable until {}",
                    signature.subject().escape_debug(),
                    show_time(signature.not_after())
                ),
            ),
        }
        field(&mut text, "cmdline", image.command_line.escape_debug());
        text += &format!("\n{:>12}  {:<96}  PART\n", "SIZE", "SHA-384");
        let named = image
            .ramdisks
            .iter()
            .enumerate()
            .map(|(index, content)| (format!("ramdisk {}", index + 1), content));
        for (name, content) in [("kernel".to_owned(), &image.kernel)]
            .into_iter()
            .chain(named)
        {
            text += &format!("{:>12}  {}  {name}\n", content.size, content.sha384);
        }
        text.push('\n');
        for (index, pcr) in registers {
            field(
                &mut text,
                &format!("PCR{index}"),
                format_args!("{pcr}  {}", covers(*index, image.ramdisks.len())),
            );
        }
        if image.signature.is_none() {
            field(&mut text, "PCR8", "zero: nobody signed the image");
        }
        text
    }

    fn json(&self, image: &Image, registers: &[(u8, Pcr)]) -> Value {
        let content = |c: &image::Content| json!({"size": c.size, "sha384": c.sha384.to_string()});
        let pcrs: Map<_, _> = registers
            .iter()
            .map(|(index, pcr)| (index.to_string(), pcr.to_string().into()))
            .collect();
        let signature = image.signature.as_ref().map(|signature| {
            json!({
                "subject": signature.subject(),
                "certificate_sha384": signature.certificate_sha384().to_string(),
                "not_after": show_time(signature.not_after()),
            })
        });
        json!({
            "pcrs": pcrs,
            "architecture": image.architecture.to_string(),
            "size": image.size,
            "kernel": content(&image.kernel),
            "command_line": image.command_line,
            "ramdisks": image.ramdisks.iter().map(content).collect::<Vec<_>>(),
            "signature": signature,
            "not_measured": {
                "crc32": format!("{:08x}", image.checksum),
                "default_memory": image.default_memory,
                "default_processors": image.default_processors,
                "metadata": image.metadata.as_ref().map(image::Metadata::fields),
            },
        })
    }
}

/// Reads an image, and says which file was refused, and why.
pub(crate) fn read(path: &Path) -> Result<Image, Failure> {
    let file = std::fs::File::open(path).map_err(|error| Failure::io("read", path, error))?;
    Image::read(std::io::BufReader::new(file)).map_err(|error| Failure::image(path, error))
}

fn covers(index: u8, ramdisks: usize) -> &'static str {
    match index {
        0 => "kernel, command line, all ramdisks",
        1 => "kernel, command line, ramdisk 1",
        2 if ramdisks == 1 => "nothing: there is no second ramdisk, as in many other images",
        2 => "ramdisks from 2 on",
        3 => "role of the parent instance",
        4 => "parent instance",
        _ => "certificate of the signature",
    }
}

fn role(text: &str) -> Result<String, String> {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (arn, partition, service, region, account, resource) =
        (next(), next(), next(), next(), next(), next());
    let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let name = resource.strip_prefix("role/").unwrap_or_default();
    let graphic = name.bytes().all(|b| b.is_ascii_graphic());
    if arn == "arn"
        && partition.starts_with("aws")
        && service == "iam"
        && region.is_empty()
        && digits
        && graphic
        && !name.is_empty()
    {
        return Ok(text.to_owned());
    }
    Err(
        "PCR3 is that of the role itself, arn:aws:iam::<12 digits>:role/<path and name>; \
         neither of an instance profile nor of an assumed role"
            .into(),
    )
}

fn instance(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("i-").unwrap_or_default();
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match matches!(digits.len(), 8 | 17) && digits.bytes().all(lower) {
        true => Ok(text.to_owned()),
        false => Err("an instance is i- and 17 hex digits (8 for old ones), in lower case".into()),
    }
}

/// Three segments, as kbs names resources.
fn key_id(text: &str) -> Result<String, String> {
    let segment = |s: &str| {
        !s.is_empty()
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    match text.split('/').count() == 3 && text.split('/').all(segment) {
        true => Ok(text.to_owned()),
        false => Err("a key is <repository>/<type>/<tag>, as models/chat/epoch-3".into()),
    }
}

fn show_time(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_else(|_| "out of range".into())
}
