//! TLS ends here. Each connection carries what was proved about it, and dies no later than the certificates it was
//! built on.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::future::RouteFuture;
use http::Request;
use hyper::body::Incoming;
use identity::{Accept, BundleHandle, ClientAuth, Credentials, Leaf, TrustDomain};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service;
use transport::Stream;

use crate::Clock;
use crate::metrics::Metrics;
use crate::models::{Generation, Models};

#[cfg(test)]
mod tests;

const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Facts of one finished handshake, in the extensions of every request that came over it.
pub(crate) struct Connection {
    /// RFC 9266 channel binding.
    pub(crate) exporter: [u8; 32],
    /// The caller, whose chain was verified in the handshake.
    pub(crate) caller: Leaf,
    /// The certificate that this connection saw from us; a renewal since then does not change it.
    pub(crate) own: Arc<Leaf>,
    /// What this connection's evidence names, and what answers on it.
    pub(crate) models: Arc<Generation>,
    /// One evidence document at a time per connection.
    pub(crate) attesting: Semaphore,
}

/// The TLS configuration: mutual, TLS 1.3 only, callers from the trusted domains.
///
/// # Errors
/// A configuration that rustls refuses: a bug of ours.
pub(crate) fn server_config(
    credentials: &Arc<Credentials>,
    bundles: BundleHandle,
    callers: Vec<TrustDomain>,
) -> Result<Arc<ServerConfig>, identity::Error> {
    let clients = ClientAuth::Svid {
        bundles,
        accept: Accept::TrustDomains(callers),
    };
    identity::server_config(Arc::clone(credentials), clients, &ALPN)
}

/// Turns a raw stream into TLS and the service for that one connection.
#[derive(Clone)]
pub(crate) struct Sessions {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) models: Arc<Models>,
    pub(crate) router: Router,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) now: Clock,
}

impl Sessions {
    /// Handshake, then the facts. Runs in the connection's own task, under the accept loop's time limit.
    pub(crate) async fn accept(
        self,
        stream: Stream,
    ) -> io::Result<(Mortal<TlsStream<Stream>>, ConnectionService)> {
        let outcome = self.handshake(stream).await;
        self.metrics.handshake(outcome.is_ok());
        let (stream, connection) = outcome?;
        let service = ConnectionService {
            router: self.router,
            connection: Arc::new(connection),
        };
        Ok((stream, service))
    }

    async fn handshake(
        &self,
        stream: Stream,
    ) -> io::Result<(Mortal<TlsStream<Stream>>, Connection)> {
        let before = self.credentials.leaf();
        let stream = self.acceptor.accept(stream).await?;
        let facts = identity::server_facts(stream.get_ref().1).map_err(io::Error::other)?;
        // rustls does not tell which certificate it sent. If it was replaced meanwhile we cannot know, and evidence
        // for the wrong one would be refused anyway: let the caller connect again.
        let own = match (before, self.credentials.leaf()) {
            (Some(before), Some(after)) if before.sha256 == after.sha256 => after,
            _ => {
                return Err(io::Error::other(
                    "the identity was renewed during the handshake",
                ));
            }
        };
        let caller = facts
            .peer
            .ok_or_else(|| io::Error::other("no client certificate"))?;
        let left = life_left(&own, &caller, (self.now)())?;
        let connection = Connection {
            exporter: facts.exporter,
            caller,
            own,
            models: self.models.current(),
            attesting: Semaphore::new(1),
        };
        Ok((Mortal::new(stream, left), connection))
    }
}

/// How long both certificates are still valid.
fn life_left(own: &Leaf, caller: &Leaf, now: SystemTime) -> io::Result<Duration> {
    own.not_after
        .min(caller.not_after)
        .duration_since(now)
        .map_err(|_past| io::Error::other("a certificate of this connection has expired"))
}

/// The router, telling each handler over which connection the request came.
#[derive(Clone)]
pub(crate) struct ConnectionService {
    router: Router,
    connection: Arc<Connection>,
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request
            .extensions_mut()
            .insert(Arc::clone(&self.connection));
        self.router.call(request)
    }
}

/// A stream that fails once its time is over. The accept loop closes old connections gently long before; this is
/// for the caller that does not leave, and for callers whose own certificate ends early.
pub(crate) struct Mortal<S> {
    stream: S,
    end: Pin<Box<Sleep>>,
    over: bool,
}

impl<S> Mortal<S> {
    pub(crate) fn new(stream: S, life: Duration) -> Self {
        Self {
            stream,
            end: Box::pin(tokio::time::sleep(life)),
            over: false,
        }
    }

    fn alive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.over || self.end.as_mut().poll(cx).is_ready() {
            self.over = true;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "a certificate of this connection has expired",
            ));
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Mortal<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.alive(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mortal<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.alive(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.alive(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
