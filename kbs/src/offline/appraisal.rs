//! The attestation policy, its reference values, and the keys of tokens.

use std::time::SystemTime;

use super::{Told, inspect, make};
use crate::api::is_reference_id;
use crate::appraisal::References;
use crate::config::Config;
use crate::error::Error;
use crate::policy;
use crate::store::{self, Change, Outcome};

const ATTESTATION_POLICY: &str = "attestation-policy";
const REFERENCE_VALUE: &str = "reference-value";

/// Replaces the attestation policy; a running broker uses it from the next request on.
///
/// # Errors
/// See [`Error`]; also when the policy does not parse.
pub fn set_attestation_policy(
    config: &Config,
    text: &str,
    approvals: &[String],
    now: SystemTime,
) -> Result<(), Error> {
    policy::check(text).map_err(|error| Error::Usage(error.to_string()))?;
    let told = Told {
        outcome: Outcome::PolicySet,
        path: ATTESTATION_POLICY,
        policy: Some(text),
        reason: None,
    };
    make(
        config,
        Change::put_attestation_policy(text),
        told,
        approvals,
        now,
    )
}

/// Removes the attestation policy: tokens carry no trust claims any more.
///
/// # Errors
/// See [`Error`]; also when there is none.
pub fn remove_attestation_policy(
    config: &Config,
    approvals: &[String],
    now: SystemTime,
) -> Result<(), Error> {
    let told = Told {
        outcome: Outcome::PolicySet,
        path: ATTESTATION_POLICY,
        policy: None,
        reason: Some("removed"),
    };
    make(
        config,
        Change::delete_attestation_policy(),
        told,
        approvals,
        now,
    )
}

/// Sets reference values, from a JSON object of them; others stay as they are.
///
/// # Errors
/// See [`Error`]; also when `json` is no such object.
pub fn set_references(
    config: &Config,
    json: &str,
    approvals: &[String],
    now: SystemTime,
) -> Result<(), Error> {
    let values = parse_references(json)?;
    let reason = format!(
        "{} values, sha256 {}",
        values.len(),
        store::references_digest(&values)
    );
    let told = Told {
        outcome: Outcome::ReferenceSet,
        path: REFERENCE_VALUE,
        policy: None,
        reason: Some(&reason),
    };
    make(config, Change::set_references(values), told, approvals, now)
}

/// Deletes one reference value.
///
/// # Errors
/// See [`Error`]; also when there is none of this ID.
pub fn delete_reference(
    config: &Config,
    id: &str,
    approvals: &[String],
    now: SystemTime,
) -> Result<(), Error> {
    let reason = format!("deleted: {id}");
    let told = Told {
        outcome: Outcome::ReferenceSet,
        path: REFERENCE_VALUE,
        policy: None,
        reason: Some(&reason),
    };
    make(config, Change::delete_reference(id), told, approvals, now)
}

/// Reference values from a JSON object of them.
///
/// # Errors
/// It is none, or names one by an ID that cannot be asked for.
pub(crate) fn parse_references(json: &str) -> Result<References, Error> {
    let values: References = serde_json::from_str(json)
        .map_err(|error| Error::Usage(format!("not a JSON object of reference values: {error}")))?;
    if let Some(id) = values.keys().find(|id| !is_reference_id(id)) {
        return Err(Error::Usage(format!(
            "`{id}` is no ID of a reference value: 1 to 256 of a-z A-Z 0-9 _ - . : /"
        )));
    }
    if values.is_empty() {
        return Err(Error::Usage("there is no value in it".to_owned()));
    }
    Ok(values)
}

/// All reference values, as a JSON object.
///
/// # Errors
/// See [`Error`].
pub fn references(config: &Config) -> Result<serde_json::Value, Error> {
    Ok(serde_json::Value::Object(inspect(config)?.references()?))
}

/// The published keys of tokens (RFC 7517), as JSON: what `/.well-known/jwks.json` answers.
///
/// # Errors
/// See [`Error`]; also when no key is configured: then there is one for each run of the broker.
pub fn jwks(config: &Config) -> Result<String, Error> {
    if config.token.is_none() {
        return Err(Error::Usage(
            "no [token] key is configured: each start of the broker makes its own, which only its \
             /.well-known/jwks.json tells"
                .to_owned(),
        ));
    }
    Ok(serde_json::to_string_pretty(config.token_signer()?.jwks()).unwrap_or_default())
}
