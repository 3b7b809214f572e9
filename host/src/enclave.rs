use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use transport::Endpoint;

/// The enclave answers from memory; an operator's probe waits no longer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// It opens models before it answers: a large one from a slow disk takes minutes.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(1800);

/// Some hundred series are a tenth of this. The enclave is on the other side of a boundary, so it does not choose our memory.
const MAX_BODY: usize = 1 << 20;

/// `GET path` on the enclave's control listener: one request on its own connection.
pub(crate) async fn get(control: &Endpoint, path: &'static str) -> io::Result<(StatusCode, Bytes)> {
    ask(control, Method::GET, path, TIMEOUT).await
}

/// Asks the enclave to look for newer packages, and waits until it has opened them.
pub(crate) async fn reload(control: &Endpoint) -> io::Result<(StatusCode, Bytes)> {
    ask(control, Method::POST, "/reload", RELOAD_TIMEOUT).await
}

async fn ask(
    control: &Endpoint,
    method: Method,
    path: &'static str,
    limit: Duration,
) -> io::Result<(StatusCode, Bytes)> {
    let exchange = async {
        let stream = control.connect().await?;
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "enclave")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let answer = async {
            let answer = send.send_request(request).await.map_err(io::Error::other)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_BODY)
                .collect()
                .await
                .map_err(io::Error::other)?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven here, not in a task of its own: nothing outlives the time limit.
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            ended = connection => match ended {
                Ok(()) => answer.await,
                Err(e) => Err(io::Error::other(e)),
            },
        }
    };
    timeout(limit, exchange)
        .await
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}
