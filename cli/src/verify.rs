use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::anyhow;
use attestation::{ChainError, Document, Error, Evidence, TrustAnchor, Verifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::{Chain, Failure};
use crate::output::{self, field};

/// A document has at most 16 KiB; in hex with line breaks it stays below this.
const MAX_FILE: u64 = 64 * 1024;

/// Check a Nitro attestation document, offline
///
/// Checks structure, certificate chain, signature and debug mode, and shows the measurements. Whether the document was made
/// for you, now, by the image you expect, only its reader at the time can tell: compare nonce, user data and PCRs yourself.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cloister verify evidence.bin
  cloister verify evidence.b64 --at 2026-11-20T12:00:00Z        a document's certificates last three hours
  cloister verify evidence.bin --root simulated-root.pem        not AWS: what cloister-dev makes")]
pub(crate) struct Verify {
    /// The document: binary, base64 or hex.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Trust this root certificate, PEM, and not the one of AWS Nitro.
    #[arg(long, value_name = "PEM")]
    root: Option<PathBuf>,
    /// Check as of this time, RFC 3339. Default: now.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<SystemTime>,
}

impl Verify {
    pub(crate) fn run(&self, now: SystemTime) -> Result<(), Failure> {
        let anchor = match &self.root {
            None => TrustAnchor::aws_nitro(),
            Some(path) => TrustAnchor::from_pem(&read(path)?)
                .map_err(|error| Failure::usage(anyhow!("{}: {error}", path.display())))?,
        };
        let root = match anchor.is_aws_nitro() {
            true => format!(
                "AWS Nitro Enclaves Root-G1, sha256 {}",
                anchor.fingerprint()
            ),
            false => format!(
                "NOT AWS: {}, sha256 {}",
                display(self.root.as_deref()),
                anchor.fingerprint()
            ),
        };
        let evidence = Evidence::from_bytes(decode(read(&self.file)?))
            .map_err(|error| self.refused(&error, ""))?;
        let document = Verifier::new(anchor)
            .authenticate(&evidence, self.at.unwrap_or(now))
            .map_err(|error| self.refused(&error, fix(&error)))?;
        let debug = (0..=2).find(|index| document.pcrs.get(index).is_none_or(|pcr| pcr.is_zero()));
        output::print(&report(&document, &root, debug))?;
        match debug {
            None => Ok(()),
            Some(index) => Err(self.refused(
                &Error::Debug { index },
                " (an operator can read its memory)",
            )),
        }
    }

    fn refused(&self, error: &(dyn std::error::Error + 'static), fix: &str) -> Failure {
        Failure::refused(anyhow!("{}: {}{fix}", self.file.display(), Chain(error)))
    }
}

fn report(document: &Document, root: &str, debug: Option<u8>) -> String {
    let mut text = String::new();
    let verdict = match debug {
        None => "authentic: structure, chain and signature hold",
        Some(_) => "REFUSED: authentic, but of an enclave in debug mode",
    };
    field(&mut text, "verdict", verdict);
    field(&mut text, "chain", format_args!("leads to {root}"));
    field(&mut text, "leaf until", show_time(document.leaf_not_after));
    field(&mut text, "made", show_time(document.timestamp));
    field(&mut text, "module", document.module_id.escape_debug());
    for (index, pcr) in document.pcrs.iter().filter(|(_, pcr)| !pcr.is_zero()) {
        field(&mut text, &format!("PCR{index}"), pcr);
    }
    let zero: Vec<_> = document
        .pcrs
        .iter()
        .filter(|(_, pcr)| pcr.is_zero())
        .map(|(index, _)| index.to_string())
        .collect();
    if !zero.is_empty() {
        field(&mut text, "PCRs zero", zero.join(" "));
    }
    for (name, value) in [
        ("public key", &document.public_key),
        ("user data", &document.user_data),
        ("nonce", &document.nonce),
    ] {
        match value {
            Some(value) => field(&mut text, name, hex::encode(value)),
            None => field(&mut text, name, "none"),
        }
    }
    text
}

fn fix(error: &Error) -> &'static str {
    match error {
        Error::Chain(ChainError::Validity { .. }) => {
            " (its certificates last three hours: give the time it was made with --at)"
        }
        _ => "",
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
        .map_err(|error| Failure::io("read", path, error))?;
    Ok(bytes)
}

/// Text in hex or base64 becomes what it encodes; anything else is the document itself.
fn decode(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return bytes;
    };
    let packed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    // Hex first: its digits are base64 digits, too.
    match hex::decode(&packed).or_else(|_| STANDARD.decode(&packed)) {
        Ok(decoded) => decoded,
        Err(_) => bytes,
    }
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map(SystemTime::from)
        .map_err(|error| format!("{error}; write it like 2026-11-20T12:00:00Z"))
}

fn show_time(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_else(|_| "out of range".into())
}

fn display(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string())
        .unwrap_or_default()
}
