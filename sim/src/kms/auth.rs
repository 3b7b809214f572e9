//! Who asks: AWS Signature Version 4, from the side that checks it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;
use kms_client::sigv4;

use super::refusal::Refusal;
use super::server::Principal;

/// Older or younger requests are refused.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Without these in the signature, a request could be turned into another.
const MUST_BE_SIGNED: [&str; 3] = ["host", "x-amz-date", "x-amz-target"];

/// The principal whose signature is over this request.
pub(super) fn authenticate<'a>(
    headers: &HeaderMap,
    body: &[u8],
    principals: &'a [Principal],
    region: &str,
    now: SystemTime,
) -> Result<&'a Principal, Refusal> {
    let incomplete = |what: &str| Refusal::new("IncompleteSignatureException", what);
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let header = text("authorization").ok_or_else(|| {
        Refusal::new(
            "MissingAuthenticationTokenException",
            "Missing Authentication Token",
        )
    })?;
    let rest = header
        .strip_prefix(sigv4::ALGORITHM)
        .ok_or_else(|| incomplete("Authorization header does not name AWS4-HMAC-SHA256"))?;
    let part = |name: &str| {
        rest.split(',')
            .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
            .ok_or_else(|| {
                incomplete(&format!(
                    "Authorization header requires '{name}' parameter."
                ))
            })
    };
    let date = text("x-amz-date").ok_or_else(|| incomplete("requires 'X-Amz-Date'"))?;
    let (id, scope) = part("Credential")?
        .split_once('/')
        .ok_or_else(|| incomplete("Credential"))?;

    let unknown = || {
        Refusal::new(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )
    };
    let principal = principals
        .iter()
        .find(|principal| principal.access_key_id == id)
        .ok_or_else(unknown)?;
    if text("x-amz-security-token") != principal.session_token.as_deref() {
        return Err(unknown());
    }

    let wrong = |message: String| Refusal::new("InvalidSignatureException", message);
    if scope != sigv4::scope(date, region) {
        return Err(wrong(format!(
            "Credential should be scoped to {}",
            sigv4::scope(date, region)
        )));
    }
    let mut signed = Vec::new();
    for name in part("SignedHeaders")?.split(';') {
        let value = text(name).ok_or_else(|| wrong(format!("{name} is signed and absent")))?;
        signed.push((name, value.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    let token = principal
        .session_token
        .as_ref()
        .map(|_| "x-amz-security-token");
    for must in MUST_BE_SIGNED.into_iter().chain(token) {
        if !signed.iter().any(|(name, _)| *name == must) {
            return Err(wrong(format!(
                "'{must}' must be a 'SignedHeader' in the AWS Authorization."
            )));
        }
    }
    if !signed.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(wrong("SignedHeaders are not in order".to_owned()));
    }
    let headers: Vec<(&str, &str)> = signed
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let expected = sigv4::signature(&principal.secret_access_key, region, date, &headers, body);
    if verify_slices_are_equal(expected.as_bytes(), part("Signature")?.as_bytes()).is_err() {
        return Err(wrong(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key \
             and signing method. Consult the service documentation for details."
                .to_owned(),
        ));
    }
    // What is compared is our own clock's writing: both have one fixed form.
    let inside = date >= sigv4::amz_date(now - WINDOW).as_str()
        && date <= sigv4::amz_date(now + WINDOW).as_str();
    if !inside {
        return Err(wrong(format!(
            "Signature expired: {date} is not within 5 minutes of {}",
            sigv4::amz_date(now)
        )));
    }
    let expired = principal
        .expiration
        .is_some_and(|end| UNIX_EPOCH + Duration::from_secs(end) <= now);
    if expired {
        return Err(Refusal::new(
            "ExpiredTokenException",
            "The security token included in the request is expired",
        ));
    }
    Ok(principal)
}
