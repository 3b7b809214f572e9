use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use attestation::{TrustAnchor, Verifier};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_rustls::TlsAcceptor;
use tower::service_fn;
use transport::{Endpoint, Listener, ServeLimits, Stream, serve};

use super::auth;
use super::keys::Key;
use super::operations::Desk;
use super::policy::{KeyPolicy, PolicyError};
use super::refusal::{Refusal, answer};
use super::tls::KmsTls;

/// The largest document in base64, and the rest.
const MAX_BODY: usize = 512 * 1024;

type Now = Arc<dyn Fn() -> SystemTime + Send + Sync>;
/// A change to an answer before it leaves, given the operation.
pub type Spoil = Box<dyn Fn(&str, &mut Value) + Send + Sync>;

/// What a simulated service is made of.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsSetup {
    /// Where it listens.
    pub listen: Endpoint,
    /// For instance `eu-central-1`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
    /// Its certificate.
    pub tls: KmsTls,
    /// The root that documents must lead to, PEM.
    pub trust_anchor: String,
    /// Its keys, whose material is made at the start and gone at the end.
    pub keys: Vec<KeySetup>,
    /// Who may sign requests.
    pub principals: Vec<Principal>,
}

/// A symmetric key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySetup {
    /// The last part of its ARN.
    pub id: String,
    /// JSON text of its policy.
    pub policy: String,
}

/// A caller with credentials.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// As policies name it.
    pub arn: String,
    /// In each request.
    pub access_key_id: String,
    /// Never in a request.
    pub secret_access_key: String,
    /// Of temporary credentials.
    pub session_token: Option<String>,
    /// Seconds since 1970.
    pub expiration: Option<u64>,
}

/// One answered request, as CloudTrail would have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `Decrypt` and so on.
    pub operation: String,
    /// Of the caller; empty where none was authenticated.
    pub principal: String,
    /// `None` for success, else the error's type.
    pub error: Option<String>,
    /// The public key in the document of an answered request.
    pub recipient: Option<Vec<u8>>,
}

/// Why the service did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KmsError {
    /// A policy with words that are not simulated.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Something in the setup that cannot be used.
    #[error("kms: {0}")]
    Setup(String),
    /// The listener.
    #[error("kms: {0}")]
    Io(#[from] io::Error),
}

struct Service {
    region: String,
    keys: Vec<Key>,
    principals: Vec<Principal>,
    verifier: Verifier,
    now: Now,
    spoil: Mutex<Option<Spoil>>,
    events: Mutex<Vec<Event>>,
}

/// A simulated service that listens.
pub struct KmsServer {
    service: Arc<Service>,
    listener: Listener,
    tls: TlsAcceptor,
}

/// What can be asked of and done to a service while it runs.
#[derive(Clone)]
pub struct KmsHandle(Arc<Service>);

impl KmsHandle {
    /// Every answered request so far.
    pub fn events(&self) -> Vec<Event> {
        self.0
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes every further answer.
    pub fn spoil(&self, spoil: Spoil) {
        *self.0.spoil.lock().unwrap_or_else(PoisonError::into_inner) = Some(spoil);
    }
}

impl KmsServer {
    /// Reads the setup whole, then listens.
    ///
    /// # Errors
    /// See [`KmsError`].
    pub async fn bind(setup: &KmsSetup, now: Now) -> Result<Self, KmsError> {
        let failed = |error: &dyn std::fmt::Display| KmsError::Setup(error.to_string());
        let anchor =
            TrustAnchor::from_pem(setup.trust_anchor.as_bytes()).map_err(|e| failed(&e))?;
        let mut keys = Vec::new();
        for key in &setup.keys {
            let policy = serde_json::from_str(&key.policy).map_err(|e| failed(&e))?;
            let arn = format!(
                "arn:aws:kms:{}:{}:key/{}",
                setup.region, setup.account, key.id
            );
            keys.push(
                Key::generate(key.id.clone(), arn, KeyPolicy::parse(&policy)?)
                    .map_err(|e| failed(&e))?,
            );
        }
        Ok(Self {
            tls: TlsAcceptor::from(setup.tls.server_config()?),
            listener: setup.listen.bind().await?,
            service: Arc::new(Service {
                region: setup.region.clone(),
                keys,
                principals: setup.principals.clone(),
                verifier: Verifier::new(anchor),
                now,
                spoil: Mutex::new(None),
                events: Mutex::new(Vec::new()),
            }),
        })
    }

    /// Where it listens, with the real port.
    pub fn listen(&self) -> Endpoint {
        self.listener.local()
    }

    /// To watch it and to change its answers.
    pub fn handle(&self) -> KmsHandle {
        KmsHandle(Arc::clone(&self.service))
    }

    /// Serves until `shutdown`.
    ///
    /// # Errors
    /// A listener that broke.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), KmsError> {
        let (tls, service) = (self.tls, self.service);
        let accept = move |stream: Stream| {
            let (tls, service) = (tls.clone(), Arc::clone(&service));
            async move {
                let stream = tls.accept(stream).await?;
                let answer = service_fn(move |request| {
                    let service = Arc::clone(&service);
                    async move { Ok::<_, Infallible>(service.answer(request).await) }
                });
                Ok::<_, io::Error>((stream, answer))
            }
        };
        serve(self.listener, accept, ServeLimits::default(), shutdown).await?;
        Ok(())
    }
}

impl Service {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let target = head
            .headers
            .get("x-amz-target")
            .and_then(|value| value.to_str().ok());
        let operation = target
            .and_then(|target| target.strip_prefix("TrentService."))
            .unwrap_or_default()
            .to_owned();
        if head.method != Method::POST
            || head.uri.path() != "/"
            || head.uri.query().is_some()
            || operation.is_empty()
        {
            return Refusal::new("UnknownOperationException", "").response();
        }
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            return Refusal::new("RequestEntityTooLargeException", "").response();
        };
        let body = body.to_bytes();
        let mut principal = String::new();
        let outcome = self.decide(&head.headers, &operation, &body, &mut principal);
        let error = outcome
            .as_ref()
            .err()
            .map(|refusal| refusal.kind.to_owned());
        tracing::info!(operation, principal, error, "kms");
        let (response, recipient) = match outcome {
            Ok((answer, recipient)) => (answer, recipient),
            Err(refusal) => (refusal.response(), None),
        };
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Event {
                operation,
                principal,
                error,
                recipient,
            });
        response
    }

    #[expect(clippy::type_complexity, reason = "used once, above")]
    fn decide(
        &self,
        headers: &http::HeaderMap,
        operation: &str,
        body: &[u8],
        caller: &mut String,
    ) -> Result<(Response<Full<Bytes>>, Option<Vec<u8>>), Refusal> {
        let now = (self.now)();
        let principal = auth::authenticate(headers, body, &self.principals, &self.region, now)?;
        caller.clone_from(&principal.arn);
        let desk = Desk {
            keys: &self.keys,
            verifier: &self.verifier,
            principal: &principal.arn,
            now,
        };
        let mut done = desk.run(operation, body)?;
        if let Some(spoil) = &*self.spoil.lock().unwrap_or_else(PoisonError::into_inner) {
            spoil(operation, &mut done.answer);
        }
        Ok((
            answer(StatusCode::OK, done.answer.to_string()),
            done.recipient,
        ))
    }
}
