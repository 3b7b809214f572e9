//! The attestation policy: Rego that turns evidence and reference values into AR4SI trust claims
//! (draft-ietf-rats-ar4si), which the token carries as an EAR appraisal (draft-fv-rats-ear).
//!
//! `input` is `{"aws-nitro": <what evidence said>, "runtime_data_claims": {"nonce","tee-pubkey"}}`;
//! `query_reference_value("<id>")` is a stored value, or null. `data.policy.trust_claims` has to be an object of known
//! claims, `data.policy.extensions` may be a list of `{"name","key","value"}`.

use std::collections::BTreeMap;
use std::fmt;

use regorus::Value;
use serde::{Deserialize, Serialize};

use crate::policy::{PolicyEngine, PolicyError, value};
use crate::tee_key::TeePublicKey;

/// The one that is asked: stock tools set it under this name, class `cpu` of the policy `default`.
pub(crate) const POLICY_ID: &str = "default_cpu";
/// What a policy calls to see a reference value.
pub(crate) const QUERY: &str = "query_reference_value";

/// Reference values by their IDs.
pub(crate) type References = serde_json::Map<String, serde_json::Value>;

/// AR4SI's claims, as EAR spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TrustClaim {
    InstanceIdentity,
    Configuration,
    Executables,
    FileSystem,
    Hardware,
    RuntimeOpaque,
    StorageOpaque,
    SourcedData,
}

/// A tier of AR4SI, from the one that says nothing to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    None,
    Affirming,
    Warning,
    Contraindicated,
}

impl Status {
    fn of(claim: i8) -> Self {
        match claim {
            -1..=1 => Self::None,
            -32..=31 => Self::Affirming,
            -96..=95 => Self::Warning,
            _ => Self::Contraindicated,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
        })
    }
}

/// A submodule's part of an EAR.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Appraisal {
    /// The worst tier of the vector.
    #[serde(rename = "ear.status")]
    pub(crate) status: Status,
    #[serde(rename = "ear.trustworthiness-vector")]
    pub(crate) vector: BTreeMap<TrustClaim, i8>,
    #[serde(rename = "ear.appraisal-policy-id")]
    policy_id: String,
    #[serde(flatten)]
    extensions: BTreeMap<String, serde_json::Value>,
}

/// EAR registers extensions under a name and a number; in JSON only the name is seen.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Extension {
    name: String,
    #[serde(rename = "key")]
    _key: i64,
    value: serde_json::Value,
}

/// What the policy gets as `input`.
pub(crate) fn input(
    nitro: &impl Serialize,
    nonce: Option<&str>,
    key: Option<&TeePublicKey>,
) -> serde_json::Value {
    serde_json::json!({
        "aws-nitro": nitro,
        "runtime_data_claims": {"nonce": nonce, "tee-pubkey": key},
    })
}

/// Asks the policy. Whatever is not a clear answer is an error: nobody is attested by it.
pub(crate) fn appraise(
    engine: &PolicyEngine,
    policy: &str,
    references: References,
    input: serde_json::Value,
) -> Result<Appraisal, PolicyError> {
    let mut engine = engine.attestation(policy)?;
    let failed = |error: &dyn fmt::Display| PolicyError::evaluate(error);
    let lookup = move |arguments: Vec<Value>| {
        let found = match arguments.as_slice() {
            [Value::String(id)] => references.get(id.as_ref()),
            _ => None,
        };
        Ok(found.map_or(Value::Null, |value| Value::from(value.clone())))
    };
    engine
        .add_extension(QUERY.to_owned(), 1, Box::new(lookup))
        .map_err(|error| failed(&error))?;
    engine.set_input(Value::from(input));
    let vector = value(&mut engine, "data.policy.trust_claims")?
        .ok_or_else(|| failed(&"trust_claims: is not defined"))?;
    let vector: BTreeMap<TrustClaim, i8> =
        read(&vector).map_err(|error| failed(&format!("trust_claims: {error}")))?;
    let Some(status) = vector.values().copied().map(Status::of).max() else {
        return Err(failed(&"trust_claims: is empty"));
    };
    let listed: Vec<Extension> = match value(&mut engine, "data.policy.extensions")? {
        Some(listed) => read(&listed).map_err(|error| failed(&format!("extensions: {error}")))?,
        None => Vec::new(),
    };
    let mut extensions = BTreeMap::new();
    for Extension { name, value, .. } in listed {
        // A second member of one name would let readers of the token differ.
        let ours = [
            "ear.status",
            "ear.trustworthiness-vector",
            "ear.appraisal-policy-id",
        ];
        if ours.contains(&name.as_str()) || extensions.insert(name, value).is_some() {
            return Err(failed(&"extensions: a name that is taken"));
        }
    }
    Ok(Appraisal {
        status,
        vector,
        policy_id: POLICY_ID.to_owned(),
        extensions,
    })
}

fn read<T: for<'a> Deserialize<'a>>(value: &Value) -> Result<T, String> {
    let json = serde_json::to_value(value).map_err(|error| error.to_string())?;
    serde_json::from_value(json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
