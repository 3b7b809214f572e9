//! What an answer that is not 200 means. The status says little: nearly every error of the service is a 400.

use http::StatusCode;
use serde::Deserialize;

use crate::error::{Error, Failure, Unavailable};

const MAX_KIND: usize = 64;
const MAX_MESSAGE: usize = 512;

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "__type")]
    kind: String,
    /// Most errors write it small, those of the policy engine large.
    #[serde(alias = "Message")]
    message: Option<String>,
}

pub(crate) fn read(status: StatusCode, body: &[u8]) -> Failure {
    let body = serde_json::from_slice::<Body>(body).ok();
    let kind = body.as_ref().and_then(|body| {
        let kind = body.kind.rsplit('#').next()?;
        let plain = (1..=MAX_KIND).contains(&kind.len());
        (plain && kind.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| kind.to_owned())
    });
    let Some(kind) = kind else {
        return match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            true => Unavailable::Status {
                who: "KMS",
                status: status.as_u16(),
            }
            .into(),
            false => Error::Refused {
                kind: format!("status {}", status.as_u16()),
                message: String::new(),
            }
            .into(),
        };
    };
    match kind.as_str() {
        "ExpiredTokenException"
        | "ExpiredToken"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId" => Unavailable::CredentialsRefused(kind).into(),
        // These pass by themselves.
        "DependencyTimeoutException"
        | "KMSInternalException"
        | "KeyUnavailableException"
        | "ThrottlingException"
        | "LimitExceededException"
        | "RequestLimitExceeded"
        | "ServiceUnavailable"
        | "InternalFailure" => Unavailable::Busy(kind).into(),
        _ if status.is_server_error() => Unavailable::Busy(kind).into(),
        _ => Error::Refused {
            kind,
            message: body
                .and_then(|body| body.message)
                .map(|message| printable(&message))
                .unwrap_or_default(),
        }
        .into(),
    }
}

fn printable(text: &str) -> String {
    let plain = |c: char| {
        if c == ' ' || c.is_ascii_graphic() {
            c
        } else {
            '?'
        }
    };
    text.chars().take(MAX_MESSAGE).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> Option<(String, String)> {
        match read(StatusCode::from_u16(status).unwrap(), body.as_bytes()) {
            Failure::Final(Error::Refused { kind, message }) => Some((kind, message)),
            Failure::Again(_) => None,
            Failure::Final(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_refusal_is_told_by_its_type() {
        let denied = r#"{"__type":"AccessDeniedException","Message":"User: arn is not"}"#;
        assert_eq!(
            refused(400, denied),
            Some(("AccessDeniedException".into(), "User: arn is not".into()))
        );
        let named = r#"{"__type":"com.amazonaws.kms#NotFoundException","message":"x\ny"}"#;
        assert_eq!(
            refused(400, named),
            Some(("NotFoundException".into(), "x?y".into()))
        );
    }

    #[test]
    fn what_passes_by_itself_is_asked_for_again() {
        for kind in [
            "ThrottlingException",
            "KMSInternalException",
            "DependencyTimeoutException",
            "ExpiredTokenException",
        ] {
            let body = format!(r#"{{"__type":"{kind}"}}"#);
            assert_eq!(refused(400, &body), None, "{kind}");
        }
        assert_eq!(refused(503, "<html>"), None);
        assert_eq!(refused(500, r#"{"__type":"Whatever"}"#), None);
    }

    #[test]
    fn a_body_that_is_not_the_services_leaves_the_status_and_no_text() {
        let long = format!(r#"{{"__type":"{}"}}"#, "A".repeat(100));
        for body in [
            "",
            "<html>",
            r#"{"__type":"a b"}"#,
            r#"{"__type":"x#"}"#,
            "[]",
            &long,
        ] {
            assert_eq!(
                refused(403, body),
                Some(("status 403".into(), String::new())),
                "{body}"
            );
        }
    }
}
