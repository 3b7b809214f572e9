//! `GET /cloister/evidence`: what was verified, in public values.

use std::time::SystemTime;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::pool::State;
use crate::{AttestedSession, Error, error};

/// The report, and whether a verified session stands.
pub(crate) fn report(state: &State) -> (bool, Value) {
    match state {
        State::Ready(session) if session.is_usable() => (true, verified(session)),
        State::Failed(reason) => (false, unverified(Some(reason))),
        State::Ready(_) | State::Connecting => (false, unverified(None)),
    }
}

fn verified(session: &AttestedSession) -> Value {
    let verdict = session.verdict();
    let claims = &verdict.claims;
    let pcrs: Map<String, Value> = claims
        .pcrs
        .iter()
        .filter(|(_, pcr)| !pcr.is_zero())
        .map(|(index, pcr)| (index.to_string(), pcr.to_string().into()))
        .collect();
    let server = session.server();
    let policy = session.policy();
    let anchor = &policy.trust_anchor;
    json!({
        "verified": true,
        "verified_at": time(verdict.verified_at),
        "verified_until": time(verdict.until),
        "trust_anchor": {
            "root": if anchor.is_aws_nitro() { "AWS Nitro Enclaves" } else { "not AWS: a root of your own choosing" },
            "sha256": anchor.fingerprint(),
        },
        "document": {
            "module_id": claims.module_id,
            "made_at": time(claims.timestamp),
            "signer_valid_until": time(claims.leaf_not_after),
        },
        "pcrs": pcrs,
        "config_digest": verdict.config_digest,
        "boot_id": verdict.boot_id,
        "models": verdict.models,
        "server": {
            "spiffe_id": server.id.to_string(),
            "svid_serial": server.serial,
            "svid_valid_until": time(server.not_after),
            "tls_spki_sha256": attestation::Sha256Digest::of(&server.spki_der),
        },
        "tls": {
            "version": "TLSv1.3",
            "group": session.group().map(|group| format!("{group:?}")),
        },
        "policy": {
            "serial": policy.serial,
            "sha256": policy.digest(),
        },
    })
}

/// The caller and the gateway are on one machine, so the reason is told in full; its values are public ones.
pub(crate) fn unverified(reason: Option<&Error>) -> Value {
    let compared = reason.and_then(Error::compared);
    json!({
        "verified": false,
        "step": reason.and_then(Error::step).map(|step| step.as_str()),
        "reason": reason.map_or_else(|| "connecting".to_owned(), |reason| error::chain(reason)),
        "expected": compared.as_ref().map(|(expected, _)| expected),
        "actual": compared.as_ref().map(|(_, actual)| actual),
    })
}

/// RFC 3339, UTC, whole seconds.
pub(crate) fn time(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .replace_nanosecond(0)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "beyond the calendar".to_owned())
}
