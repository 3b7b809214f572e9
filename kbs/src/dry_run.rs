//! What a policy would decide on a stored document: the broker's own verifier, claims and engine, without a broker.
//!
//! A document that somebody kept answers no challenge of ours. What that leaves unchecked, or unknown to the policy, is
//! said.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use attestation::{BootId, Claims, Document, Evidence, Pcrs, Sha256Digest, Verifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::api::is_resource_path;
use crate::appraisal::{self, Appraisal, References};
use crate::evidence::NitroEvidence;
use crate::policy::{Decision, PolicyEngine, Question};
use crate::store::Facts;
use crate::tee_key::TeePublicKey;
use crate::token::{Submods, Times};

/// A document as it was kept, and what was kept beside it.
pub(crate) struct Stored {
    evidence: Evidence,
    pub(crate) config_digest: Option<Sha256Digest>,
    pub(crate) boot_id: Option<BootId>,
    /// Nonce and key of a whole attestation: then the binding can be checked.
    sent: Option<(NitroEvidence, String, TeePublicKey)>,
}

impl Stored {
    /// Reads binary, base64, or JSON as it is sent.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let trimmed = bytes.trim_ascii();
        if trimmed.starts_with(b"{") {
            return Self::parse_json(trimmed);
        }
        let text: Vec<u8> = trimmed
            .iter()
            .copied()
            .filter(|b| !b.is_ascii_whitespace())
            .collect();
        let document = STANDARD.decode(&text).unwrap_or_else(|_| bytes.to_vec());
        Ok(Self {
            evidence: evidence(document)?,
            config_digest: None,
            boot_id: None,
            sent: None,
        })
    }

    fn parse_json(text: &[u8]) -> Result<Self, String> {
        let json: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let primary = json.pointer("/tee-evidence/primary_evidence");
        let parts = primary.unwrap_or(&json);
        let member = |name: &str| parts.get(name).and_then(Value::as_str);
        let document = member("document").ok_or("has no member `document`")?;
        let document = STANDARD
            .decode(document)
            .map_err(|error| format!("document: {error}"))?;
        let config_digest = member("config_digest").map(str::parse).transpose();
        let boot_id = member("boot_id").map(str::parse).transpose();
        let sent = match (primary, json.get("runtime-data")) {
            (Some(primary), Some(runtime)) => {
                let read = |value: &Value| value.clone();
                let evidence = serde_json::from_value(read(primary))
                    .map_err(|error| format!("primary_evidence: {error}"))?;
                let nonce = runtime.get("nonce").and_then(Value::as_str);
                let nonce = nonce.ok_or("runtime-data has no nonce")?.to_owned();
                let key = runtime.get("tee-pubkey").map(read).unwrap_or_default();
                let key =
                    serde_json::from_value(key).map_err(|error| format!("tee-pubkey: {error}"))?;
                Some((evidence, nonce, key))
            }
            _ => None,
        };
        Ok(Self {
            evidence: evidence(document)?,
            config_digest: config_digest.map_err(|error| format!("config_digest: {error}"))?,
            boot_id: boot_id.map_err(|error| format!("boot_id: {error}"))?,
            sent,
        })
    }
}

fn evidence(document: Vec<u8>) -> Result<Evidence, String> {
    let evidence = Evidence::from_bytes(document).map_err(|error| error.to_string())?;
    evidence
        .claimed_time()
        .map_err(|error| format!("is no attestation document: {error}"))?;
    Ok(evidence)
}

/// Everything a dry run is given but the document.
pub(crate) struct DryRun<'a> {
    pub(crate) policy: &'a str,
    pub(crate) verifier: Verifier,
    /// None: the document's own time.
    pub(crate) at: Option<SystemTime>,
    pub(crate) attestation_policy: Option<&'a str>,
    pub(crate) references: References,
    pub(crate) resources: &'a [String],
    pub(crate) query: &'a HashMap<String, String>,
}

/// For people.
pub(crate) struct Report {
    pub(crate) text: String,
    /// One line, if something would be denied.
    pub(crate) denied: Option<String>,
}

/// What the evidence says, whichever way it was checked.
struct Checked {
    module_id: String,
    pcrs: Pcrs,
    key: Option<TeePublicKey>,
    nonce: Option<String>,
    how: &'static str,
}

impl DryRun<'_> {
    pub(crate) fn run(mut self, document: Stored) -> Report {
        let mut report = Report {
            text: String::new(),
            denied: None,
        };
        // Writing to a string cannot fail.
        if let Err(reason) = self.judge(&document, &mut report) {
            let _infallible = writeln!(report.text, "denied at attest: {reason}");
            report.denied = Some("the evidence would be refused".to_owned());
        }
        report
    }

    fn judge(&mut self, document: &Stored, report: &mut Report) -> Result<(), String> {
        let claimed = document.evidence.claimed_time();
        let claimed = claimed.map_err(|error| error.to_string())?;
        let now = self.at.unwrap_or(claimed);
        let made = rfc3339(claimed);
        let judged = match self.at {
            Some(at) => format!("judged at {}", rfc3339(at)),
            None => "judged at that time".to_owned(),
        };
        let anchor = self.verifier.anchor();
        let whose = if anchor.is_aws_nitro() {
            " (AWS Nitro)"
        } else {
            " (NOT AWS NITRO)"
        };
        let root = anchor.fingerprint();
        let _infallible = writeln!(report.text, "document   says it was made {made}; {judged}");
        let _infallible = writeln!(report.text, "anchor     {root}{whose}");

        let facts = self.verify(document, now)?;
        let mut nitro = json!({
            "pcrs": facts.pcrs.iter().map(|(i, pcr)| (i.to_string(), json!(pcr)))
                .collect::<serde_json::Map<_, _>>(),
            "module_id": facts.module_id,
            "root_sha256": root,
        });
        let mut input = json!(Times::from(now).map_err(|error| error.to_string())?);
        let mut unknown = Vec::new();
        let mut known = |object: &mut Value, name: &'static str, value: Option<Value>| match value {
            Some(value) => insert(object, name, value),
            None => unknown.push(name),
        };
        let config_digest = document.config_digest.map(|digest| json!(digest));
        known(&mut nitro, "config_digest", config_digest);
        known(&mut nitro, "boot_id", document.boot_id.map(|id| json!(id)));
        known(
            &mut input,
            "tee-pubkey",
            facts.key.as_ref().map(|key| json!(key)),
        );
        let _infallible = writeln!(report.text, "module     {}", facts.module_id);
        for (index, pcr) in facts.pcrs.iter().filter(|(_, pcr)| !pcr.is_zero()) {
            let _infallible = writeln!(report.text, "{:<10} {pcr}", format!("pcr{index}"));
        }
        let _infallible = writeln!(report.text, "checked    {}", facts.how);
        if !unknown.is_empty() {
            let unknown = unknown.join(", ");
            let _infallible = writeln!(
                report.text,
                "unknown    {unknown}: rules that read them are undefined"
            );
        }
        let engine = PolicyEngine::default();
        if let Some(appraisal) = self.appraise(&engine, &nitro, &facts)? {
            let _infallible = writeln!(report.text, "ear.status {}", appraisal.status);
            for (claim, value) in &appraisal.vector {
                let claim = json!(claim);
                let _infallible = writeln!(report.text, "  {} = {value}", text(&claim));
            }
            insert(&mut input, "submods", json!(Submods { cpu0: appraisal }));
        }
        insert(&mut input, "nitro", nitro);
        self.decide(&engine, &input, report);
        Ok(())
    }

    fn verify(&self, document: &Stored, now: SystemTime) -> Result<Checked, String> {
        if let Some((evidence, nonce, key)) = &document.sent {
            let mut facts = Facts::default();
            key.recipient().map_err(|error| error.to_string())?;
            let Claims {
                module_id, pcrs, ..
            } = evidence.verify_key_release(&self.verifier, nonce, key, &mut facts, now)?;
            return Ok(Checked {
                module_id,
                pcrs,
                key: Some(key.clone()),
                nonce: Some(nonce.clone()),
                how: "everything; that the nonce is one of a broker's, only a broker knows",
            });
        }
        let Document {
            module_id,
            pcrs,
            public_key,
            ..
        } = self
            .verifier
            .authenticate(&document.evidence, now)
            .map_err(|error| crate::evidence::describe(&error))?;
        if (0..3).any(|index| pcrs.get(&index).is_none_or(|pcr| pcr.is_zero())) {
            return Err("an enclave in debug mode".to_owned());
        }
        Ok(Checked {
            module_id,
            pcrs,
            key: public_key.and_then(|der| TeePublicKey::from_spki(&der)),
            nonce: None,
            how: "chain, signature, not in debug mode; not nonce, key and binding, which a document alone does not show",
        })
    }

    fn appraise(
        &mut self,
        engine: &PolicyEngine,
        nitro: &Value,
        facts: &Checked,
    ) -> Result<Option<Appraisal>, String> {
        let Some(policy) = self.attestation_policy else {
            return Ok(None);
        };
        let input = appraisal::input(nitro, facts.nonce.as_deref(), facts.key.as_ref());
        let references = std::mem::take(&mut self.references);
        appraisal::appraise(engine, policy, references, input)
            .map(Some)
            .map_err(|error| format!("attestation policy: {error}"))
    }

    fn decide(&self, engine: &PolicyEngine, input: &Value, report: &mut Report) {
        let mut denied = 0_usize;
        for resource in self.resources {
            let path: Vec<&str> = resource.split('/').collect();
            let question = Question {
                path: &path,
                query: self.query,
            };
            let (verdict, reasons) = match engine.decide(self.policy, input, &question) {
                Ok(Decision::Allowed) if is_resource_path(resource) => ("allowed", Vec::new()),
                Ok(Decision::Allowed) => (
                    "refused",
                    vec!["the policy allows it, but it names no resource".to_owned()],
                ),
                Ok(Decision::Denied(reasons)) => ("denied", reasons),
                Err(error) => ("denied", vec![error.to_string()]),
            };
            denied += usize::from(verdict != "allowed");
            let _infallible = writeln!(report.text, "\n{resource}: {verdict}");
            for reason in reasons {
                let _infallible = writeln!(report.text, "  because {reason}");
            }
            let rules = engine.rules(self.policy, input, &question);
            for (rule, value) in rules.ok().iter().filter_map(Value::as_object).flatten() {
                if rule != "reasons" {
                    let _infallible = writeln!(report.text, "  {rule} = {}", shown(value));
                }
            }
        }
        if denied > 0 {
            let all = self.resources.len();
            report.denied = Some(format!("{denied} of {all} would be denied"));
        }
    }
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

/// Tables of a policy are long and known to its author.
fn shown(value: &Value) -> String {
    const MAX: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
