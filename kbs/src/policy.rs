//! The resource policy: Rego, `data.policy.allow` must be `true` and nothing else.
//!
//! `input` is the token's claims, `data` is `{"plugin":"resource","resource-path":[…],"query":{…}}`. A policy may say
//! why it denies, in `data.policy.reasons`, a set of strings. The engine has no built-in that reaches a network, a file
//! or a clock.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, PolicyLengthConfig, Value};
use serde::Serialize;

/// Installed when there is no other.
pub(crate) const DENY_ALL: &str = include_str!("../policies/deny-all.rego");

/// A policy lists images and keys; a thousand of each fit.
pub(crate) const MAX_POLICY: usize = 512 * 1024;
/// Lists of keys are often written on one line.
const MAX_COLUMNS: NonZeroU32 = NonZeroU32::new(64 * 1024).unwrap();
const MAX_BYTES: NonZeroUsize = NonZeroUsize::new(MAX_POLICY).unwrap();
const MAX_LINES: NonZeroUsize = NonZeroUsize::new(20_000).unwrap();
/// Measured at under a millisecond for a policy of ten images; the rest is for a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(1);
/// What an entry of the release log has room for, and more.
const MAX_REASONS: usize = 16;
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::new(64).unwrap();

#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    /// With the engine's message, which quotes the policy; for its author only.
    #[error("the policy does not parse: {0}")]
    Parse(String),
    #[error("the policy's package is {0}, it has to be `policy`")]
    Package(String),
    #[error("the policy failed: {0}")]
    Evaluate(String),
}

/// The resource that is asked for.
pub(crate) struct Question<'a> {
    pub(crate) path: &'a [&'a str],
    pub(crate) query: &'a HashMap<String, String>,
}

impl PolicyError {
    pub(crate) fn evaluate(error: &dyn std::fmt::Display) -> Self {
        Self::Evaluate(one_line(error))
    }
}

/// What a policy decided.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Allowed,
    /// With the policy's own `data.policy.reasons`, if it gives any; for the operator only.
    Denied(Vec<String>),
}

/// Evaluates policies and keeps the last one parsed, of each kind.
#[derive(Default)]
pub(crate) struct PolicyEngine {
    resource: Parsed,
    attestation: Parsed,
}

#[derive(Default)]
struct Parsed(Mutex<Option<(String, Engine)>>);

impl PolicyEngine {
    /// Asks the resource policy. `input` is the token's claims.
    pub(crate) fn decide(
        &self,
        policy: &str,
        input: &impl Serialize,
        question: &Question<'_>,
    ) -> Result<Decision, PolicyError> {
        let mut engine = self.resource(policy, input, question)?;
        // Anything but one `true` is a no.
        if value(&mut engine, "data.policy.allow")? == Some(Value::from(true)) {
            return Ok(Decision::Allowed);
        }
        let reasons = value(&mut engine, "data.policy.reasons")?;
        Ok(Decision::Denied(
            reasons.as_ref().map_or_else(Vec::new, strings),
        ))
    }

    /// Every rule of the resource policy with its value, as JSON: what a dry run shows.
    pub(crate) fn rules(
        &self,
        policy: &str,
        input: &impl Serialize,
        question: &Question<'_>,
    ) -> Result<serde_json::Value, PolicyError> {
        let mut engine = self.resource(policy, input, question)?;
        let rules = value(&mut engine, "data.policy")?.unwrap_or(Value::Undefined);
        serde_json::to_value(&rules).map_err(|error| PolicyError::evaluate(&error))
    }

    fn resource(
        &self,
        policy: &str,
        input: &impl Serialize,
        question: &Question<'_>,
    ) -> Result<Engine, PolicyError> {
        let mut engine = self.resource.engine(policy)?;
        let input = serde_json::to_value(input).map_err(|error| PolicyError::evaluate(&error))?;
        let data = serde_json::json!({
            "plugin": "resource",
            "resource-path": question.path,
            "query": question.query,
        });
        engine
            .add_data(Value::from(data))
            .map_err(|error| PolicyError::evaluate(&error))?;
        engine.set_input(Value::from(input));
        Ok(engine)
    }

    /// A copy of the attestation policy to evaluate once; see [`crate::appraisal`].
    pub(crate) fn attestation(&self, policy: &str) -> Result<Engine, PolicyError> {
        self.attestation.engine(policy)
    }
}

impl Parsed {
    /// A copy to evaluate once: what one evaluation leaves behind must not reach the next.
    fn engine(&self, policy: &str) -> Result<Engine, PolicyError> {
        let mut parsed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((text, engine)) = parsed.as_ref()
            && text == policy
        {
            return Ok(engine.clone());
        }
        let engine = parse(policy)?;
        *parsed = Some((policy.to_owned(), engine.clone()));
        Ok(engine)
    }
}

/// The one value of a rule, or none where it is undefined.
pub(crate) fn value(engine: &mut Engine, rule: &str) -> Result<Option<Value>, PolicyError> {
    let results = engine
        .eval_query(rule.to_owned(), false)
        .map_err(|error| PolicyError::evaluate(&error))?;
    let [result] = results.result.as_slice() else {
        return Ok(None);
    };
    let [expression] = result.expressions.as_slice() else {
        return Ok(None);
    };
    Ok((expression.value != Value::Undefined).then(|| expression.value.clone()))
}

fn strings(value: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.to_string()),
        _ => None,
    };
    match value {
        Value::Set(items) => items.iter().filter_map(text).take(MAX_REASONS).collect(),
        Value::Array(items) => items.iter().filter_map(text).take(MAX_REASONS).collect(),
        _ => Vec::new(),
    }
}

/// Whether `policy` can be installed.
pub(crate) fn check(policy: &str) -> Result<(), PolicyError> {
    parse(policy).map(drop)
}

fn parse(policy: &str) -> Result<Engine, PolicyError> {
    let mut engine = Engine::new();
    engine.set_policy_length_config(PolicyLengthConfig {
        max_col: MAX_COLUMNS,
        max_file_bytes: MAX_BYTES,
        max_lines: MAX_LINES,
    });
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit: TIME_LIMIT,
        check_interval: CHECK_INTERVAL,
    });
    let package = engine
        .add_policy("policy.rego".to_owned(), policy.to_owned())
        .map_err(|error| PolicyError::Parse(one_line(&error)))?;
    // In any other package the rule would never be found, and everything silently denied.
    if package != "data.policy" {
        return Err(PolicyError::Package(
            package.trim_start_matches("data.").to_owned(),
        ));
    }
    Ok(engine)
}

/// The engine draws the place in the source over several lines.
fn one_line(error: &dyn std::fmt::Display) -> String {
    error
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests;
