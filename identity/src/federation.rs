//! Another trust domain's bundle, from its bundle endpoint (SPIFFE Federation §5), for callers of another organisation.
//!
//! Who the endpoint has to be is configured, never learned: a web server's name under given roots (`https_web`), or a SPIFFE ID
//! under the bundle that is held for that ID's trust domain (`https_spiffe`). What comes is that one trust domain's bundle; it
//! replaces no other, and no older one replaces it.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, LOCATION};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName};
use spiffe::{SpiffeId, TrustDomain};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::{Accept, BundleDocument, BundleHandle, Clock, Error, MAX_DOCUMENT, session, tls};

const ALPN: &[&[u8]] = &[b"http/1.1"];
/// A document of some KiB, over a connection that somebody else may be slow on.
const FETCH: Duration = Duration::from_secs(20);
/// Where a document says nothing (SPIFFE Federation §4.3: five minutes).
const USUAL_PAUSE: Duration = Duration::from_secs(300);
/// An endpoint that asks for more is not asked more often.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);
/// An endpoint that says "in a year" would keep a revocation from us.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// After a failure.
const RETRY: Duration = Duration::from_secs(60);
/// Of redirects in a row.
const MAX_HOPS: usize = 3;

/// Where a trust domain publishes its bundle, and how to know that it is there.
#[derive(Clone, Debug)]
pub struct BundleEndpoint {
    /// Whose bundle it is.
    pub trust_domain: TrustDomain,
    /// Where.
    pub url: BundleUrl,
    /// Who answers there.
    pub profile: Profile,
}

/// How an endpoint proves itself; nothing is believed by default.
#[derive(Clone, Debug)]
pub enum Profile {
    /// `https_web`: a certificate for the URL's host under one of these roots.
    Web(Vec<CertificateDer<'static>>),
    /// `https_spiffe`: an X.509-SVID of this ID, under the bundle held for its trust domain.
    Spiffe(SpiffeId),
}

/// An `https` URL with a host, without user and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleUrl(Uri);

impl BundleUrl {
    /// `host:port`, to dial.
    #[must_use]
    pub fn address(&self) -> String {
        let port = self.0.port_u16().unwrap_or(443);
        format!("{}:{port}", self.0.host().unwrap_or_default())
    }

    fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    fn path(&self) -> &str {
        self.0.path_and_query().map_or("/", |path| path.as_str())
    }

    /// Where a redirect leads. Only elsewhere on the same server: connections go where the configuration says.
    fn redirected(&self, location: &str) -> Result<Self, Error> {
        let next = match location.starts_with('/') && !location.starts_with("//") {
            true => format!("https://{}{location}", self.address()),
            false => location.to_owned(),
        };
        let next: Self = next.parse()?;
        match next.address() == self.address() {
            true => Ok(next),
            false => Err(Error::Endpoint(format!(
                "redirects to {}, which is not configured",
                next.address()
            ))),
        }
    }
}

impl FromStr for BundleUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let uri: Uri = text
            .parse()
            .map_err(|_detail| Error::Endpoint("is no url".to_owned()))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = uri.host().unwrap_or_default();
        // The parser keeps a port that is none, and takes it for absent.
        let plain = match uri.port_u16() {
            Some(port) => authority == format!("{host}:{port}"),
            None => authority == host,
        };
        if uri.scheme() != Some(&Scheme::HTTPS) || host.is_empty() || !plain {
            let problem = "has to be an https url with a host, and without a user";
            return Err(Error::Endpoint(problem.to_owned()));
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for BundleUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Fetches the bundle once, over connections that `dial` opens. It is not in force yet: see [`apply`].
///
/// # Errors
/// Nobody there, somebody else there, or not a bundle.
pub async fn fetch<S, F>(
    endpoint: &BundleEndpoint,
    bundles: &BundleHandle,
    clock: &Clock,
    dial: impl Fn() -> F,
) -> Result<BundleDocument, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>>,
{
    let work = async {
        // A redirect is followed and forgotten: the next fetch begins where the configuration says.
        let mut url = endpoint.url.clone();
        for _ in 0..=MAX_HOPS {
            let stream = dial().await.map_err(failed)?;
            match get(stream, &url, &endpoint.profile, bundles, clock).await? {
                Answer::Document(json) => return BundleDocument::from_jwks(&json),
                Answer::Elsewhere(next) => url = next,
            }
        }
        Err(Error::Endpoint("redirects in circles".to_owned()))
    };
    timeout(FETCH, work)
        .await
        .map_err(|_elapsed| Error::Endpoint("does not answer in time".to_owned()))?
}

/// Puts a fetched bundle in force, for the next handshakes of every configuration that holds `bundles`. Tells whether it changed
/// anything.
///
/// # Errors
/// As [`crate::TrustBundles::update`]; what was held stays.
pub fn apply(
    bundles: &BundleHandle,
    trust_domain: &TrustDomain,
    document: &BundleDocument,
) -> Result<bool, Error> {
    let mut outcome = Ok(false);
    // Several endpoints may be followed at once; each changes its own trust domain in what is held at that moment.
    bundles.rcu(|held| {
        let mut next = held.as_ref().clone();
        outcome = next.update(trust_domain, document);
        next
    });
    outcome
}

/// Fetches and applies for as long as it is polled, at the pace that the documents ask for.
pub async fn follow<S, F>(
    endpoint: BundleEndpoint,
    bundles: BundleHandle,
    clock: Clock,
    dial: impl Fn() -> F,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>>,
{
    let domain = &endpoint.trust_domain;
    loop {
        let fetched = fetch(&endpoint, &bundles, &clock, &dial).await;
        let applied = fetched.and_then(|document| {
            let changed = apply(&bundles, domain, &document)?;
            Ok((document, changed))
        });
        let pause = match applied {
            Ok((document, changed)) => {
                if changed {
                    let (authorities, sequence) = (document.authorities.len(), document.sequence);
                    tracing::info!(trust_domain = %domain, authorities, sequence, "bundle renewed");
                }
                let hint = document.refresh_hint.unwrap_or(USUAL_PAUSE);
                hint.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
            }
            Err(error) => {
                tracing::warn!(trust_domain = %domain, %error, "bundle not renewed, the last one stays");
                RETRY
            }
        };
        sleep(pause).await;
    }
}

enum Answer {
    Document(Bytes),
    Elsewhere(BundleUrl),
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &BundleUrl,
    profile: &Profile,
    bundles: &BundleHandle,
    clock: &Clock,
) -> Result<Answer, Error> {
    let (config, name) = match profile {
        Profile::Web(roots) => {
            let host = ServerName::try_from(url.host().trim_matches(['[', ']']).to_owned());
            let host = host.map_err(failed)?;
            (tls::web_client_config(clock, roots, ALPN)?, host)
        }
        Profile::Spiffe(id) => {
            let accept = Accept::Ids(vec![id.clone()]);
            let held = Arc::clone(bundles);
            let config = tls::client_config_at(clock.clone(), None, held, accept, ALPN)?;
            (config, tls::server_name())
        }
    };
    let stream = TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| match crate::verdict(&error) {
            Some(reason) => Error::Endpoint(reason.to_string()),
            None => failed(error),
        })?;
    if let Profile::Spiffe(_) = profile {
        session::client_facts(stream.get_ref().1)?;
    }
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::get(url.path())
        .header(HOST, url.address())
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(failed)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        if head.status.is_redirection() {
            let location = head.headers.get(LOCATION).and_then(|at| at.to_str().ok());
            let location = location
                .ok_or_else(|| Error::Endpoint("redirects without a location".to_owned()))?;
            return Ok(Answer::Elsewhere(url.redirected(location)?));
        }
        if head.status != StatusCode::OK {
            return Err(Error::Endpoint(format!("answers {}", head.status)));
        }
        let body = Limited::new(body, MAX_DOCUMENT).collect().await;
        let body = body.map_err(|error| Error::Endpoint(error.to_string()))?;
        Ok(Answer::Document(body.to_bytes()))
    };
    // The connection is driven here and ends with this request. How it ended matters to nobody: an answer that came whole before it
    // broke is an answer, and one that did not is the exchange's own error.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ended = connection => exchange.await,
    }
}

fn failed(error: impl fmt::Display) -> Error {
    Error::Endpoint(error.to_string())
}
