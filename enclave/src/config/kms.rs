//! `[kms]`: AWS KMS as a source of models' keys.

use kms_client::{KeyArn, Roots};
use serde::Deserialize;
use transport::Endpoint;

use super::{ModelConfig, Problem, problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KmsSection {
    endpoint: Endpoint,
    credentials: Endpoint,
    roots: Option<String>,
}

/// AWS KMS: reached through the host, known by its name under these roots.
pub struct KmsAddress {
    /// Where the host forwards to the service of the keys' region.
    pub endpoint: Endpoint,
    /// Where the host hands out AWS credentials. They need not be secret from it: the key's policy is the gate.
    pub credentials: Endpoint,
    /// Amazon's own, unless the file names others.
    pub roots: Roots,
}

/// Who releases a model's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The key broker.
    Broker,
    /// AWS KMS, with this key.
    Kms(KeyArn),
}

impl KeySource {
    pub(super) fn check(arn: Option<String>) -> Result<Self, kms_client::ArnError> {
        match arn {
            None => Ok(Self::Broker),
            Some(arn) => arn.parse().map(Self::Kms),
        }
    }
}

impl KmsSection {
    /// A way to KMS without a key there is a mistake, and so is a key without a way.
    pub(super) fn check(
        section: Option<Self>,
        models: &[ModelConfig],
    ) -> Result<Option<KmsAddress>, Problem> {
        let mut region = None;
        for (index, model) in models.iter().enumerate() {
            let KeySource::Kms(arn) = &model.key else {
                continue;
            };
            let first = *region.get_or_insert(arn.region());
            if first != arn.region() {
                return Err(problem(
                    format!("models[{index}].kms_key_arn"),
                    format!(
                        "is in region {}, an earlier model's in {first}; kms.endpoint leads to one region",
                        arn.region()
                    ),
                ));
            }
        }
        match (section, region) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(problem(
                "kms",
                "is missing, and a model has kms_key_arn; give kms.endpoint and kms.credentials",
            )),
            (Some(_), None) => Err(problem(
                "kms",
                "is used by no model; give one kms_key_arn, or remove the section",
            )),
            (Some(section), Some(_)) => {
                if section.endpoint == section.credentials {
                    return Err(problem(
                        "kms.credentials",
                        "is the same endpoint as kms.endpoint",
                    ));
                }
                let roots = match &section.roots {
                    None => Roots::amazon(),
                    Some(pem) => Roots::from_pem(pem),
                };
                Ok(Some(KmsAddress {
                    endpoint: section.endpoint,
                    credentials: section.credentials,
                    roots: roots.map_err(|error| problem("kms.roots", error))?,
                }))
            }
        }
    }
}
