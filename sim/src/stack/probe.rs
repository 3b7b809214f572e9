//! Plain HTTP requests to the run's own endpoints.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use transport::Endpoint;

/// More than any answer of ours that is read whole here.
const MAX_ANSWER: usize = 8 << 20;
const LIMIT: Duration = Duration::from_secs(120);

/// `GET path` at an endpoint URI; status and body.
///
/// # Errors
/// An endpoint that does not parse or answer, or an answer over 8 MiB.
pub async fn get(endpoint: &str, path: &str) -> io::Result<(u16, Bytes)> {
    send(endpoint, Method::GET, path, Bytes::new()).await
}

/// `POST path` with a JSON body; status and body.
///
/// # Errors
/// As for [`get`].
pub async fn post_json(endpoint: &str, path: &str, body: Bytes) -> io::Result<(u16, Bytes)> {
    send(endpoint, Method::POST, path, body).await
}

async fn send(endpoint: &str, method: Method, path: &str, body: Bytes) -> io::Result<(u16, Bytes)> {
    let endpoint: Endpoint = endpoint.parse().map_err(io::Error::other)?;
    let exchange = async {
        let stream = endpoint.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(io::Error::other)?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(io::Error::other)?
            .to_bytes();
        driver.abort();
        Ok((status, body))
    };
    timeout(LIMIT, exchange)
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
}
