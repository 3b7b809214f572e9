//! A server with a real SVID and a simulated secure module that says whatever a test wants it to say.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use attestation::{
    AttestationRequest, Binding, BootId, ModelIdentity, Nonce, Pcr, Pcrs, ReferenceValues,
    SessionSubject, Sha256Digest, Subject, TrustAnchor,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gateway::{ConnectOptions, Fleet, ModelRule, Policy, ServerIds};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::issue::{Authority, new_svid};
use identity::{
    Accept, ClientAuth, Credentials, Leaf, SessionFacts, SpiffeId, Svid, TrustBundles, TrustDomain,
};
use serde_json::{Value, json};
use sim::nsm::{DocumentBuilder, SimNsm, SimPki};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

pub(crate) const DOMAIN: &str = "cloister.test";
pub(crate) const SERVER: &str = "spiffe://cloister.test/enclave/demo";
pub(crate) const CALLER: &str = "spiffe://cloister.test/app/caller";
pub(crate) const MODEL: &str = "demo";
/// As the enclave's default.
const MAX_STREAMS: u32 = 64;
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// The keys of one test: a SPIFFE authority, a root of evidence, an image.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) pki: SimPki,
    pub(crate) nsm: SimNsm,
    pub(crate) config_digest: Sha256Digest,
    pub(crate) boot_id: BootId,
    pub(crate) models: Vec<ModelIdentity>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_ttl(24 * HOUR)
    }

    fn with_ttl(ttl: Duration) -> Arc<Self> {
        let domain = TrustDomain::new(DOMAIN).unwrap();
        let pki = SimPki::generate(now());
        // The module's own copy: the type has no other.
        let module = SimPki::from_json(&pki.to_json()).unwrap();
        Arc::new(Self {
            authority: Authority::generate_root(&domain, now(), ttl).unwrap(),
            nsm: SimNsm::new(module, image(), Arc::new(now)),
            pki,
            config_digest: Sha256Digest::of(b"the measured configuration"),
            boot_id: BootId::random(),
            models: vec![ModelIdentity {
                name: MODEL.to_owned(),
                epoch: 7,
                manifest_sha256: Sha256Digest::of(b"the manifest"),
                publisher_sha256: Sha256Digest::of(b"the publisher"),
            }],
        })
    }

    pub(crate) fn svid(&self, id: &str, ttl: Duration) -> Svid {
        new_svid(&self.authority, &SpiffeId::new(id).unwrap(), ttl, now()).unwrap()
    }

    pub(crate) fn bundles(&self) -> TrustBundles {
        TrustBundles::from_pem(self.authority.trust_domain(), &self.authority.cert_pem()).unwrap()
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy {
            serial: 1,
            server_ids: ServerIds::try_new(vec![SpiffeId::new(SERVER).unwrap()]).unwrap(),
            trust_anchor: TrustAnchor::from_pem(self.pki.root_pem().as_bytes()).unwrap(),
            images: ReferenceValues::try_new(vec![image()]).unwrap(),
            fleet: Fleet::default(),
            config_digests: vec![self.config_digest],
            models: vec![ModelRule {
                name: MODEL.to_owned(),
                min_epoch: 7,
                manifest_sha256: Some(self.models[0].manifest_sha256),
                publishers: vec![self.models[0].publisher_sha256],
            }],
            max_age: Duration::from_secs(300),
            reattest: Duration::from_secs(600),
        }
    }

    pub(crate) fn options(&self, enclave: &FakeEnclave, policy: Policy) -> ConnectOptions {
        let credentials = Credentials::new();
        credentials.install(self.svid(CALLER, HOUR));
        ConnectOptions {
            endpoint: enclave.endpoint(),
            credentials: Arc::new(credentials),
            bundles: self.bundles().into_handle(),
            policy: Arc::new(policy),
            now: Arc::new(now),
        }
    }

    /// What an honest enclave binds its evidence to.
    pub(crate) fn binding(&self, asked: &Asked) -> Binding {
        Binding {
            config_digest: self.config_digest,
            boot_id: self.boot_id,
            subject: Subject::Session(self.subject(asked)),
        }
    }

    pub(crate) fn subject(&self, asked: &Asked) -> SessionSubject {
        let caller = asked.facts.peer.as_ref().unwrap();
        SessionSubject {
            tls_spki_sha256: Sha256Digest::of(&asked.server.spki_der),
            exporter: asked.facts.exporter,
            peer_leaf_sha256: Sha256Digest::from(caller.sha256),
            spiffe_id: asked.server.id.to_string(),
            svid_serial: asked.server.serial.clone(),
            models: self.models.clone(),
        }
    }

    /// The whole honest answer, after `edit` had its way with binding, document and what is said beside them.
    pub(crate) fn answer(&self, asked: &Asked, edit: impl FnOnce(&mut Draft)) -> Said {
        let mut draft = Draft {
            nonce: asked.nonce.clone(),
            public_key: asked.server.spki_der.clone(),
            binding: self.binding(asked),
            document: Box::new(|_| {}),
            config_digest: self.config_digest,
            models: self.models.clone(),
        };
        edit(&mut draft);
        let user_data = draft.binding.user_data();
        let request = AttestationRequest {
            user_data: &user_data,
            nonce: &draft.nonce,
            public_key: &draft.public_key,
        };
        let (mut document, leaf) = self.nsm.document(&request).unwrap();
        (draft.document)(&mut document);
        let evidence = document.sign(&leaf).unwrap();
        let said = json!({
            "evidence": STANDARD.encode(evidence.as_bytes()),
            "config_digest": draft.config_digest,
            "boot_id": draft.binding.boot_id,
            "models": draft.models,
        });
        (StatusCode::OK, said)
    }
}

/// An answer before it is signed.
pub(crate) struct Draft {
    pub(crate) nonce: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
    pub(crate) binding: Binding,
    pub(crate) document: Box<dyn FnOnce(&mut DocumentBuilder)>,
    /// Said beside the document.
    pub(crate) config_digest: Sha256Digest,
    pub(crate) models: Vec<ModelIdentity>,
}

fn image() -> Pcrs {
    (0..=4)
        .map(|index| (index, Pcr::ZERO.extend(&[index])))
        .collect()
}

/// One challenge, as the server sees it.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) nonce: Vec<u8>,
    pub(crate) facts: SessionFacts,
    pub(crate) server: Leaf,
    /// How many challenges this enclave had before.
    pub(crate) before: usize,
}

pub(crate) type Said = (StatusCode, Value);
pub(crate) type Answering = Pin<Box<dyn Future<Output = Said> + Send>>;

/// What the enclave does about a challenge.
pub(crate) type Respond = Arc<dyn Fn(Asked) -> Answering + Send + Sync>;

/// An enclave that answers at once.
pub(crate) fn at_once(respond: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Respond {
    Arc::new(move |asked| {
        let said = respond(&asked);
        Box::pin(async move { said })
    })
}

pub(crate) fn honest(world: &Arc<World>) -> Respond {
    let world = Arc::clone(world);
    at_once(move |asked| world.answer(asked, |_| {}))
}

/// A request that arrived, in full.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) seen: Mutex<Vec<Seen>>,
    /// Every plaintext byte that came in before the first challenge of its connection was answered.
    pub(crate) early: Mutex<Vec<u8>>,
    /// Streams to serve under `/v1/stream`, one per request.
    pub(crate) streams: Mutex<VecDeque<mpsc::Receiver<Bytes>>>,
    challenges: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    /// Told, the open connections say GOAWAY and finish what is in flight.
    pub(crate) goodbye: Notify,
}

impl Log {
    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|seen| seen.path.clone())
            .collect()
    }

    /// A body that the test feeds.
    pub(crate) fn stream(&self) -> mpsc::Sender<Bytes> {
        let (sender, receiver) = mpsc::channel(1);
        self.streams.lock().unwrap().push_back(receiver);
        sender
    }
}

pub(crate) struct FakeEnclave {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) log: Arc<Log>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for FakeEnclave {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl FakeEnclave {
    pub(crate) async fn start(world: &Arc<World>, svid: Svid, respond: Respond) -> Self {
        Self::start_on(
            world,
            svid,
            respond,
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        )
    }

    pub(crate) fn start_on(
        world: &Arc<World>,
        svid: Svid,
        respond: Respond,
        listener: TcpListener,
    ) -> Self {
        let server = svid.leaf().clone();
        let credentials = Arc::new(Credentials::new());
        credentials.install(svid);
        let clients = ClientAuth::Svid {
            bundles: world.bundles().into_handle(),
            accept: Accept::TrustDomains(vec![TrustDomain::new(DOMAIN).unwrap()]),
        };
        let tls = identity::server_config(credentials, clients, &[b"h2"]).unwrap();
        let log = Arc::new(Log::default());
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(accept(
            listener,
            TlsAcceptor::from(tls),
            Arc::clone(&log),
            server,
            respond,
        ));
        Self {
            address,
            log,
            accepting,
        }
    }

    pub(crate) fn endpoint(&self) -> transport::Endpoint {
        transport::Endpoint::Tcp(self.address.to_string())
    }
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    log: Arc<Log>,
    server: Leaf,
    respond: Respond,
) {
    // Dropping the set cuts every connection, as the end of an enclave does.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        log.connections.fetch_add(1, Ordering::Relaxed);
        let (tls, log, server, respond) = (
            tls.clone(),
            Arc::clone(&log),
            server.clone(),
            Arc::clone(&respond),
        );
        connections.spawn(async move {
            let _end = connection(tcp, tls, log, server, respond).await;
        });
    }
}

async fn connection(
    tcp: TcpStream,
    tls: TlsAcceptor,
    log: Arc<Log>,
    server: Leaf,
    respond: Respond,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tcp.set_nodelay(true)?;
    let stream = tls.accept(tcp).await?;
    let facts = identity::server_facts(stream.get_ref().1)?;
    let answered = Arc::new(AtomicUsize::new(0));
    let stream = Recorded {
        inner: stream,
        log: Arc::clone(&log),
        answered: Arc::clone(&answered),
    };
    let ending = Arc::clone(&log);
    let service = service_fn(move |request: Request<Incoming>| {
        let (log, facts, server) = (Arc::clone(&log), facts.clone(), server.clone());
        let (respond, answered) = (Arc::clone(&respond), Arc::clone(&answered));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?;
            let (trailers, body) = (body.trailers().cloned(), body.to_bytes());
            let path = parts.uri.path().to_owned();
            log.seen.lock().unwrap().push(Seen {
                path: path.clone(),
                headers: parts.headers,
                body: body.clone(),
                trailers,
            });
            match path.as_str() {
                "/v1/attestation" => {
                    let question: Value = serde_json::from_slice(&body).unwrap();
                    let nonce = Nonce::from_base64url(question["nonce"].as_str().unwrap()).unwrap();
                    let before = log.challenges.fetch_add(1, Ordering::SeqCst);
                    let nonce = nonce.as_bytes().to_vec();
                    let (status, said) = respond(Asked {
                        nonce,
                        facts,
                        server,
                        before,
                    })
                    .await;
                    answered.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, hyper::Error>(whole(status, said.to_string()))
                }
                "/v1/stream" => {
                    let pieces = log.streams.lock().unwrap().pop_front().unwrap();
                    let frames = ReceiverStream::new(pieces).map(|piece| Ok(Frame::data(piece)));
                    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
                    response
                        .headers_mut()
                        .insert("content-type", "text/event-stream".parse().unwrap());
                    response
                        .headers_mut()
                        .insert("set-cookie", "a=b".parse().unwrap());
                    Ok(response)
                }
                _ => Ok(whole(
                    StatusCode::OK,
                    json!({"echo": String::from_utf8_lossy(&body)}).to_string(),
                )),
            }
        }
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        end = &mut serving => return Ok(end?),
        () = ending.goodbye.notified() => serving.as_mut().graceful_shutdown(),
    }
    Ok(serving.await?)
}

fn whole(status: StatusCode, text: String) -> Response<UnsyncBoxBody<Bytes, hyper::Error>> {
    let body = Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    response
}

/// Keeps what is read until the first challenge has been answered.
struct Recorded<S> {
    inner: S,
    log: Arc<Log>,
    answered: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        let ready = Pin::new(&mut self.inner).poll_read(cx, buf);
        if self.answered.load(Ordering::SeqCst) == 0 {
            self.log
                .early
                .lock()
                .unwrap()
                .extend_from_slice(&buf.filled()[start..]);
        }
        ready
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
