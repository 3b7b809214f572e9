//! What was found, for people and for machines.

use std::path::Path;
use std::time::SystemTime;

use attestation::{
    Binding, BundleReport, CertificateView, EvidenceBundle, ModelIdentity, Subject, TrustAnchor,
    UnverifiedView, Verdict, rfc3339,
};
use serde_json::{Map, Value, json};

use crate::failure::Chain;
use crate::output::field;

/// All that a report is made of.
pub(super) struct View<'a> {
    pub(super) bundle: &'a EvidenceBundle,
    pub(super) outcome: &'a BundleReport,
    pub(super) anchor: &'a TrustAnchor,
    pub(super) root: Option<&'a Path>,
    pub(super) at: SystemTime,
    pub(super) policy: PolicySource,
}

#[derive(Clone, Copy)]
pub(super) enum PolicySource {
    Given,
    Bundle,
    None,
}

/// One line of the verdicts: step, word, reason.
type Row = (&'static str, &'static str, Option<String>);

impl View<'_> {
    fn rows(&self) -> Vec<Row> {
        let steps = self.outcome.steps.iter().map(|(step, verdict)| {
            let reason = verdict.error().map(|error| Chain(error).to_string());
            (step.as_str(), verdict.as_str(), reason)
        });
        let mut rows: Vec<Row> = steps.collect();
        fn row<E: std::error::Error>(name: &'static str, result: &Option<Result<(), E>>) -> Row {
            match result {
                None => (name, "not asked", None),
                Some(Ok(())) => (name, "passed", None),
                Some(Err(error)) => (name, "refused", Some(error.to_string())),
            }
        }
        rows.push(row("config-digest", &self.outcome.config));
        rows.push(row("models", &self.outcome.models));
        rows.push(row("manifest", &self.outcome.manifests));
        // What an earlier refusal left unsaid.
        if self.steps_refused() {
            for row in rows.iter_mut().skip(self.outcome.steps.len()) {
                *row = (row.0, "not reached", None);
            }
        }
        rows
    }

    fn steps_refused(&self) -> bool {
        let refused = |verdict: &Verdict| matches!(verdict, Verdict::Refused(_));
        self.outcome
            .steps
            .iter()
            .any(|(_, verdict)| refused(verdict))
    }

    fn waived(&self) -> bool {
        let waived = |verdict: &Verdict| matches!(verdict, Verdict::Waived(_));
        self.outcome
            .steps
            .iter()
            .any(|(_, verdict)| waived(verdict))
    }

    fn verdict(&self) -> String {
        let asked: Vec<_> = self
            .rows()
            .into_iter()
            .skip(4)
            .filter(|(_, word, _)| *word == "passed")
            .map(|(name, ..)| name)
            .collect();
        match (self.outcome.is_accepted(), self.waived()) {
            (false, _) => match self.rows().iter().find(|(_, word, _)| *word == "refused") {
                Some((name, ..)) => format!("REFUSED at {name}"),
                None => "REFUSED".to_owned(),
            },
            (true, true) => "DEBUG MODE, for inspection only: its memory can be read".to_owned(),
            (true, false) if asked.is_empty() => {
                "authentic: structure, chain and signature hold; nothing else was asked".to_owned()
            }
            (true, false) => format!("accepted: authentic, and {} hold", asked.join(", ")),
        }
    }

    fn root(&self) -> String {
        match (self.anchor.is_aws_nitro(), self.root) {
            (true, _) => "AWS Nitro Enclaves Root-G1".to_owned(),
            (false, Some(path)) => format!("NOT AWS: {}", path.display()),
            (false, None) => "NOT AWS".to_owned(),
        }
    }

    fn policy(&self) -> &'static str {
        match self.policy {
            PolicySource::Given => "the given one",
            PolicySource::Bundle => "the bundle's own, chosen by whoever made it",
            PolicySource::None => "none",
        }
    }
}

pub(super) fn text(view: &View<'_>) -> String {
    let mut text = String::new();
    field(&mut text, "verdict", view.verdict());
    for (name, word, reason) in view.rows() {
        let reason = reason.map(|reason| format!(": {}", printable(&reason)));
        let reason = reason.unwrap_or_default();
        field(&mut text, "", format_args!("{name:<14}{word}{reason}"));
    }
    field(&mut text, "as of", rfc3339(view.at));
    let fingerprint = view.anchor.fingerprint();
    field(
        &mut text,
        "root",
        format_args!("{}, sha256 {fingerprint}", view.root()),
    );
    field(&mut text, "policy", view.policy());
    let Ok(document) = view.bundle.document.inspect() else {
        return text;
    };
    if view.steps_refused() {
        field(
            &mut text,
            "what follows",
            "is what the document says of itself; it was refused",
        );
    }
    chain(&mut text, &document.certificates);
    field(&mut text, "made", rfc3339(document.timestamp));
    field(&mut text, "module", printable(&document.module_id));
    registers(&mut text, &document);
    for (name, value) in [
        ("public key", &document.public_key),
        ("user data", &document.user_data),
        ("nonce", &document.nonce),
    ] {
        match value {
            Some(value) if value.is_empty() => field(&mut text, name, "empty"),
            Some(value) => field(&mut text, name, hex::encode(value)),
            None => field(&mut text, name, "none"),
        }
    }
    if let Some(binding) = &view.bundle.binding {
        show_binding(&mut text, binding);
    }
    text
}

/// Text of others on a terminal.
fn printable(text: &str) -> String {
    text.escape_debug().to_string()
}

fn chain(text: &mut String, certificates: &[CertificateView]) {
    for (position, certificate) in certificates.iter().enumerate() {
        let name = match position {
            0 => "chain",
            _ => "",
        };
        match &certificate.content {
            Ok(content) => {
                let (from, until) = (rfc3339(content.not_before), rfc3339(content.not_after));
                let subject = printable(&content.subject);
                field(
                    text,
                    name,
                    format_args!("{position} {from} to {until}  {subject}"),
                );
            }
            Err(problem) => field(text, name, format_args!("{position} {problem}")),
        }
    }
}

fn registers(text: &mut String, document: &UnverifiedView) {
    for (index, pcr) in document.pcrs.iter().filter(|(_, pcr)| !pcr.is_zero()) {
        field(text, &format!("PCR{index}"), pcr);
    }
    let zero = document.pcrs.iter().filter(|(_, pcr)| pcr.is_zero());
    let zero: Vec<_> = zero.map(|(index, _)| index.to_string()).collect();
    if !zero.is_empty() {
        field(text, "PCRs zero", zero.join(" "));
    }
}

fn show_binding(text: &mut String, binding: &Binding) {
    field(text, "binding", format_args!("for {}", binding.purpose()));
    field(text, "  config", binding.config_digest);
    field(text, "  boot", binding.boot_id);
    match &binding.subject {
        Subject::KeyRelease {
            runtime_data_sha384,
        } => field(text, "  runtime", runtime_data_sha384),
        Subject::SvidIssuance {
            csr_sha256,
            spki_sha256,
        } => {
            field(text, "  request", csr_sha256);
            field(text, "  key", spki_sha256);
        }
        Subject::Session(session) => {
            field(text, "  server", printable(&session.spiffe_id));
            field(text, "  serial", printable(&session.svid_serial));
            field(text, "  key", session.tls_spki_sha256);
            field(text, "  exporter", hex::encode(session.exporter));
            field(text, "  caller", session.peer_leaf_sha256);
            for model in &session.models {
                let ModelIdentity {
                    name,
                    epoch,
                    manifest_sha256,
                    publisher_sha256,
                } = model;
                let name = printable(name);
                field(
                    text,
                    "  model",
                    format_args!("{name} epoch {epoch} manifest {manifest_sha256}"),
                );
                field(text, "  publisher", publisher_sha256);
            }
        }
    }
}

pub(super) fn json(view: &View<'_>) -> Value {
    let rows = view.rows().into_iter();
    let steps: Vec<_> = rows
        .map(|(name, word, reason)| json!({"step": name, "verdict": word, "reason": reason}))
        .collect();
    let document = view.bundle.document.inspect().ok();
    let binding = view.bundle.binding.as_ref();
    json!({
        "accepted": view.outcome.is_accepted(),
        "debug_waived": view.waived(),
        "verdict": view.verdict(),
        "steps": steps,
        "at": rfc3339(view.at),
        "trust_anchor": {"aws_nitro": view.anchor.is_aws_nitro(), "sha256": view.anchor.fingerprint()},
        "policy": match view.policy {
            PolicySource::Given => Some("given"),
            PolicySource::Bundle => Some("bundle"),
            PolicySource::None => None,
        },
        "document": document.as_ref().map(document_json),
        "binding": binding.and_then(|b| serde_json::from_slice::<Value>(&b.canonical_json()).ok()),
    })
}

fn document_json(document: &UnverifiedView) -> Value {
    let pcrs: Map<String, Value> = document
        .pcrs
        .iter()
        .map(|(index, pcr)| (index.to_string(), pcr.to_string().into()))
        .collect();
    let chain: Vec<_> = document.certificates.iter().map(certificate_json).collect();
    let hex = |value: &Option<Vec<u8>>| value.as_ref().map(hex::encode);
    json!({
        "module_id": document.module_id,
        "timestamp": rfc3339(document.timestamp),
        "pcrs": pcrs,
        "public_key": hex(&document.public_key),
        "user_data": hex(&document.user_data),
        "nonce": hex(&document.nonce),
        "chain": chain,
    })
}

fn certificate_json(certificate: &CertificateView) -> Value {
    match &certificate.content {
        Ok(content) => json!({
            "sha256": certificate.sha256,
            "subject": content.subject,
            "serial": content.serial,
            "not_before": rfc3339(content.not_before),
            "not_after": rfc3339(content.not_after),
            "ca": content.ca,
            "path_length": content.path_length,
        }),
        Err(problem) => json!({"sha256": certificate.sha256, "problem": problem}),
    }
}
