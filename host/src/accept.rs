use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use transport::{AcceptBackoff, Listener, Stream};

/// A class of connections: its name in the log, how many at a time, how long they have to end at shutdown.
pub(crate) struct Class<'a> {
    pub(crate) name: &'a str,
    pub(crate) max_connections: usize,
    pub(crate) drain: Duration,
}

/// Accepts until `shutdown` and gives each stream to `serve`, in a task of its own; one more than allowed is closed at once
/// and told to `refused`. What is open at shutdown has the class's drain time to end.
///
/// # Errors
/// Only when the listener itself is broken.
pub(crate) async fn accept<F>(
    listener: Listener,
    class: Class<'_>,
    shutdown: impl Future<Output = ()>,
    refused: impl Fn(),
    serve: impl Fn(Stream) -> F,
) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(class.max_connections));
    let mut connections = JoinSet::new();
    let mut backoff = AcceptBackoff::default();
    let mut shutdown = pin!(shutdown);

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
                tracing::warn!(class = class.name, error = %e, "accept failed");
                tokio::select! {
                    () = &mut shutdown => break Ok(()),
                    () = sleep(rest) => continue,
                }
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            refused();
            tracing::debug!(class = class.name, "connection limit reached, closing");
            continue;
        };
        let served = serve(stream);
        connections.spawn(async move {
            served.await;
            drop(slot);
        });
    };

    drop(listener);
    let drained = timeout(class.drain, async {
        while connections.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        let cut = connections.len();
        tracing::warn!(
            class = class.name,
            connections = cut,
            "drain deadline passed, cutting"
        );
        connections.shutdown().await;
    }
    outcome
}
