mod input;
mod live;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use attestation::{
    BundleAudit, BundleReport, ChainError, Error, EvidenceBundle, EvidencePolicy, Pcr,
    RevocationLists, TrustAnchor, Verdict, Verifier,
};
use clap::{ArgGroup, Args};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::artefact;
use crate::failure::{Chain, Failure};
use crate::output;
use live::Live;

/// Check the evidence of a Nitro enclave: a document, an evidence bundle, or a running enclave
///
/// Reports each step of the verifier with its verdict, the chain with its dates, the registers, and what the document commits to.
/// A document alone says nothing of whom it was made for: give what you know, with --nonce, --public-key, --binding, --pcr and
/// --policy. A bundle brings what it was judged by; with --policy it is judged by yours. Nothing is looked up anywhere.
///
/// Exit codes: 0 accepted, 64 usage, 69 the enclave cannot be reached, 77 refused, with the step.
#[derive(Args)]
#[command(group = ArgGroup::new("source").required(true).args(["file", "connect"]))]
#[command(after_help = "\
Examples:
  cloister verify evidence.bin
  cloister verify evidence.b64 --at 2026-11-20T12:00:00Z        a document's certificates last three hours
  cloister verify - --at document < evidence.hex                 as of the time that it says itself
  cloister verify evidence.bin --root simulated-root.pem        not AWS: what cloister-dev makes
  cloister verify evidence.bin --pcr 0=7fb5c55b… --max-age 300
  cloister verify session.json --policy accepted.toml           a bundle, by your policy and not by its own
  cloister verify --connect enclave.example.org:8443 --svid app.pem --key app.key.pem --trust-bundle ca.pem \\
      --server-id spiffe://example.org/enclave/chat --policy accepted.toml --save session.json")]
pub(crate) struct Verify {
    /// The document (binary, base64 or hex) or evidence bundle; - for standard input.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    live: Live,
    /// Trust this root certificate, PEM, and not the one of AWS Nitro.
    #[arg(long, value_name = "PEM")]
    root: Option<PathBuf>,
    /// Check as of this time, RFC 3339, or "document": as of the time that the document says. Default: now.
    #[arg(long, value_name = "TIME", value_parser = At::parse, conflicts_with = "connect")]
    at: Option<At>,
    /// What is accepted, TOML: images as in a gateway's `[policy]`, and perhaps config_digest, models and max_age_s.
    #[arg(long, value_name = "TOML")]
    policy: Option<PathBuf>,
    /// This register must have this value, 96 hex digits. May be repeated.
    #[arg(long, value_name = "N=HEX", value_parser = parse_register)]
    pcr: Vec<(u8, Pcr)>,
    /// The challenge that the document answers, hex.
    #[arg(long, value_name = "HEX", value_parser = parse_hex, conflicts_with = "connect")]
    nonce: Option<Hex>,
    /// The key that it attests, DER SubjectPublicKeyInfo in hex.
    #[arg(long, value_name = "HEX", value_parser = parse_hex, conflicts_with = "connect")]
    public_key: Option<Hex>,
    /// What its user data is the hash of: a file with the canonical text of the binding.
    #[arg(long, value_name = "FILE", conflicts_with = "connect")]
    binding: Option<PathBuf>,
    /// Oldest acceptable document, in seconds.
    #[arg(long, value_name = "SECONDS")]
    max_age: Option<u64>,
    /// Certificate revocation lists, DER or PEM, to be obeyed. May be repeated.
    #[arg(long, value_name = "FILE")]
    crl: Vec<PathBuf>,
    /// Look at an enclave in debug mode, too. For inspection only: anybody on its machine can read its memory.
    #[arg(long)]
    allow_debug: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Write an evidence bundle, which can be verified later and elsewhere.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

#[derive(Clone, Copy)]
enum At {
    Time(SystemTime),
    Document,
}

/// Clap takes a `Vec` for a repeated argument.
#[derive(Clone)]
struct Hex(Vec<u8>);

impl Verify {
    pub(crate) fn run(&self, now: SystemTime) -> Result<(), Failure> {
        let verifier = self.verifier()?;
        let policy = self.policy.as_deref().map(input::policy).transpose()?;
        let registers = self.registers()?;
        let (bundle, source) = match &self.file {
            Some(file) => (self.read(file)?, input::name(file)),
            None => self.live.ask(now)?,
        };
        let at = match self.at {
            None => now,
            Some(At::Time(time)) => time,
            Some(At::Document) => bundle
                .document
                .claimed_time()
                .map_err(|error| refused(&source, &Error::from(error)))?,
        };
        let asked = BundleAudit {
            policy: policy.as_ref(),
            registers: (!registers.is_empty()).then_some(&registers),
            max_age: self.max_age.map(Duration::from_secs),
            allow_debug: self.allow_debug,
        };
        let outcome = bundle.audit(&verifier, &asked, at);
        let view = report::View {
            bundle: &bundle,
            outcome: &outcome,
            anchor: verifier.anchor(),
            root: self.root.as_deref(),
            at,
            policy: match (&policy, &bundle.policy) {
                (Some(_), _) => report::PolicySource::Given,
                (None, Some(_)) => report::PolicySource::Bundle,
                (None, None) => report::PolicySource::None,
            },
        };
        output::print(&match self.json {
            true => format!("{:#}\n", report::json(&view)),
            false => report::text(&view),
        })?;
        self.save(bundle.clone(), policy, now)?;
        verdict(&source, &outcome)
    }

    fn verifier(&self) -> Result<Verifier, Failure> {
        let anchor = match &self.root {
            None => TrustAnchor::aws_nitro(),
            Some(path) => TrustAnchor::from_pem(&input::small(path)?)
                .map_err(|error| Failure::usage(anyhow!("{}: {error}", path.display())))?,
        };
        let mut lists: Option<RevocationLists> = None;
        for path in &self.crl {
            let failed = |error| Failure::usage(anyhow!("{}: {error}", path.display()));
            let next = RevocationLists::from_bytes(&input::read(path)?).map_err(failed)?;
            lists = Some(match lists {
                None => next,
                Some(lists) => lists.join(next).map_err(failed)?,
            });
        }
        let verifier = Verifier::new(anchor);
        Ok(match lists {
            None => verifier,
            Some(lists) => verifier.with_revocation_lists(lists),
        })
    }

    fn registers(&self) -> Result<BTreeMap<u8, Pcr>, Failure> {
        let mut registers = BTreeMap::new();
        for (index, value) in &self.pcr {
            if registers.insert(*index, *value).is_some() {
                return Err(Failure::usage(anyhow!("--pcr {index} is given twice")));
            }
        }
        Ok(registers)
    }

    fn read(&self, file: &std::path::Path) -> Result<EvidenceBundle, Failure> {
        let mut bundle = input::evidence(file)?;
        // What the caller knows by itself counts more than what a bundle brings.
        if let Some(Hex(nonce)) = &self.nonce {
            bundle.nonce = Some(nonce.clone());
        }
        if let Some(Hex(key)) = &self.public_key {
            bundle.public_key = Some(key.clone());
        }
        if let Some(path) = &self.binding {
            bundle.binding = Some(input::binding(path)?);
        }
        Ok(bundle)
    }

    fn save(
        &self,
        mut bundle: EvidenceBundle,
        policy: Option<EvidencePolicy>,
        now: SystemTime,
    ) -> Result<(), Failure> {
        let Some(path) = &self.save else {
            return Ok(());
        };
        bundle.policy = policy.or(bundle.policy);
        bundle.recorded = bundle.recorded.or(Some(now));
        let json = bundle.to_json().map_err(Failure::bug)?;
        artefact::create(path, json.as_bytes())
    }
}

/// The first refusal, on one line.
fn verdict(source: &str, outcome: &BundleReport) -> Result<(), Failure> {
    let first = outcome.steps.iter().find_map(|(_, verdict)| match verdict {
        Verdict::Refused(error) => Some(error),
        _ => None,
    });
    if let Some(error) = first {
        return Err(refused(source, error));
    }
    let later = [
        ("config-digest", outcome.config.as_ref().and_then(refusal)),
        ("models", outcome.models.as_ref().and_then(refusal)),
        ("manifest", outcome.manifests.as_ref().and_then(refusal)),
    ];
    for (step, error) in later {
        if let Some(error) = error {
            return Err(Failure::refused(anyhow!(
                "{source}: refused at {step}: {error}"
            )));
        }
    }
    match outcome.is_accepted() {
        true => Ok(()),
        false => Err(Failure::bug(anyhow!("{source}: refused without a reason"))),
    }
}

fn refusal<E: std::error::Error>(result: &Result<(), E>) -> Option<&dyn std::error::Error> {
    result.as_ref().err().map(|error| error as _)
}

fn refused(source: &str, error: &Error) -> Failure {
    let step = error.step();
    let fix = match error {
        Error::Chain(ChainError::Validity { .. }) => {
            " (certificates of documents last three hours: give the time it was made with --at)"
        }
        Error::Debug { .. } => {
            " (an operator can read its memory; --allow-debug to look at it all the same)"
        }
        _ => "",
    };
    Failure::refused(anyhow!(
        "{source}: refused at {step}: {}{fix}",
        Chain(error)
    ))
}

impl At {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "document" {
            return Ok(Self::Document);
        }
        OffsetDateTime::parse(text, &Rfc3339)
            .map(|time| Self::Time(time.into()))
            .map_err(|error| format!("{error}; write it like 2026-11-20T12:00:00Z, or document"))
    }
}

fn parse_hex(text: &str) -> Result<Hex, String> {
    match hex::decode(text) {
        Ok(bytes) if !bytes.is_empty() => Ok(Hex(bytes)),
        _ => Err("expected hex digits, two for each byte".to_owned()),
    }
}

/// `N=HEX`. Zeros would be the debug enclave's.
fn parse_register(text: &str) -> Result<(u8, Pcr), String> {
    let (index, value) = text
        .split_once('=')
        .ok_or("write it like 0=<96 hex digits>")?;
    let index = match index.parse::<u8>() {
        Ok(parsed @ 0..=31) if parsed.to_string() == index => parsed,
        _ => return Err(format!("{index:?} is not a register: 0 to 31")),
    };
    let value: Pcr = value
        .parse()
        .map_err(|error| format!("PCR{index}: {error}"))?;
    match value.is_zero() {
        true => Err(format!("PCR{index}: zeros are what a debug enclave has")),
        false => Ok((index, value)),
    }
}
