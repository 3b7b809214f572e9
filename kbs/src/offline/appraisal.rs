//! The attestation policy, its reference values, and the keys of tokens.

use std::time::SystemTime;

use super::{log, open};
use crate::api::{digest, is_reference_id};
use crate::appraisal::References;
use crate::config::Config;
use crate::error::Error;
use crate::policy;
use crate::store::Outcome;

/// Replaces the attestation policy; a running broker uses it from the next request on.
///
/// # Errors
/// See [`Error`]; also when the policy does not parse.
pub fn set_attestation_policy(config: &Config, text: &str, now: SystemTime) -> Result<(), Error> {
    policy::check(text).map_err(|error| Error::Usage(error.to_string()))?;
    let store = open(config)?;
    store.put_attestation_policy(text)?;
    let sha256 = attestation::Sha256Digest::of(text.as_bytes());
    let reason = format!("on the command line, sha256 {sha256}");
    log(
        &store,
        Outcome::PolicySet,
        "attestation-policy",
        &reason,
        now,
    )
}

/// Removes the attestation policy: tokens carry no trust claims any more.
///
/// # Errors
/// See [`Error`]; also when there is none.
pub fn remove_attestation_policy(config: &Config, now: SystemTime) -> Result<(), Error> {
    let store = open(config)?;
    if !store.delete_attestation_policy()? {
        return Err(Error::Usage("there is no attestation policy".to_owned()));
    }
    let reason = "removed on the command line";
    log(
        &store,
        Outcome::PolicySet,
        "attestation-policy",
        reason,
        now,
    )
}

/// Sets reference values, from a JSON object of them; others stay as they are.
///
/// # Errors
/// See [`Error`]; also when `json` is no such object.
pub fn set_references(config: &Config, json: &str, now: SystemTime) -> Result<(), Error> {
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
    let store = open(config)?;
    let reason = format!(
        "on the command line, {} values, sha256 {}",
        values.len(),
        digest(&values)
    );
    store.change_references(|references| {
        references.extend(values);
        true
    })?;
    log(
        &store,
        Outcome::ReferenceSet,
        "reference-value",
        &reason,
        now,
    )
}

/// Deletes one reference value.
///
/// # Errors
/// See [`Error`]; also when there is none of this ID.
pub fn delete_reference(config: &Config, id: &str, now: SystemTime) -> Result<(), Error> {
    let store = open(config)?;
    if !store.change_references(|references| references.shift_remove(id).is_some())? {
        return Err(Error::Usage(format!("there is no reference value `{id}`")));
    }
    let reason = format!("deleted on the command line: {id}");
    log(
        &store,
        Outcome::ReferenceSet,
        "reference-value",
        &reason,
        now,
    )
}

/// All reference values, as a JSON object.
///
/// # Errors
/// See [`Error`].
pub fn references(config: &Config) -> Result<serde_json::Value, Error> {
    Ok(serde_json::Value::Object(open(config)?.references()?))
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
