//! What an administrator does on the broker's own machine, straight in the store, whether or not the broker runs.
//!
//! The two-person rule holds here too, for whoever uses this program as it is configured. Who can write configuration
//! and database, and read the master key, needs neither: the rule stands against one administrator, not against the
//! machine's owner. What the owner does instead is seen in the log, or in its checkpoints.

mod appraisal;
mod upkeep;

use std::time::SystemTime;

use attestation::Sha256Digest;

use crate::api::is_resource_path;
use crate::config::Config;
use crate::error::Error;
use crate::policy;
pub use crate::store::Audited;
use crate::store::{self, COMMAND_LINE, Change, Facts, NewEntry, Outcome, Store, StoreError};

pub(crate) use appraisal::parse_references;
pub use appraisal::{
    delete_reference, jwks, references, remove_attestation_policy, set_attestation_policy,
    set_references,
};
pub use upkeep::{
    backup, export_log, log_key, read_log, restore, rotate_master_key, verify_export, verify_log,
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
    approved_put(config, path, value, &[], now)
}

/// As [`put_resource`], with the approvals that the two-person rule asks for.
///
/// # Errors
/// See [`Error`].
pub fn approved_put(
    config: &Config,
    path: &str,
    value: &[u8],
    approvals: &[String],
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
    let told = Told {
        outcome: Outcome::Stored,
        path,
        policy: None,
        reason: None,
    };
    make(
        config,
        Change::put_resource(path, value),
        told,
        approvals,
        now,
    )
}

/// Deletes what is under `path`.
///
/// # Errors
/// See [`Error`]; also when there is nothing.
pub fn delete_resource(
    config: &Config,
    path: &str,
    approvals: &[String],
    now: SystemTime,
) -> Result<(), Error> {
    let told = Told {
        outcome: Outcome::Deleted,
        path,
        policy: None,
        reason: None,
    };
    make(config, Change::delete_resource(path), told, approvals, now)
}

/// Replaces the resource policy; a running broker uses it from the next request on.
///
/// # Errors
/// See [`Error`]; also when the policy does not parse.
pub fn set_policy(
    config: &Config,
    text: &str,
    approvals: &[String],
    now: SystemTime,
) -> Result<(), Error> {
    policy::check(text).map_err(|error| Error::Usage(error.to_string()))?;
    let told = Told {
        outcome: Outcome::PolicySet,
        path: POLICY,
        policy: Some(text),
        reason: None,
    };
    make(config, Change::put_policy(text), told, approvals, now)
}

const POLICY: &str = "resource-policy";

/// At the first start, while there is none.
pub(crate) fn install_policy(
    store: &Store,
    text: &str,
    who: &str,
    now: SystemTime,
) -> Result<(), Error> {
    let told = Told {
        outcome: Outcome::PolicySet,
        path: POLICY,
        policy: Some(text),
        reason: None,
    };
    Ok(told.commit(
        store,
        Some(Change::put_policy(text)),
        Some(who.to_owned()),
        now,
    )?)
}

/// What the log is told.
pub(crate) struct Told<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) path: &'a str,
    /// The one that was set.
    pub(crate) policy: Option<&'a str>,
    pub(crate) reason: Option<&'a str>,
}

impl Told<'_> {
    pub(crate) fn commit(
        &self,
        store: &Store,
        change: Option<Change>,
        admin: Option<String>,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let policy = self.policy;
        let facts = Facts {
            policy_sha256: policy.map(|text| Sha256Digest::of(text.as_bytes())),
            admin,
            ..Facts::default()
        };
        let entry = NewEntry {
            outcome: self.outcome,
            error_type: None,
            path: self.path,
            facts: &facts,
            reason: self.reason,
        };
        store.commit(&entry, change, now).map(drop)
    }
}

/// Under the rule, two approvals; without it none, or one that is then used up.
fn make(
    config: &Config,
    change: Change,
    told: Told<'_>,
    approvals: &[String],
    now: SystemTime,
) -> Result<(), Error> {
    let admins = config.admin_keys()?;
    let (change, admin) = match approvals {
        [] if !admins.two_person() => (change, COMMAND_LINE.to_owned()),
        [] => {
            return Err(Error::Usage(format!(
                "the two-person rule is on: two administrators have to run `kbs approve` for this very change, then \
                 give both files with --approval (the change is {})",
                change.digest()
            )));
        }
        [first, rest @ ..] if rest.len() < 2 => {
            let second = rest.first().map(String::as_str);
            let approved = admins.authorize(Some(first), second, change.digest(), now);
            let approved = approved.map_err(|error| Error::Usage(format!("approval: {error}")))?;
            let admin = format!("{} on the {COMMAND_LINE}", approved.names);
            (change.approved(approved.approvals), admin)
        }
        _ => return Err(Error::Usage("two approvals are enough".to_owned())),
    };
    let made = told.commit(&open(config)?, Some(change), Some(admin), now);
    made.map_err(|error| match error {
        StoreError::Absent => Error::Usage(format!("{}: {error}", told.path)),
        StoreError::ApprovalUsed => Error::Usage(error.to_string()),
        error => error.into(),
    })
}

pub(crate) fn open(config: &Config) -> Result<Store, Error> {
    store::finish_rotation(&config.database, &config.master_key_file)?;
    let key = config.master_key()?;
    Ok(Store::open(&config.database, &key, config.checkpoints())?)
}

fn inspect(config: &Config) -> Result<Store, Error> {
    store::finish_rotation(&config.database, &config.master_key_file)?;
    Ok(Store::inspect(&config.database, &config.master_key()?)?)
}
