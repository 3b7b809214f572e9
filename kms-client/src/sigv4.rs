//! AWS Signature Version 4 (AWS General Reference, "Create a signed AWS API request") for what KMS takes: `POST /`, no query.
//!
//! A signature tells AWS who pays and whose permissions count. Nothing of ours rests on it: a wrong one is refused.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, Tag, sign};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::credentials::Credentials;

/// The only algorithm.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "kms";

/// `20261125T142301Z`.
#[must_use]
pub fn amz_date(now: SystemTime) -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    OffsetDateTime::from(now)
        .format(&format)
        .unwrap_or_default()
}

/// `<date>/<region>/kms/aws4_request`, where `date` is the day of `amz_date`.
#[must_use]
pub fn scope(amz_date: &str, region: &str) -> String {
    let day = amz_date.get(..8).unwrap_or_default();
    format!("{day}/{region}/{SERVICE}/aws4_request")
}

/// The signature over a `POST /` with `headers`: lower-case names with trimmed values, in the order of their names.
#[must_use]
pub fn signature(
    secret: &str,
    region: &str,
    amz_date: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> String {
    let mut canonical = String::from("POST\n/\n\n");
    for (name, value) in headers {
        canonical.push_str(&format!("{name}:{value}\n"));
    }
    canonical.push_str(&format!("\n{}\n{}", names(headers), sha256(body)));
    let scope = scope(amz_date, region);
    let text = format!(
        "{ALGORITHM}\n{amz_date}\n{scope}\n{}",
        sha256(canonical.as_bytes())
    );
    let first = Key::new(HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    let mut tag = None::<Tag>;
    for part in scope.split('/').chain([text.as_str()]) {
        let signed = match &tag {
            None => sign(&first, part.as_bytes()),
            Some(key) => sign(&Key::new(HMAC_SHA256, key.as_ref()), part.as_bytes()),
        };
        tag = Some(signed);
    }
    tag.map(hex::encode).unwrap_or_default()
}

/// The `Authorization` header for these headers.
pub(crate) fn authorization(
    credentials: &Credentials,
    region: &str,
    amz_date: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> String {
    format!(
        "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={}",
        credentials.access_key_id(),
        scope(amz_date, region),
        names(headers),
        signature(
            credentials.secret_access_key(),
            region,
            amz_date,
            headers,
            body
        ),
    )
}

fn names(headers: &[(&str, &str)]) -> String {
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    names.join(";")
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use zeroize::Zeroizing;

    use super::*;

    /// What botocore 1.35.99 puts into the header for the same request.
    #[test]
    fn signatures_are_those_of_the_aws_sdk() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_616_581);
        let date = amz_date(now);
        assert_eq!(date, "20261125T142301Z");
        let token = "a-session/token+of==AWS";
        for (token, signature) in [
            (
                None,
                "2156f3bf4aa8e7411e987599c758e2865e29323a12931355100e48c6e5b7602b",
            ),
            (
                Some(token),
                "b64aec0d795463eaff04182515593254fd778039eb36d931177b5609bc89cd00",
            ),
        ] {
            let mut headers = vec![
                ("content-type", "application/x-amz-json-1.1"),
                ("host", "kms.eu-central-1.amazonaws.com"),
                ("x-amz-date", date.as_str()),
            ];
            headers.extend(token.map(|token| ("x-amz-security-token", token)));
            headers.push(("x-amz-target", "TrentService.Decrypt"));
            let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned();
            let credentials = Credentials::new(
                "AKIDEXAMPLE".to_owned(),
                Zeroizing::new(secret),
                token.map(|token| Zeroizing::new(token.to_owned())),
                None,
            )
            .ok()
            .unwrap();
            let names = names(&headers);
            assert_eq!(
                authorization(
                    &credentials,
                    "eu-central-1",
                    &date,
                    &headers,
                    br#"{"KeyId":"x"}"#
                ),
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261125/eu-central-1/kms/aws4_request, \
                     SignedHeaders={names}, Signature={signature}"
                )
            );
        }
    }
}
