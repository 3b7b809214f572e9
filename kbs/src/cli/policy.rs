//! `kbs policy` and `kbs attestation-policy`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use attestation::{BootId, Sha256Digest, TrustAnchor, Verifier};
use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Approvals, ConfigArg, print};
use crate::config;
use crate::dry_run::{DryRun, Stored};
use crate::error::Error;
use crate::offline;
use crate::policy::MAX_POLICY;

/// A document of 16 KiB in base64, and what is sent beside it.
const MAX_DOCUMENT: u64 = 64 * 1024;
const MAX_PEM: u64 = 256 * 1024;
const MAX_REFERENCES: u64 = 1024 * 1024;
const AWS_NITRO: &str = "aws-nitro";

#[derive(Subcommand)]
pub(super) enum Policy {
    /// Install FILE (Rego, package `policy`).
    Set {
        #[command(flatten)]
        config: ConfigArg,
        /// The policy.
        file: PathBuf,
        #[command(flatten)]
        approvals: Approvals,
    },
    /// Say what a policy would decide on a stored attestation document, and why. Touches no broker.
    ///
    /// Ends with 0 where everything would be released, with 77 where something would not.
    Test(Test),
}

#[derive(Subcommand)]
pub(super) enum AttestationPolicy {
    /// Install FILE (Rego, package `policy`, rule `trust_claims`).
    Set {
        #[command(flatten)]
        config: ConfigArg,
        /// The policy.
        file: PathBuf,
        #[command(flatten)]
        approvals: Approvals,
    },
    /// Remove it: tokens carry no trust claims any more.
    Remove {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        approvals: Approvals,
    },
}

#[derive(Args)]
pub(super) struct Test {
    /// The policy (Rego).
    #[arg(long)]
    policy: PathBuf,
    /// The document: binary or base64, or JSON as it is sent: evidence (`document`, `config_digest`, `boot_id`), or a
    /// whole attestation, whose binding is then checked too.
    #[arg(long)]
    document: PathBuf,
    /// `<repository>/<type>/<tag>`; may be given again.
    #[arg(long = "resource", required = true)]
    resources: Vec<String>,
    /// `<name>=<value>` of the request's query; may be given again.
    #[arg(long, value_parser = pair)]
    query: Vec<(String, String)>,
    /// Time to judge at, RFC 3339. Without it the document's own.
    #[arg(long, value_parser = instant)]
    at: Option<SystemTime>,
    /// `aws-nitro`, or a root certificate (PEM).
    #[arg(long, default_value = AWS_NITRO)]
    trust_anchor: String,
    /// What the enclave says it is configured with, for a document without it.
    #[arg(long)]
    config_digest: Option<Sha256Digest>,
    /// Which run of the enclave it is, for a document without it.
    #[arg(long)]
    boot_id: Option<BootId>,
    /// Attestation policy (Rego) whose trust claims the policy sees.
    #[arg(long)]
    attestation_policy: Option<PathBuf>,
    /// Reference values for it (JSON object).
    #[arg(long, requires = "attestation_policy")]
    reference_values: Option<PathBuf>,
}

impl Policy {
    pub(super) fn run(self, now: SystemTime) -> Result<(), Error> {
        match self {
            Self::Set {
                config,
                file,
                approvals,
            } => offline::set_policy(&config.load()?, &rego(&file)?, &approvals.read()?, now),
            Self::Test(test) => test.run(),
        }
    }
}

impl AttestationPolicy {
    pub(super) fn run(self, now: SystemTime) -> Result<(), Error> {
        match self {
            Self::Set {
                config,
                file,
                approvals,
            } => {
                let (text, approvals) = (rego(&file)?, approvals.read()?);
                offline::set_attestation_policy(&config.load()?, &text, &approvals, now)
            }
            Self::Remove { config, approvals } => {
                offline::remove_attestation_policy(&config.load()?, &approvals.read()?, now)
            }
        }
    }
}

impl Test {
    fn run(self) -> Result<(), Error> {
        let at = |path: &Path, problem: &dyn std::fmt::Display| {
            Error::Usage(format!("{}: {problem}", path.display()))
        };
        let bytes = bytes(&self.document)?;
        let mut document = Stored::parse(&bytes).map_err(|error| at(&self.document, &error))?;
        document.config_digest = document.config_digest.or(self.config_digest);
        document.boot_id = document.boot_id.or(self.boot_id);
        let anchor = if self.trust_anchor == AWS_NITRO {
            TrustAnchor::aws_nitro()
        } else {
            let path = Path::new(&self.trust_anchor);
            let pem = config::read(path, MAX_PEM).map_err(|error| at(path, &error))?;
            TrustAnchor::from_pem(pem.as_bytes()).map_err(|error| at(path, &error))?
        };
        let attestation_policy = self.attestation_policy.as_deref().map(rego).transpose()?;
        let references = match &self.reference_values {
            Some(path) => {
                let json = config::read(path, MAX_REFERENCES).map_err(|error| at(path, &error))?;
                serde_json::from_str(&json).map_err(|error| at(path, &error))?
            }
            None => crate::appraisal::References::new(),
        };
        let query: HashMap<_, _> = self.query.into_iter().collect();
        let run = DryRun {
            policy: &rego(&self.policy)?,
            verifier: Verifier::new(anchor),
            at: self.at,
            attestation_policy: attestation_policy.as_deref(),
            references,
            resources: &self.resources,
            query: &query,
        };
        let report = run.run(document);
        print(&report.text)?;
        report
            .denied
            .map_or(Ok(()), |denied| Err(Error::Denied(denied)))
    }
}

/// A policy that parses, so that a typing error is not taken for a refusal.
pub(super) fn rego(path: &Path) -> Result<String, Error> {
    let at =
        |problem: &dyn std::fmt::Display| Error::Usage(format!("{}: {problem}", path.display()));
    let text = config::read(path, MAX_POLICY as u64).map_err(|error| at(&error))?;
    crate::policy::check(&text).map_err(|error| at(&error))?;
    Ok(text.to_string())
}

fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let at = |problem: String| Error::Usage(format!("{}: {problem}", path.display()));
    let unread = |error: std::io::Error| at(format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes))
        .map_err(unread)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(at(format!("is larger than {MAX_DOCUMENT} bytes")));
    }
    Ok(bytes)
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected <name>=<value>")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn instant(text: &str) -> Result<SystemTime, String> {
    match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(time) => Ok(time.into()),
        Err(error) => Err(format!(
            "expected a time as 2026-01-31T12:00:00Z (RFC 3339): {error}"
        )),
    }
}
