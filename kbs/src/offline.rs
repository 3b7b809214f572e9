//! What an administrator does on the broker's own machine, straight in the store, whether or not the broker runs.

use std::time::SystemTime;

use crate::api::{digest, is_reference_id, is_resource_path};
use crate::appraisal::References;
use crate::config::Config;
use crate::error::Error;
use crate::policy;
use crate::store::{Facts, NewEntry, Outcome, Record, Store};

/// Stores `value` under `path` (`<repository>/<type>/<tag>`), replacing what was there.
///
/// # Errors
/// See [`Error`].
pub fn put_resource(
    config: &Config,
    path: &str,
    value: &[u8],
    now: SystemTime,
) -> Result<(), Error> {
    if !is_resource_path(path) {
        return Err(Error::Usage(format!(
            "`{path}` is not <repository>/<type>/<tag>"
        )));
    }
    if value.is_empty() {
        return Err(Error::Usage("the resource is empty".to_owned()));
    }
    let store = open(config)?;
    store.put_resource(path, value)?;
    log(&store, Outcome::Stored, path, "on the command line", now)
}

/// Deletes what is under `path`.
///
/// # Errors
/// See [`Error`]; also when there is nothing.
pub fn delete_resource(config: &Config, path: &str, now: SystemTime) -> Result<(), Error> {
    let store = open(config)?;
    if !store.delete_resource(path)? {
        return Err(Error::Usage(format!("there is no resource `{path}`")));
    }
    log(&store, Outcome::Deleted, path, "on the command line", now)
}

/// Replaces the resource policy; a running broker uses it from the next request on.
///
/// # Errors
/// See [`Error`]; also when the policy does not parse.
pub fn set_policy(config: &Config, text: &str, now: SystemTime) -> Result<(), Error> {
    policy::check(text).map_err(|error| Error::Usage(error.to_string()))?;
    install_policy(&open(config)?, text, "on the command line", now)
}

pub(crate) fn install_policy(
    store: &Store,
    text: &str,
    how: &str,
    now: SystemTime,
) -> Result<(), Error> {
    store.put_policy(text)?;
    let sha256 = attestation::Sha256Digest::of(text.as_bytes());
    let reason = format!("{how}, sha256 {sha256}");
    log(store, Outcome::PolicySet, "resource-policy", &reason, now)
}

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

/// Hands over every entry of the release log, oldest first, checking the chain on the way.
///
/// # Errors
/// See [`Error`]; also when the chain is broken.
pub fn read_log(config: &Config, each: impl FnMut(&Record)) -> Result<(), Error> {
    Ok(open(config)?.read_log(each)?)
}

fn open(config: &Config) -> Result<Store, Error> {
    Ok(Store::open(&config.database, &config.master_key()?)?)
}

fn log(
    store: &Store,
    outcome: Outcome,
    path: &str,
    reason: &str,
    now: SystemTime,
) -> Result<(), Error> {
    let entry = NewEntry {
        outcome,
        error_type: None,
        path,
        facts: &Facts::default(),
        reason: Some(reason),
    };
    store.log(&entry, now)?;
    Ok(())
}
