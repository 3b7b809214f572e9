//! The file as it is written, and the checks of its parts.

use std::collections::BTreeSet;

use engine::Quantize;
use identity::{BundleDocument, SpiffeId, TrustBundles, TrustDomain};
use sealed_model::PublisherKey;
use serde::Deserialize;
use transport::Endpoint;

use super::brokers::{BrokerSections, TrusteeSection};
use super::followed::{self, FederatedSection, FollowedBundle};
use super::kms::{KeySource, KmsSection};
use super::{Limits, Listen, ModelConfig, Problem, problem};

/// As the sealed format allows.
const MAX_NAME_CHARS: usize = 64;
/// Each model keeps its tensors in memory; more than this is a mistake, not a deployment.
const MAX_MODELS: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) spiffe_id: String,
    pub(super) listen: Listen,
    pub(super) trust: TrustSection,
    pub(super) broker: BrokerSections,
    #[serde(default)]
    pub(super) trustee: Option<TrusteeSection>,
    pub(super) kms: Option<KmsSection>,
    pub(super) models: Vec<ModelSection>,
    #[serde(default)]
    pub(super) reload: bool,
    pub(super) authorization: AuthorizationSection,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) clock_sources: Vec<String>,
}

/// Names as Linux writes them, a few words at most.
pub(super) fn clock_sources(names: Vec<String>) -> Result<Vec<String>, Problem> {
    let plain = |name: &String| {
        (1..=32).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    match names.len() <= 8 && names.iter().all(plain) {
        true => Ok(names),
        false => Err(problem(
            "clock_sources",
            "names what is no clock source of Linux; write names as current_clocksource shows them",
        )),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrustSection {
    domain: String,
    bundle: String,
    callers: Vec<String>,
    /// Other organisations' trust domains, each with its own CA certificates.
    #[serde(default)]
    federated: Vec<FederatedSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelSection {
    name: String,
    source: Endpoint,
    package: String,
    publishers: Vec<String>,
    min_epoch: u64,
    #[serde(default)]
    check_segments: bool,
    /// `q8_0` or `q4_k`.
    quantize: Option<String>,
    /// The key comes from AWS KMS; without it, from the broker.
    kms_key_arn: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthorizationSection {
    pub(super) policy: String,
}

pub(super) struct CheckedTrust {
    pub(super) domain: TrustDomain,
    pub(super) bundles: TrustBundles,
    pub(super) callers: Vec<TrustDomain>,
    pub(super) followed: Vec<FollowedBundle>,
}

impl TrustSection {
    pub(super) fn check(self) -> Result<CheckedTrust, Problem> {
        let domain = trust_domain("trust.domain", &self.domain)?;
        let mut known = BTreeSet::from([domain.to_string()]);
        let mut bundles = TrustBundles::from_text(&domain, &self.bundle)
            .map_err(|error| problem("trust.bundle", error))?;
        let mut followed = Vec::new();
        for (index, federated) in self.federated.into_iter().enumerate() {
            let field = format!("trust.federated[{index}]");
            let other = trust_domain(&format!("{field}.domain"), &federated.domain)?;
            if !known.insert(other.to_string()) {
                return Err(problem(
                    field,
                    "names a trust domain that already has a bundle",
                ));
            }
            BundleDocument::from_text(&federated.bundle)
                .and_then(|document| bundles.update(&other, &document))
                .map_err(|error| problem(format!("{field}.bundle"), error))?;
            followed.extend(federated.followed(&field, other)?);
        }
        if self.callers.is_empty() {
            return Err(problem(
                "trust.callers",
                "is empty, so nobody could call; name a trust domain",
            ));
        }
        let mut callers = Vec::with_capacity(self.callers.len());
        for (index, name) in self.callers.iter().enumerate() {
            let field = format!("trust.callers[{index}]");
            let caller = trust_domain(&field, name)?;
            if !known.contains(&caller.to_string()) {
                return Err(problem(
                    field,
                    "has no bundle; add it under trust.federated",
                ));
            }
            if callers.contains(&caller) {
                return Err(problem(field, "is listed twice"));
            }
            callers.push(caller);
        }
        followed::known(&followed, &known)?;
        Ok(CheckedTrust {
            domain,
            bundles,
            callers,
            followed,
        })
    }
}

pub(super) fn models(sections: Vec<ModelSection>) -> Result<Vec<ModelConfig>, Problem> {
    if sections.is_empty() || sections.len() > MAX_MODELS {
        return Err(problem(
            "models",
            format!("must hold 1 to {MAX_MODELS} entries"),
        ));
    }
    let mut names = BTreeSet::new();
    let mut models = Vec::with_capacity(sections.len());
    for (index, section) in sections.into_iter().enumerate() {
        let field = |name: &str| format!("models[{index}].{name}");
        plain_name(&section.name).map_err(|text| problem(field("name"), text))?;
        plain_name(&section.package).map_err(|text| problem(field("package"), text))?;
        if !names.insert(section.name.clone()) {
            return Err(problem(
                field("name"),
                "is already taken by an earlier model",
            ));
        }
        if section.publishers.is_empty() {
            return Err(problem(
                field("publishers"),
                "is empty; give at least one public key PEM",
            ));
        }
        if section.min_epoch == 0 {
            return Err(problem(field("min_epoch"), "is 0; the first epoch is 1"));
        }
        let publishers = section
            .publishers
            .iter()
            .enumerate()
            .map(|(key, pem)| {
                PublisherKey::from_pem(pem)
                    .map_err(|error| problem(format!("models[{index}].publishers[{key}]"), error))
            })
            .collect::<Result<_, _>>()?;
        models.push(ModelConfig {
            name: section.name,
            source: section.source,
            package: section.package,
            publishers,
            min_epoch: section.min_epoch,
            check_segments: section.check_segments,
            quantize: section
                .quantize
                .map(|name| {
                    Quantize::named(&name)
                        .ok_or_else(|| problem(field("quantize"), "is neither q8_0 nor q4_k"))
                })
                .transpose()?,
            key: KeySource::check(section.kms_key_arn)
                .map_err(|error| problem(field("kms_key_arn"), error))?,
        });
    }
    Ok(models)
}

/// A name that is safe as a path segment, a key id segment and a metric label.
fn plain_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME_CHARS {
        Err(format!("must have 1 to {MAX_NAME_CHARS} characters"))
    } else if name.starts_with(['.', '-']) || !name.chars().all(plain) {
        Err(
            "may hold only letters, digits, '-', '_' and '.', and begins with none of '-' and '.'"
                .to_owned(),
        )
    } else {
        Ok(())
    }
}

pub(super) fn trust_domain(field: &str, name: &str) -> Result<TrustDomain, Problem> {
    TrustDomain::new(name).map_err(|error| problem(field, error))
}

pub(super) fn workload(field: &str, id: &str, domain: &TrustDomain) -> Result<SpiffeId, Problem> {
    let id = SpiffeId::new(id).map_err(|error| problem(field, error))?;
    if id.path().is_empty() || id.path() == "/" {
        return Err(problem(field, "has no path; a workload's ID needs one"));
    }
    if id.trust_domain_name() != domain.as_str() {
        return Err(problem(field, format!("is outside trust.domain {domain}")));
    }
    Ok(id)
}
