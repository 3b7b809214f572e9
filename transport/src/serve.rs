//! The one HTTP accept loop: HTTP/1.1 and HTTP/2 on any [`Listener`], every wait bounded, every connection counted.

mod connection;
mod stall;

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::Service;

use crate::{AcceptBackoff, Listener, Stream};

/// More than a request line, a bearer token and a traceparent; less than a nuisance. Also hyper's least for HTTP/1.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// What hyper may buffer of one HTTP/1 connection, head and body chunk.
const MAX_H1_BUFFER: usize = 64 << 10;
/// What hyper may buffer of one HTTP/2 stream towards a slow reader.
const MAX_H2_SEND_BUFFER: usize = 64 << 10;
/// A peer that vanished without a FIN is found after twice this.
const H2_KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Limits of [`serve`]. Each has a default that suits a public endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeLimits {
    /// Connections at a time, handshakes included. One more is closed at once, so that its caller can go elsewhere.
    pub max_connections: usize,
    /// For `accept`: TLS and whatever else comes before the first request.
    pub handshake_timeout: Duration,
    /// For one HTTP/1 request head; also how long an HTTP/1 connection is kept between requests.
    pub header_timeout: Duration,
    /// A connection without a request in flight for this long is closed, and one whose peer takes no bytes for this long.
    pub idle_timeout: Duration,
    /// After this a connection takes no new request (GOAWAY); what is in flight has `drain` to finish.
    pub max_age: Option<Duration>,
    /// HTTP/2 streams of one connection.
    pub max_streams: u32,
    /// How long requests in flight have to finish after shutdown, before they are cut.
    pub drain: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            max_age: Some(Duration::from_secs(3600)),
            max_streams: 64,
            drain: Duration::from_secs(30),
        }
    }
}

/// What answers the requests of a connection: any [`Service`] from requests to responses that may go from one thread to another.
pub trait HttpService:
    Service<
        Request<Incoming>,
        Response = Response<Self::Body>,
        Error: Into<Box<dyn StdError + Send + Sync>>,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
    /// Of its responses.
    type Body: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>>
        + Unpin
        + Send
        + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: Body<Data: Send> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Body = B;
}

/// Serves HTTP on `listener` until `shutdown`, then finishes what is in flight, within `limits.drain`.
///
/// `accept` turns one raw stream into the stream to speak HTTP on and the service for it: it is the place for TLS, and for
/// facts of the connection that the service must know. It runs in the connection's own task under `handshake_timeout`, so a
/// slow peer delays nobody. Dropping the returned future cuts all connections.
///
/// # Errors
/// Only when the listener itself is broken. Errors of single connections end those connections; a lack of file descriptors
/// is waited out.
pub async fn serve<A, F, Io, S>(
    listener: Listener,
    accept: A,
    limits: ServeLimits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    A: Fn(Stream) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<(Io, S)>> + Send + 'static,
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService,
{
    let (_never, turnover) = watch::channel(());
    serve_with_turnover(listener, accept, limits, turnover, shutdown).await
}

/// As [`serve`]. In addition, each change of `turnover` ends the connections that were accepted before it, as their age would: they
/// take no new request, and what is in flight has `limits.drain` to finish.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with_turnover<A, F, Io, S>(
    listener: Listener,
    accept: A,
    limits: ServeLimits,
    turnover: watch::Receiver<()>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    A: Fn(Stream) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<(Io, S)>> + Send + 'static,
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService,
{
    let (stop, stopping) = watch::channel(false);
    // On a worker, whoever waits for it here: connections accepted on a program's main thread would each have to be woken up on
    // another. A set, because it aborts what is in it when it is dropped.
    let mut accepting = JoinSet::new();
    accepting.spawn(accept_all(listener, accept, limits, turnover, stopping));
    let outcome = tokio::select! {
        biased;
        () = shutdown => {
            stop.send_replace(true);
            accepting.join_next().await
        }
        outcome = accepting.join_next() => outcome,
    };
    match outcome {
        Some(Ok(outcome)) => outcome,
        Some(Err(ended)) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(ended) => Err(io::Error::other(ended)),
        },
        None => Ok(()),
    }
}

/// Until `stopping` says so; then until the drain is over.
async fn accept_all<A, F, Io, S>(
    listener: Listener,
    accept: A,
    limits: ServeLimits,
    turnover: watch::Receiver<()>,
    stopping: watch::Receiver<bool>,
) -> io::Result<()>
where
    A: Fn(Stream) -> F,
    F: Future<Output = io::Result<(Io, S)>> + Send + 'static,
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService,
{
    let http = Arc::new(http(&limits));
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let (stop, drains) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut backoff = AcceptBackoff::default();
    let mut shutdown = pin!(stopped(stopping));

    let outcome = loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break Ok(()),
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => {
                backoff.succeeded();
                stream
            }
            Err(e) => {
                let Some(rest) = backoff.failed(&e) else {
                    break Err(e);
                };
                tracing::warn!(listener = %listener.local(), error = %e, "accept failed");
                tokio::select! {
                    () = &mut shutdown => break Ok(()),
                    () = sleep(rest) => continue,
                }
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::debug!(listener = %listener.local(), "connection limit reached, closing");
            continue;
        };
        // Before `accept` looks at anything that a turnover changes: one that comes later is noticed.
        let mut turnover = turnover.clone();
        turnover.mark_unchanged();
        let handshake = accept(stream);
        let (http, drains) = (Arc::clone(&http), drains.clone());
        connections.spawn(async move {
            connection::run(handshake, &http, limits, turnover, drains).await;
            drop(slot);
        });
    };

    // Nobody is accepted any more: closed before the drain, so that a successor can already bind.
    drop(listener);
    stop.send_replace(true);
    let drained = timeout(limits.drain, async {
        while connections.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "drain deadline passed, cutting"
        );
        connections.shutdown().await;
    }
    outcome
}

/// Also when whoever would say so is gone.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    stopping.wait_for(|stop| *stop).await.ok();
}

fn http(limits: &ServeLimits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_H1_BUFFER);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_KEEP_ALIVE)
        .keep_alive_timeout(H2_KEEP_ALIVE)
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(MAX_H2_SEND_BUFFER);
    http
}
