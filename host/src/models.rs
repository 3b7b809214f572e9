//! Sealed-model files for the enclave: `GET` and `HEAD` of `/<package>/<file>`, whole or one byte range (RFC 9110 §14).
//!
//! What is served is ciphertext and signed manifests, and the enclave checks every byte. The checks here protect the host:
//! whoever reaches the listener reads files below one directory, and nothing else.

mod body;
mod range;
mod root;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use rustix::net::sockopt::set_socket_send_buffer_size;
use transport::{ServeLimits, Stream};

use crate::meters::ModelMeters;
use range::Wanted;
pub(crate) use root::Root;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(crate) fn serve_limits(max_connections: usize, drain: Duration) -> ServeLimits {
    ServeLimits {
        max_connections,
        // A reader that takes no byte for this long has died while it loaded a model.
        idle_timeout: Duration::from_secs(60),
        max_streams: 16,
        drain,
        ..ServeLimits::default()
    }
}

/// What the kernel holds for a reader: a few pieces. With its default, less than one, reader and writer wake each other for every
/// part of a piece, and those wakings cost as much as the copies.
const SEND_BUFFER: usize = 1 << 20;

/// Lets a connection's writer run ahead of its reader. Vsock has credits of its own and ignores it.
pub(crate) fn widen(stream: &Stream) {
    if let Err(error) = set_socket_send_buffer_size(stream, SEND_BUFFER) {
        tracing::debug!(%error, "the send buffer stays as it is");
    }
}

pub(crate) struct Models {
    root: Root,
    buffers: Arc<body::Buffers>,
    meters: ModelMeters,
}

impl Models {
    pub(crate) fn new(root: Root, meters: ModelMeters) -> Self {
        Self {
            root,
            buffers: Arc::default(),
            meters,
        }
    }

    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path().to_owned();
        let answer = self
            .serve(request.method(), &path, request.headers())
            .await
            .unwrap_or_else(|e| {
                let status = match e.kind() {
                    io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
                    io::ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
                    _ => {
                        tracing::warn!(error = %e, "sealed-model file cannot be read");
                        StatusCode::INTERNAL_SERVER_ERROR
                    }
                };
                empty(status)
            });
        self.meters.answered(answer.status().as_u16());
        Ok(answer)
    }

    async fn serve(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> io::Result<Response<Body>> {
        if method != Method::GET && method != Method::HEAD {
            let mut answer = empty(StatusCode::METHOD_NOT_ALLOWED);
            set(
                &mut answer,
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD"),
            );
            return Ok(answer);
        }
        let (file, size) = self.root.open(path).await?;
        // Range is defined for GET alone; we give no validator, so an If-Range never matches (RFC 9110 §13.1.5, §14.2).
        let wanted = if method == Method::HEAD || headers.contains_key(header::IF_RANGE) {
            Wanted::Whole
        } else {
            range::wanted(headers, size)
        };
        let (status, first, length) = match wanted {
            Wanted::Whole => (StatusCode::OK, 0, size),
            Wanted::Part { first, length } => (StatusCode::PARTIAL_CONTENT, first, length),
            Wanted::Unsatisfiable => {
                let mut answer = empty(StatusCode::RANGE_NOT_SATISFIABLE);
                set(
                    &mut answer,
                    header::CONTENT_RANGE,
                    value(&format!("bytes */{size}"))?,
                );
                return Ok(answer);
            }
        };
        let mut answer = if method == Method::HEAD {
            empty(status)
        } else {
            let sent = self.meters.bytes.clone();
            Response::new(body::body(file, first, length, &self.buffers, sent))
        };
        *answer.status_mut() = status;
        set(
            &mut answer,
            header::CONTENT_LENGTH,
            HeaderValue::from(length),
        );
        set(
            &mut answer,
            header::ACCEPT_RANGES,
            HeaderValue::from_static("bytes"),
        );
        set(
            &mut answer,
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        if status == StatusCode::PARTIAL_CONTENT {
            // `wanted` gives a part at least one byte, inside the file.
            let range = format!("bytes {first}-{}/{size}", first + length - 1);
            set(&mut answer, header::CONTENT_RANGE, value(&range)?);
        }
        Ok(answer)
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    answer
}

fn set(answer: &mut Response<Body>, name: header::HeaderName, value: HeaderValue) {
    answer.headers_mut().insert(name, value);
}

fn value(text: &str) -> io::Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(io::Error::other)
}
