//! A development SPIFFE authority: what a SPIRE agent is to callers in production, in one function.
//!
//! It serves the SPIFFE Workload API to whoever reaches its endpoint; a real agent finds out first who that is. So it listens
//! on a private unix socket or on loopback only.

mod error;
mod snapshot;
mod workload_api;

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::SpiffeId;
use identity::issue::Authority;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use transport::{Endpoint, Listener, ServeLimits};

pub use error::Error;
use snapshot::Snapshot;

/// The time SVIDs are made at.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// An identity that callers of the Workload API are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Of the authority's trust domain, with a path.
    pub spiffe_id: SpiffeId,
}

/// The clock may jump (a laptop that slept), so the age of SVIDs is looked at this often.
const LOOK: Duration = Duration::from_secs(10);

/// Serves the same entries until `shutdown`; see [`serve_changing`].
///
/// # Errors
/// As [`serve_changing`].
pub async fn serve(
    authority: Authority,
    entries: Vec<Entry>,
    endpoints: Vec<Endpoint>,
    ttl: Duration,
    now: Clock,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (_fixed, entries) = watch::channel(entries);
    serve_changing(authority, entries, endpoints, ttl, now, shutdown).await
}

/// Serves the Workload API on all `endpoints` until `shutdown`.
///
/// Each stream gets the complete state at once, again when SVIDs have lived half of `ttl`, and again when `entries` change: an
/// identity that is gone from a message is withdrawn. The first entry is the default identity. With no entry left, callers are
/// refused with `PermissionDenied`.
///
/// # Errors
/// An endpoint that is open to the network or cannot be bound, or an entry the authority cannot sign, before anything is
/// served; later only a broken listener.
pub async fn serve_changing(
    authority: Authority,
    mut entries: watch::Receiver<Vec<Entry>>,
    endpoints: Vec<Endpoint>,
    ttl: Duration,
    now: Clock,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut made = now();
    let first = Snapshot::make(&authority, &entries.borrow_and_update(), ttl, made)?;
    let (snapshots, current) = watch::channel(Arc::new(first));
    let mut listeners = Vec::with_capacity(endpoints.len());
    for endpoint in &endpoints {
        listeners.push(listen(endpoint).await?);
    }

    let (stop, stopping) = watch::channel(false);
    let mut servers = JoinSet::new();
    for listener in listeners {
        tracing::info!(listen = %listener.local(), "SPIFFE Workload API (development)");
        let service = workload_api::service(current.clone());
        let mut stopping = stopping.clone();
        servers.spawn(transport::serve(
            listener,
            move |stream| {
                let service = service.clone();
                async move { Ok((stream, service)) }
            },
            limits(),
            async move {
                stopping.wait_for(|stop| *stop).await.ok();
            },
        ));
    }
    drop(current);

    let mut shutdown = pin!(shutdown);
    let mut changing = true;
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = servers.join_next() => {
                return ended.map_err(std::io::Error::other).and_then(|ended| ended).map_err(Error::Stopped);
            }
            changed = entries.changed(), if changing => changing = changed.is_ok(),
            () = sleep(LOOK.min(ttl / 8)) => {
                let aged = now().duration_since(made).is_ok_and(|age| age >= ttl / 2);
                if !aged {
                    continue;
                }
            }
        }
        let at = now();
        match Snapshot::make(&authority, &entries.borrow_and_update(), ttl, at) {
            Ok(snapshot) => {
                made = at;
                snapshots.send_replace(Arc::new(snapshot));
            }
            Err(error) => tracing::error!(%error, "SVIDs not renewed, the old ones stay"),
        }
    }
    // Streams never end by themselves: this ends them, and then the servers have nothing to wait for.
    drop(snapshots);
    stop.send_replace(true);
    while let Some(ended) = servers.join_next().await {
        ended
            .map_err(std::io::Error::other)
            .and_then(|ended| ended)
            .map_err(Error::Stopped)?;
    }
    Ok(())
}

fn limits() -> ServeLimits {
    ServeLimits {
        max_connections: 256,
        // Callers hold their stream for as long as they run.
        max_age: None,
        max_streams: 16,
        drain: Duration::from_secs(1),
        ..ServeLimits::default()
    }
}

/// SPIFFE Workload Endpoint §3: TCP only where the source address tells who calls, and as an IP address (§4).
async fn listen(endpoint: &Endpoint) -> Result<Listener, Error> {
    let private = match endpoint {
        Endpoint::Unix(_) => true,
        Endpoint::Tcp(address) => address.rsplit_once(':').is_some_and(|(host, _)| {
            let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
            ip.is_ok_and(|ip| ip.is_loopback())
        }),
        Endpoint::Vsock { .. } | Endpoint::Hvsock { .. } => false,
    };
    if !private {
        return Err(Error::Endpoint(endpoint.clone()));
    }
    endpoint.bind().await.map_err(Error::Listen)
}

#[cfg(test)]
mod tests;
