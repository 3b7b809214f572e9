//! AWS credentials for the enclave, which has no network to get its own from: `GET /credentials` on an endpoint of its own, in the
//! form that AWS tools exchange (`credential_process`). Nothing is kept here: each request asks the source again, and the enclave
//! asks only when its own copy ends.
//!
//! They say who asks KMS, and pay for it. They open nothing: the key's policy wants the enclave's document. Still they are
//! secrets of this machine, so they reach no log, no error and no metric.

mod imds;

use std::convert::Infallible;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use transport::{Endpoint, ServeLimits};
use zeroize::Zeroizing;

use crate::config::CredentialsConfig;

/// A session token takes up to two KiB.
const MAX_DOCUMENT: u64 = 16 * 1024;
/// The enclave is the only one who asks.
const CONNECTIONS: usize = 4;

/// AWS CLI, "Sourcing credentials with an external process".
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
}

pub(crate) enum Source {
    Imds(Endpoint),
    File(PathBuf),
}

pub(crate) fn serve_limits(drain: Duration) -> ServeLimits {
    ServeLimits {
        max_connections: CONNECTIONS,
        max_streams: 4,
        drain,
        ..ServeLimits::default()
    }
}

impl Source {
    pub(crate) fn of(config: &CredentialsConfig) -> Option<Self> {
        match (&config.imds, &config.file) {
            (Some(endpoint), None) => Some(Self::Imds(endpoint.clone())),
            (None, Some(file)) => Some(Self::File(file.clone())),
            _ => None,
        }
    }

    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (status, body) = match (request.method(), request.uri().path()) {
            (&Method::GET, "/credentials") => match self.document().await {
                Ok(json) => (StatusCode::OK, json),
                Err(error) => {
                    // Texts of ours; nothing of what was read is in them.
                    tracing::warn!(%error, "no AWS credentials for the enclave");
                    (StatusCode::SERVICE_UNAVAILABLE, Bytes::new())
                }
            },
            (_, "/credentials") => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
            _ => (StatusCode::NOT_FOUND, Bytes::new()),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Ok(response)
    }

    async fn document(&self) -> io::Result<Bytes> {
        let document = match self {
            Self::Imds(endpoint) => imds::document(endpoint).await?,
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || from_file(&path)).await;
                read.map_err(io::Error::other)??
            }
        };
        let json = serde_json::to_vec(&document)
            .map_err(|_never| io::Error::other("credentials have no JSON form"))?;
        Ok(Bytes::from(json))
    }
}

/// Read anew each time, so that whoever renews them only has to replace the file.
fn from_file(path: &Path) -> io::Result<Document> {
    let about = |problem: &str| io::Error::other(format!("{}: {problem}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| about(&error.to_string()))?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(about("holds a secret that others can read; chmod 600"));
    }
    let mut json = Zeroizing::new(Vec::new());
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut json)?;
    if json.len() as u64 > MAX_DOCUMENT {
        return Err(about("is longer than 16 KiB"));
    }
    match serde_json::from_slice::<Document>(&json) {
        Ok(document) if document.version == 1 => Ok(document),
        // What serde says could quote a secret.
        _ => Err(about(
            "is no JSON as `aws configure export-credentials --format process` writes it",
        )),
    }
}
