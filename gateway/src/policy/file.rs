//! The policy file: TOML, of one format and version, with a JSON Schema for editors.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use attestation::{Pcr, ReferenceValues, Sha256Digest, TrustAnchor};
use identity::SpiffeId;
use serde::Deserialize;

use super::{Fleet, ModelRule, Policy, PolicyError, ServerIds};

/// What a policy file has to say it is.
pub const FORMAT: &str = "cloister-gateway-policy/1";

/// JSON Schema (2020-12) of the file, for editors and for whoever generates policies.
pub const SCHEMA: &str = include_str!("../../policy.schema.json");

/// The word for the AWS root; anything else is a path.
const AWS_NITRO: &str = "aws-nitro";
/// A policy of dozens of images takes a tenth of it.
const MAX_BYTES: u64 = 256 << 10;

/// A policy file that cannot be used: one line that names the file, the place and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFileError {
    #[error("{path}: cannot be read: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path}: larger than {MAX_BYTES} bytes")]
    TooLarge { path: String },
    #[error("{path}: line {line}: {message}")]
    Syntax {
        path: String,
        line: usize,
        message: String,
    },
    #[error("{path}: format is \"{found}\"; this gateway knows \"{FORMAT}\"")]
    Format { path: String, found: String },
    #[error("{path}: {field}: {problem}")]
    Field {
        path: String,
        field: &'static str,
        problem: String,
    },
    #[error("{path}: {source}")]
    Policy { path: String, source: PolicyError },
}

/// Looked at first, so that a later format is refused as such and not for its first unknown field.
#[derive(Deserialize)]
struct Head {
    format: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(rename = "format")]
    _format: String,
    serial: u64,
    server_ids: Vec<String>,
    trust_anchor: String,
    images: ReferenceValues,
    config_digests: Vec<Sha256Digest>,
    #[serde(default = "default_max_age")]
    max_age_s: u64,
    #[serde(default = "default_reattest")]
    reattest_s: u64,
    #[serde(default)]
    fleet: FleetTable,
    models: Vec<ModelTable>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FleetTable {
    roles: Vec<String>,
    instances: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelTable {
    name: String,
    min_epoch: u64,
    manifest_sha256: Option<Sha256Digest>,
    #[serde(default)]
    publishers: Vec<Sha256Digest>,
}

fn default_max_age() -> u64 {
    300
}

fn default_reattest() -> u64 {
    600
}

/// Reads and checks a policy file. Paths in it are relative to the file.
///
/// # Errors
/// [`PolicyFileError`]; what is returned can be enforced as it is.
pub fn load(path: &Path) -> Result<Policy, PolicyFileError> {
    let shown = path.display().to_string();
    let text = read(path, &shown)?;
    let syntax = |error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        PolicyFileError::Syntax {
            path: shown.clone(),
            line: before.map_or(1, |before| before.matches('\n').count().saturating_add(1)),
            message: error.message().replace('\n', "; "),
        }
    };
    let head: Head = toml::from_str(&text).map_err(syntax)?;
    if head.format != FORMAT {
        return Err(PolicyFileError::Format {
            path: shown,
            found: head.format.escape_debug().take(64).collect(),
        });
    }
    let body: Body = toml::from_str(&text).map_err(syntax)?;
    let policy = body
        .check(path.parent().unwrap_or(Path::new(".")))
        .map_err(|(field, problem)| PolicyFileError::Field {
            path: shown.clone(),
            field,
            problem,
        })?;
    match policy.validate() {
        Ok(()) => Ok(policy),
        Err(source) => Err(PolicyFileError::Policy {
            path: shown,
            source,
        }),
    }
}

fn read(path: &Path, shown: &str) -> Result<String, PolicyFileError> {
    let unreadable = |source| PolicyFileError::Read {
        path: shown.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    let read = file
        .take(MAX_BYTES.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if read as u64 > MAX_BYTES {
        return Err(PolicyFileError::TooLarge {
            path: shown.to_owned(),
        });
    }
    Ok(text)
}

type Problem = (&'static str, String);

impl Body {
    fn check(self, dir: &Path) -> Result<Policy, Problem> {
        let server_ids = self.server_ids.iter().map(|text| {
            SpiffeId::new(text).map_err(|error| ("server_ids", format!("{text:?}: {error}")))
        });
        let server_ids = server_ids.collect::<Result<_, _>>()?;
        let models = self.models.into_iter().map(|model| ModelRule {
            name: model.name,
            min_epoch: model.min_epoch,
            manifest_sha256: model.manifest_sha256,
            publishers: model.publishers,
        });
        Ok(Policy {
            serial: self.serial,
            server_ids: ServerIds::try_new(server_ids)
                .map_err(|error| ("server_ids", error.to_string()))?,
            trust_anchor: trust_anchor(&self.trust_anchor, dir)?,
            images: self.images,
            fleet: self.fleet.check()?,
            config_digests: self.config_digests,
            models: models.collect(),
            max_age: Duration::from_secs(self.max_age_s),
            reattest: Duration::from_secs(self.reattest_s),
        })
    }
}

impl FleetTable {
    fn check(self) -> Result<Fleet, Problem> {
        let pins = |field, texts: Vec<String>, shape: fn(&str) -> bool, fix| {
            let pin = |text: &String| match shape(text) {
                true => Ok(parent_register(text)),
                false => Err((field, format!("{text:?}: {fix}"))),
            };
            texts.iter().map(pin).collect::<Result<Vec<_>, Problem>>()
        };
        Ok(Fleet {
            roles: pins(
                "fleet.roles",
                self.roles,
                is_role_arn,
                "write the role's own ARN, as in arn:aws:iam::123456789012:role/enclaves",
            )?,
            instances: pins(
                "fleet.instances",
                self.instances,
                |text| text.starts_with("i-"),
                "write an instance ID, as in i-0123456789abcdef0",
            )?,
        })
    }
}

/// Neither an instance profile's nor an assumed role's: those never are in PCR3.
fn is_role_arn(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    parts.next() == Some("arn")
        && parts.nth(1) == Some("iam")
        && parts
            .nth(2)
            .is_some_and(|resource| resource.starts_with("role/"))
}

/// PCR3 and PCR4 are a register of zeros extended with the text itself (AWS Nitro Enclaves, "Where to get an enclave's
/// measurements").
fn parent_register(text: &str) -> Pcr {
    Pcr::ZERO.extend(text.as_bytes())
}

fn trust_anchor(text: &str, dir: &Path) -> Result<TrustAnchor, Problem> {
    const FIELD: &str = "trust_anchor";
    if text == AWS_NITRO {
        return Ok(TrustAnchor::aws_nitro());
    }
    let path = dir.join(text);
    let problem = |error: &dyn std::fmt::Display| {
        let fix = format!("write \"{AWS_NITRO}\" or the path of a root certificate in PEM");
        (FIELD, format!("{}: {error}; {fix}", path.display()))
    };
    let pem = std::fs::read(&path).map_err(|error| problem(&error))?;
    TrustAnchor::from_pem(&pem).map_err(|error| problem(&error))
}

#[cfg(test)]
mod tests;
