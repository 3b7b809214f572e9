//! What an administrator does on the broker's own machine, straight in the store, whether or not the broker runs.

mod appraisal;

use std::time::SystemTime;

use crate::api::is_resource_path;
use crate::config::Config;
use crate::error::Error;
use crate::policy;
use crate::store::{Facts, NewEntry, Outcome, Record, Store};

pub use appraisal::{
    delete_reference, jwks, references, remove_attestation_policy, set_attestation_policy,
    set_references,
};

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
