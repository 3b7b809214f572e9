//! One TLS connection to the broker and the few requests on it. HTTP/1.1: they are made one after another.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderName, RETRY_AFTER, SET_COOKIE,
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::{Error, Failure, Unavailable};
use crate::jwe::MAX_JWE;
use crate::server::{Link, ServerIdentity};

pub(crate) const ALPN: &[&[u8]] = &[b"http/1.1"];

/// TCP or vsock, then TLS; a host that only swallows bytes costs us this.
const CONNECT: Duration = Duration::from_secs(15);
/// One request with its answer. The broker verifies five signatures and writes its log within milliseconds.
const REQUEST: Duration = Duration::from_secs(20);
/// The largest answer is a JWE.
const MAX_BODY: usize = MAX_JWE;
/// A type URI and a sentence.
const MAX_ERROR_BODY: usize = 4 * 1024;
/// No type of the protocol is longer than this.
const MAX_KIND: usize = 48;

pub(crate) struct Connection {
    host: String,
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

/// What a request shows for itself.
#[derive(Clone, Copy)]
pub(crate) enum Proof<'a> {
    None,
    /// `name=value` of the session's cookie.
    Cookie(&'a str),
    /// An attestation token (RFC 6750).
    Bearer(&'a str),
}

impl Proof<'_> {
    fn header(self) -> Option<(HeaderName, String)> {
        match self {
            Self::None => None,
            Self::Cookie(cookie) => Some((COOKIE, cookie.to_owned())),
            Self::Bearer(token) => Some((AUTHORIZATION, format!("Bearer {token}"))),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

pub(crate) struct Answer {
    pub(crate) cookies: Vec<String>,
    pub(crate) body: Bytes,
}

impl Connection {
    pub(crate) async fn open(link: &Link) -> Result<Self, Failure> {
        let open = async {
            let dial = link.server.endpoint.connect();
            let stream = dial.await.map_err(Unavailable::Io)?;
            let stream = TlsConnector::from(Arc::clone(&link.tls))
                .connect(link.name(), stream)
                .await
                .map_err(|error| match identity::is_about_the_certificate(&error) {
                    true => Unavailable::Identity(error),
                    false => Unavailable::Io(error),
                })?;
            let (_, session) = stream.get_ref();
            // The settings of a web client say the same; an SVID's session is looked at as everywhere.
            if matches!(link.server.identity, ServerIdentity::Spiffe(_))
                && let Err(error) = identity::client_facts(session)
            {
                return Err(Unavailable::Session(error));
            }
            let (sender, driver) = handshake(TokioIo::new(stream)).await?;
            let driver = tokio::spawn(async move {
                if let Err(error) = driver.await {
                    tracing::debug!(%error, "connection to the broker ended");
                }
            });
            Ok(Self {
                host: link.host(),
                sender,
                driver: driver.abort_handle(),
            })
        };
        match timeout(CONNECT, open).await {
            Ok(connection) => Ok(connection?),
            Err(_) => Err(Unavailable::Timeout("connection").into()),
        }
    }

    pub(crate) async fn post(
        &mut self,
        path: &str,
        proof: Proof<'_>,
        body: &impl Serialize,
    ) -> Result<Answer, Failure> {
        let Ok(body) = serde_json::to_vec(body) else {
            return Err(Error::Request("the request cannot be written").into());
        };
        self.send(Method::POST, path, proof, body.into()).await
    }

    pub(crate) async fn get(&mut self, path: &str, proof: Proof<'_>) -> Result<Answer, Failure> {
        self.send(Method::GET, path, proof, Bytes::new()).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        proof: Proof<'_>,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some((name, value)) = proof.header() {
            request = request.header(name, value);
        }
        let Ok(request) = request.body(Full::new(body)) else {
            return Err(Error::Request("the request cannot be written").into());
        };
        match timeout(REQUEST, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Unavailable::Timeout("answer").into()),
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        self.sender.ready().await.map_err(Unavailable::Http)?;
        let response = self
            .sender
            .send_request(request)
            .await
            .map_err(Unavailable::Http)?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            // Errors of other servers, or in front of one, need not have our JSON: the status stands by itself.
            let body = Limited::new(body, MAX_ERROR_BODY).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let wait = head.headers.get(RETRY_AFTER).and_then(seconds);
            return Err(refusal(head.status, wait, &body));
        }
        let cookies = head.headers.get_all(SET_COOKIE).iter();
        let cookies = cookies
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => Ok(Answer {
                cookies,
                body: body.to_bytes(),
            }),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(Failure::malformed("length of the answer"))
            }
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(error) => Err(Unavailable::Http(*error).into()),
                Err(_) => Err(Failure::malformed("answer")),
            },
        }
    }
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3); a date in it is not read.
fn seconds(value: &http::HeaderValue) -> Option<Duration> {
    Some(Duration::from_secs(value.to_str().ok()?.parse().ok()?))
}

#[derive(Deserialize)]
struct ErrorBody {
    r#type: String,
}

/// Tells by the error's type what the status hides: nearly every error of the protocol is a 401.
fn refusal(status: StatusCode, wait: Option<Duration>, body: &[u8]) -> Failure {
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        let status = status.as_u16();
        return Unavailable::Status { status, wait }.into();
    }
    let kind = serde_json::from_slice::<ErrorBody>(body)
        .ok()
        .and_then(|error| {
            let kind = error.r#type.rsplit('/').next()?;
            let plain = !kind.is_empty() && kind.len() <= MAX_KIND;
            (plain && kind.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| kind.to_owned())
        });
    match kind {
        // The five minutes of a session, counted from the challenge, ran out between two requests.
        Some(kind) if kind == "TokenNotFound" || kind == "TokenVerifierError" => {
            Unavailable::Forgotten.into()
        }
        Some(kind) => Error::Refused { kind }.into(),
        None => Error::Refused {
            kind: format!("status {}", status.as_u16()),
        }
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, body: &str) -> Option<String> {
        match refusal(StatusCode::from_u16(status).unwrap(), None, body.as_bytes()) {
            Failure::Final(Error::Refused { kind }) => Some(kind),
            Failure::Again(_) => None,
            Failure::Final(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_refusal_is_told_by_its_type_and_not_by_its_status() {
        let body = |kind: &str| {
            format!(r#"{{"type":"https://example.org/kbs/errors/{kind}","detail":"x"}}"#)
        };
        assert_eq!(
            kind(401, &body("PolicyDeny")),
            Some("PolicyDeny".to_owned())
        );
        assert_eq!(
            kind(404, &body("PluginNotFound")),
            Some("PluginNotFound".to_owned())
        );
        assert_eq!(kind(401, &body("TokenNotFound")), None);
        assert_eq!(kind(503, &body("PolicyDeny")), None);
    }

    #[test]
    fn a_body_that_is_not_ours_leaves_the_status_and_no_text() {
        for body in [
            "",
            "<html>",
            r#"{"type":"a b\nc"}"#,
            r#"{"type":"https://x/"}"#,
            "[]",
        ] {
            assert_eq!(kind(403, body), Some("status 403".to_owned()), "{body}");
        }
        let long = format!(r#"{{"type":"{}"}}"#, "A".repeat(100));
        assert_eq!(kind(401, &long), Some("status 401".to_owned()));
    }
}
