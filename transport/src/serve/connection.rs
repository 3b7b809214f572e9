use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use super::stall::StallGuard;
use super::{HttpService, ServeLimits};

/// One connection from handshake to end: runs until the peer leaves, it has nothing to say, it is too old, or we stop.
pub(super) async fn run<F, Io, S>(
    handshake: F,
    http: &auto::Builder<TokioExecutor>,
    limits: ServeLimits,
    mut turnover: watch::Receiver<()>,
    mut stopping: watch::Receiver<bool>,
) where
    F: Future<Output = io::Result<(Io, S)>>,
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService,
{
    // No request was accepted yet, so a handshake is simply dropped at shutdown.
    let shaken = tokio::select! {
        shaken = timeout(limits.handshake_timeout, handshake) => shaken,
        () = stopped(&mut stopping) => return,
    };
    let (io, service) = match shaken {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(e)) => return tracing::debug!(error = %e, "handshake failed"),
        Err(_) => return tracing::debug!("handshake timed out"),
    };

    let in_flight = InFlight::new();
    let activity = in_flight.0.subscribe();
    let service = service_fn(move |request| {
        let answer = service.clone().oneshot(request);
        let counted = in_flight.enter();
        async move {
            answer.await.map(|response| {
                response.map(|body| Counted {
                    body,
                    _counted: counted,
                })
            })
        }
    });
    let io = TokioIo::new(StallGuard::new(io, limits.idle_timeout));
    let mut connection = pin!(http.serve_connection(io, service));

    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = idle(activity, limits.idle_timeout) => None,
        () = aged(limits.max_age) => None,
        () = turned_over(&mut turnover) => None,
        () = stopped(&mut stopping) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match timeout(limits.drain, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("connection cut at its drain deadline"),
            }
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "connection ended early");
    }
}

/// Resolves at shutdown; also when `serve` itself is gone.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_err() {
        tracing::debug!("the accept loop is gone");
    }
}

/// Resolves when what this connection was accepted for has been replaced; never where nobody is left to replace it.
async fn turned_over(turnover: &mut watch::Receiver<()>) {
    if turnover.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn aged(max_age: Option<Duration>) {
    match max_age {
        Some(age) => sleep(age).await,
        None => std::future::pending().await,
    }
}

/// Resolves when no request has been in flight for `limit`.
async fn idle(mut activity: watch::Receiver<usize>, limit: Duration) {
    loop {
        if activity.wait_for(|requests| *requests == 0).await.is_err() {
            return;
        }
        match timeout(limit, activity.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Requests from their head until the last byte of their answer has been handed over.
struct InFlight(watch::Sender<usize>);

impl InFlight {
    fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    fn enter(&self) -> Entered {
        self.0.send_modify(|requests| *requests += 1);
        Entered(self.0.clone())
    }
}

struct Entered(watch::Sender<usize>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0
            .send_modify(|requests| *requests = requests.saturating_sub(1));
    }
}

/// A response body that counts as a request in flight until it is dropped.
struct Counted<B> {
    body: B,
    _counted: Entered,
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
