//! One request on one connection; every wait and every body bounded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use transport::Endpoint;

use crate::error::Unavailable;

/// The path to the service, then TLS; a host that only swallows bytes costs us this.
const CONNECT: Duration = Duration::from_secs(15);
/// One request with its answer.
const REQUEST: Duration = Duration::from_secs(20);

/// Sends `request` over TLS to `endpoint`, whose certificate must be `name`'s.
pub(crate) async fn send(
    endpoint: &Endpoint,
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
    request: Request<Full<Bytes>>,
    max_body: usize,
) -> Result<(StatusCode, Bytes), Unavailable> {
    let connect = async {
        let stream = endpoint.connect().await?;
        TlsConnector::from(tls)
            .connect(name, stream)
            .await
            .map_err(|error| match identity::is_about_the_certificate(&error) {
                true => Unavailable::Tls(error),
                false => Unavailable::Io(error),
            })
    };
    let stream = match timeout(CONNECT, connect).await {
        Ok(stream) => stream?,
        Err(_) => return Err(Unavailable::Timeout("connection")),
    };
    exchange(stream, request, max_body).await
}

/// `GET path` in the clear, from the host beside us.
pub(crate) async fn get(
    endpoint: &Endpoint,
    path: &'static str,
    max_body: usize,
) -> Result<Bytes, Unavailable> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = http::Uri::from_static(path);
    request
        .headers_mut()
        .insert(HOST, http::HeaderValue::from_static("host"));
    let stream = endpoint.connect().await?;
    let (status, body) = exchange(stream, request, max_body).await?;
    match status {
        StatusCode::OK => Ok(body),
        status => Err(Unavailable::Status {
            who: "the host's credentials listener",
            status: status.as_u16(),
        }),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    max_body: usize,
) -> Result<(StatusCode, Bytes), Unavailable> {
    let exchange = async {
        let (mut sender, driver) = handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(driver);
        let answer = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            match Limited::new(body, max_body).collect().await {
                Ok(body) => Ok((head.status, body.to_bytes())),
                Err(error) if error.is::<LengthLimitError>() => Err(Unavailable::TooLong),
                Err(error) => Err(match error.downcast::<hyper::Error>() {
                    Ok(error) => Unavailable::Http(*error),
                    Err(error) => Unavailable::Io(std::io::Error::other(error)),
                }),
            }
        };
        let answer = answer.await;
        driver.abort();
        answer
    };
    match timeout(REQUEST, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(Unavailable::Timeout("answer")),
    }
}
