//! The resource policy: Rego, `data.policy.allow` must be `true` and nothing else.
//!
//! `input` is the token's claims, `data` is `{"plugin":"resource","resource-path":[…],"query":{…}}`. The engine has no
//! built-in that reaches a network, a file or a clock.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Mutex;
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, PolicyLengthConfig, Value};

use crate::token::Claims;

/// Installed when there is no other.
pub(crate) const DENY_ALL: &str = "package policy\n\ndefault allow := false\n";

/// A policy lists images and keys; a thousand of each fit.
pub(crate) const MAX_POLICY: usize = 512 * 1024;
/// Lists of keys are often written on one line.
const MAX_COLUMNS: NonZeroU32 = NonZeroU32::new(64 * 1024).unwrap();
const MAX_BYTES: NonZeroUsize = NonZeroUsize::new(MAX_POLICY).unwrap();
const MAX_LINES: NonZeroUsize = NonZeroUsize::new(20_000).unwrap();
/// Measured at under a millisecond for a policy of ten images; the rest is for a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(1);
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

/// Evaluates policies and keeps the last one parsed.
#[derive(Default)]
pub(crate) struct PolicyEngine {
    parsed: Mutex<Option<(String, Engine)>>,
}

impl PolicyEngine {
    pub(crate) fn allows(
        &self,
        policy: &str,
        claims: &Claims,
        question: &Question<'_>,
    ) -> Result<bool, PolicyError> {
        let mut engine = self.engine(policy)?;
        let failed = |error: &dyn std::fmt::Display| PolicyError::Evaluate(one_line(error));
        let input = serde_json::to_value(claims).map_err(|error| failed(&error))?;
        let data = serde_json::json!({
            "plugin": "resource",
            "resource-path": question.path,
            "query": question.query,
        });
        engine
            .add_data(Value::from(data))
            .map_err(|error| failed(&error))?;
        engine.set_input(Value::from(input));
        let results = engine
            .eval_query("data.policy.allow".to_owned(), false)
            .map_err(|error| failed(&error))?;
        // Undefined gives no result; anything but one `true` is a no.
        let [result] = results.result.as_slice() else {
            return Ok(false);
        };
        let [expression] = result.expressions.as_slice() else {
            return Ok(false);
        };
        Ok(expression.value == Value::from(true))
    }

    /// A copy to evaluate once: what one evaluation leaves behind must not reach the next.
    fn engine(&self, policy: &str) -> Result<Engine, PolicyError> {
        let mut parsed = self
            .parsed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
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
