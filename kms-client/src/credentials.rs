//! AWS credentials: who asks, not what may be had. They may be the host's own; the key's policy looks at the document.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Mutex;
use transport::Endpoint;
use zeroize::Zeroizing;

use crate::error::Unavailable;
use crate::http;

/// A document of credentials stays far below this; session tokens take up to two KiB.
pub const MAX_CREDENTIALS: usize = 16 * 1024;
/// Refreshed this long before they expire: IMDS has newer ones by then.
const REFRESH_BEFORE: Duration = Duration::from_secs(5 * 60);
const MAX_TOKEN: usize = 8 * 1024;

/// An access key with its secret. Neither `Debug` nor `Display`; the secrets are wiped when dropped.
pub struct Credentials {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
    expiration: Option<SystemTime>,
}

/// These are no credentials. Says nothing of what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not credentials as `aws configure export-credentials` writes them")]
pub struct NoCredentials;

/// As the AWS tools exchange them (AWS CLI, "Sourcing credentials with an external process").
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

impl Credentials {
    /// # Errors
    /// A part that no header could carry, or that AWS would not give.
    pub fn new(
        access_key_id: String,
        secret_access_key: Zeroizing<String>,
        session_token: Option<Zeroizing<String>>,
        expiration: Option<SystemTime>,
    ) -> Result<Self, NoCredentials> {
        let plain = |text: &str, max: usize| {
            (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
        };
        let id = access_key_id.bytes().all(|b| b.is_ascii_alphanumeric());
        if !id
            || !plain(&access_key_id, 128)
            || !plain(&secret_access_key, 256)
            || !session_token
                .as_ref()
                .is_none_or(|token| plain(token, MAX_TOKEN))
        {
            return Err(NoCredentials);
        }
        Ok(Self {
            access_key_id,
            secret_access_key,
            session_token,
            expiration,
        })
    }

    /// Reads the JSON that a `credential_process` gives: `Version` 1, `AccessKeyId`, `SecretAccessKey`, and for temporary ones
    /// `SessionToken` and `Expiration`.
    ///
    /// # Errors
    /// [`NoCredentials`].
    pub fn from_json(json: &[u8]) -> Result<Self, NoCredentials> {
        if json.len() > MAX_CREDENTIALS {
            return Err(NoCredentials);
        }
        // What serde says could quote a secret.
        let Ok(document) = serde_json::from_slice::<Document>(json) else {
            return Err(NoCredentials);
        };
        let secret = Zeroizing::new(document.secret_access_key);
        let token = document.session_token.map(Zeroizing::new);
        if document.version != 1 {
            return Err(NoCredentials);
        }
        let expiration = match document.expiration {
            None => None,
            Some(text) => match OffsetDateTime::parse(&text, &Rfc3339) {
                Ok(end) => Some(end.into()),
                Err(_) => return Err(NoCredentials),
            },
        };
        Self::new(document.access_key_id, secret, token, expiration)
    }

    /// Not secret: it is in every request, and in CloudTrail.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    pub(crate) fn secret_access_key(&self) -> &str {
        &self.secret_access_key
    }

    pub(crate) fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(|token| token.as_str())
    }

    fn good_at(&self, now: SystemTime) -> bool {
        self.expiration.is_none_or(|end| now + REFRESH_BEFORE < end)
    }
}

/// Where credentials come from.
pub enum CredentialSource {
    /// As given, until they expire.
    Fixed(Arc<Credentials>),
    /// `GET /credentials` at this endpoint, asked again before they expire.
    Host(HostCredentials),
}

/// What the host hands out, kept until shortly before it expires.
pub struct HostCredentials {
    endpoint: Endpoint,
    kept: Mutex<Option<Arc<Credentials>>>,
}

impl CredentialSource {
    /// The host's, from its `[credentials]` listener.
    #[must_use]
    pub fn host(endpoint: Endpoint) -> Self {
        Self::Host(HostCredentials {
            endpoint,
            kept: Mutex::new(None),
        })
    }

    pub(crate) async fn get(&self, now: SystemTime) -> Result<Arc<Credentials>, Unavailable> {
        let host = match self {
            Self::Fixed(credentials) => return Ok(Arc::clone(credentials)),
            Self::Host(host) => host,
        };
        let mut kept = host.kept.lock().await;
        if let Some(credentials) = kept.as_ref().filter(|kept| kept.good_at(now)) {
            return Ok(Arc::clone(credentials));
        }
        let json = http::get(&host.endpoint, "/credentials", MAX_CREDENTIALS).await?;
        match Credentials::from_json(&json) {
            Ok(credentials) => Ok(Arc::clone(kept.insert(Arc::new(credentials)))),
            Err(NoCredentials) => Err(Unavailable::Credentials),
        }
    }

    /// AWS said that they are not good (any more): the next request asks for others.
    pub(crate) async fn forget(&self) {
        if let Self::Host(host) = self {
            host.kept.lock().await.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn the_documents_of_aws_tools_are_read() {
        let lasting =
            br#"{"Version":1,"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}"#;
        let credentials = Credentials::from_json(lasting).ok().unwrap();
        assert!(credentials.good_at(UNIX_EPOCH + Duration::from_secs(4_000_000_000)));
        assert_eq!(credentials.session_token(), None);
        let passing = br#"{"Version":1,"AccessKeyId":"ASIA1","SecretAccessKey":"s","SessionToken":"t","Expiration":"2027-01-15T08:00:00+00:00","Other":1}"#;
        let credentials = Credentials::from_json(passing).ok().unwrap();
        let end = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert!(credentials.good_at(end - REFRESH_BEFORE - Duration::from_secs(1)));
        assert!(!credentials.good_at(end - REFRESH_BEFORE));
    }

    #[test]
    fn what_could_not_be_a_header_is_refused() {
        for (id, secret, token) in [
            ("", "s", "t"),
            ("A B", "s", "t"),
            ("A\\r\\nx: y", "s", "t"),
            ("A", "", "t"),
            ("A", "s s", "t"),
            ("A", "s", ""),
            ("A", "s", "t\\r\\nx: y"),
        ] {
            let json = format!(
                r#"{{"Version":1,"AccessKeyId":"{id}","SecretAccessKey":"{secret}","SessionToken":"{token}"}}"#
            );
            assert!(Credentials::from_json(json.as_bytes()).is_err(), "{json}");
        }
        for json in [
            "",
            "{}",
            "[]",
            r#"{"Version":2,"AccessKeyId":"A","SecretAccessKey":"s"}"#,
        ] {
            assert!(Credentials::from_json(json.as_bytes()).is_err(), "{json}");
        }
        assert!(Credentials::from_json(&vec![b' '; MAX_CREDENTIALS + 1]).is_err());
    }
}
