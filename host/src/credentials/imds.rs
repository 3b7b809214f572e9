//! The instance metadata service, version 2 alone (Amazon EC2 User Guide, "Use the Instance Metadata Service"): a token first, then
//! the role's name, then its credentials.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::time::timeout;
use transport::Endpoint;
use zeroize::Zeroizing;

use super::{Document, MAX_DOCUMENT};

/// It answers from this machine.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Long enough for the two requests that follow.
const TOKEN_TTL_S: &str = "60";
const ROLE: &str = "/latest/meta-data/iam/security-credentials/";
/// A role's name has at most 64.
const MAX_ROLE: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    code: String,
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

pub(super) async fn document(endpoint: &Endpoint) -> io::Result<Document> {
    let ask = async {
        let token = get(endpoint, Method::PUT, "/latest/api/token", None).await?;
        let token = text(&token, 256)
            .ok_or_else(|| io::Error::other("instance metadata: the token is none"))?;
        let role = get(endpoint, Method::GET, ROLE, Some(token)).await?;
        let role = text(&role, MAX_ROLE)
            .filter(|role| {
                role.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b))
            })
            .ok_or_else(|| {
                io::Error::other("instance metadata: no role; give the instance a profile")
            })?;
        let json = get(endpoint, Method::GET, &format!("{ROLE}{role}"), Some(token)).await?;
        let json = Zeroizing::new(json.to_vec());
        match serde_json::from_slice::<Answer>(&json) {
            Ok(answer) if answer.code == "Success" => Ok(Document {
                version: 1,
                access_key_id: answer.access_key_id,
                secret_access_key: answer.secret_access_key,
                session_token: Some(answer.token),
                expiration: Some(answer.expiration),
            }),
            _ => Err(io::Error::other(
                "instance metadata: no credentials for the role",
            )),
        }
    };
    timeout(TIMEOUT, ask).await.unwrap_or_else(|_elapsed| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "instance metadata: no answer (is it switched off, or more than one hop away?)",
        ))
    })
}

/// One line of visible characters.
fn text(bytes: &Bytes, max: usize) -> Option<&str> {
    let line = std::str::from_utf8(bytes).ok()?.trim();
    let plain = (1..=max).contains(&line.len()) && line.bytes().all(|b| b.is_ascii_graphic());
    plain.then_some(line)
}

async fn get(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    token: Option<&str>,
) -> io::Result<Bytes> {
    let mut request = Request::builder()
        .method(&method)
        .uri(path)
        .header(header::HOST, "169.254.169.254")
        .header(header::CONNECTION, "close");
    request = match token {
        Some(token) => request.header("x-aws-ec2-metadata-token", token),
        None => request.header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL_S),
    };
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let stream = endpoint.connect().await?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let exchange = async {
        let answer = send.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let limit = usize::try_from(MAX_DOCUMENT).unwrap_or(usize::MAX);
        let body = Limited::new(answer.into_body(), limit).collect().await;
        match (status, body) {
            (StatusCode::OK, Ok(body)) => Ok(body.to_bytes()),
            (StatusCode::OK, Err(error)) => Err(io::Error::other(error)),
            // The path without the role's name; the body is not repeated.
            (status, _) => Err(io::Error::other(format!(
                "instance metadata: {method} answered {status}"
            ))),
        }
    };
    let answer = exchange.await;
    connection.abort();
    answer
}
