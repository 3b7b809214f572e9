//! Key policies: the part of the language that decides about enclaves. What is outside it is refused when a policy is read, so
//! that a policy never means less here than on AWS.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// A policy of this part of the language.
#[derive(Debug, Clone)]
pub struct KeyPolicy(Vec<Statement>);

/// What a policy says to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Allowed,
    /// A statement denies it.
    Denied,
    /// No statement allows it.
    NotAllowed,
}

/// What is not understood, and therefore not simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key policy: {0}")]
pub struct PolicyError(String);

#[derive(Debug, Clone)]
struct Statement {
    allows: bool,
    principals: Vec<String>,
    actions: Vec<String>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone)]
struct Condition {
    operator: Operator,
    key: String,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Equals { negated: bool, ignore_case: bool },
    Like { negated: bool },
    Null,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Document {
    version: String,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Written {
    #[serde(rename = "Sid")]
    _sid: Option<String>,
    effect: String,
    principal: Value,
    action: Value,
    resource: Value,
    #[serde(default)]
    condition: Map<String, Value>,
}

impl KeyPolicy {
    /// # Errors
    /// Names what this part of the language does not have.
    pub fn parse(policy: &Value) -> Result<Self, PolicyError> {
        let document =
            Document::deserialize(policy).map_err(|error| PolicyError(error.to_string()))?;
        if document.version != "2012-10-17" {
            return Err(PolicyError(format!("version {}", document.version)));
        }
        let statements = document.statement.into_iter().map(Statement::read);
        Ok(Self(statements.collect::<Result<_, _>>()?))
    }

    /// A statement that denies wins over all that allow.
    pub(super) fn decide(
        &self,
        action: &str,
        principal: &str,
        facts: &BTreeMap<String, String>,
    ) -> Decision {
        let mut decision = Decision::NotAllowed;
        for statement in &self.0 {
            if statement.applies(action, principal, facts) {
                if !statement.allows {
                    return Decision::Denied;
                }
                decision = Decision::Allowed;
            }
        }
        decision
    }
}

impl Statement {
    fn read(written: Written) -> Result<Self, PolicyError> {
        let allows = match written.effect.as_str() {
            "Allow" => true,
            "Deny" => false,
            other => return Err(PolicyError(format!("effect {other}"))),
        };
        let principals = match &written.principal {
            Value::Object(map) if map.len() == 1 => match map.get("AWS") {
                Some(principals) => strings(principals)?,
                None => return Err(PolicyError("a principal that is not AWS".to_owned())),
            },
            other => strings(other)?,
        };
        if let Some(root) = principals
            .iter()
            .find(|principal| principal.ends_with(":root"))
        {
            return Err(PolicyError(format!(
                "{root} hands the decision to IAM policies, which are not simulated"
            )));
        }
        if strings(&written.resource)? != ["*"] {
            return Err(PolicyError("a resource other than *".to_owned()));
        }
        let mut conditions = Vec::new();
        for (operator, keys) in &written.condition {
            let operator = Operator::read(operator)?;
            let Value::Object(keys) = keys else {
                return Err(PolicyError("a condition that is no object".to_owned()));
            };
            for (key, values) in keys {
                known(key)?;
                conditions.push(Condition {
                    operator,
                    key: key.to_ascii_lowercase(),
                    values: strings(values)?,
                });
            }
        }
        Ok(Self {
            allows,
            principals,
            actions: strings(&written.action)?,
            conditions,
        })
    }

    fn applies(&self, action: &str, principal: &str, facts: &BTreeMap<String, String>) -> bool {
        self.principals.iter().any(|p| p == "*" || p == principal)
            && self
                .actions
                .iter()
                .any(|pattern| like(&pattern.to_ascii_lowercase(), &action.to_ascii_lowercase()))
            && self
                .conditions
                .iter()
                .all(|condition| condition.holds(facts))
    }
}

impl Operator {
    fn read(name: &str) -> Result<Self, PolicyError> {
        let equals = |negated, ignore_case| Self::Equals {
            negated,
            ignore_case,
        };
        Ok(match name {
            "StringEquals" => equals(false, false),
            "StringNotEquals" => equals(true, false),
            "StringEqualsIgnoreCase" => equals(false, true),
            "StringNotEqualsIgnoreCase" => equals(true, true),
            "StringLike" => Self::Like { negated: false },
            "StringNotLike" => Self::Like { negated: true },
            "Null" => Self::Null,
            other => return Err(PolicyError(format!("operator {other}"))),
        })
    }
}

impl Condition {
    /// Several values are alternatives. A negated operator also holds where the key is absent from the request.
    fn holds(&self, facts: &BTreeMap<String, String>) -> bool {
        let actual = facts.get(&self.key);
        let any = |test: &dyn Fn(&str, &str) -> bool| {
            actual.is_some_and(|actual| self.values.iter().any(|value| test(value, actual)))
        };
        match self.operator {
            Operator::Equals {
                negated,
                ignore_case: false,
            } => any(&|value, actual| value == actual) != negated,
            Operator::Equals {
                negated,
                ignore_case: true,
            } => any(&|value, actual| value.eq_ignore_ascii_case(actual)) != negated,
            Operator::Like { negated } => any(&like) != negated,
            Operator::Null => self
                .values
                .iter()
                .any(|value| (value == "true") == actual.is_none()),
        }
    }
}

/// Condition keys that a request here can have. Names are compared without case, as AWS does.
fn known(key: &str) -> Result<(), PolicyError> {
    let lower = key.to_ascii_lowercase();
    let register = |text: &str| text.parse::<u8>().is_ok_and(|index| index < 32);
    let known = lower == "aws:principalarn"
        || lower
            .strip_prefix("kms:encryptioncontext:")
            .is_some_and(|name| !name.is_empty())
        || lower
            .strip_prefix("kms:recipientattestation:")
            .is_some_and(|name| {
                name == "imagesha384" || name.strip_prefix("pcr").is_some_and(register)
            });
    match known {
        true => Ok(()),
        false => Err(PolicyError(format!("condition key {key}"))),
    }
}

/// One string or several.
fn strings(value: &Value) -> Result<Vec<String>, PolicyError> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        other => Err(PolicyError(format!("{other} where a string belongs"))),
    };
    match value {
        Value::Array(values) => values.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

/// `*` stands for any characters, `?` for one.
fn like(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    loop {
        match pattern.next() {
            None => return text.next().is_none(),
            Some('*') => {
                let rest = pattern.as_str();
                let mut tail = text.as_str();
                loop {
                    if like(rest, tail) {
                        return true;
                    }
                    let mut chars = tail.chars();
                    if chars.next().is_none() {
                        return false;
                    }
                    tail = chars.as_str();
                }
            }
            Some('?') if text.next().is_some() => {}
            Some(c) if text.next() == Some(c) => {}
            Some(_) => return false,
        }
    }
}
