//! Boot, serve, drain.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use identity::{BundleHandle, Clock as IdentityClock, Leaf, federation};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use transport::{ServeLimits, Stream, serve, serve_with_turnover};

use crate::api::{self, App, Budget};
use crate::boot::{Booted, boot};
use crate::config::{Config, FollowedBundle, Limits};
use crate::control::{self, Health};
use crate::rate::Rate;
use crate::reload::Reload;
use crate::tls::{self, Sessions};
use crate::{Clock, Error, Platform, renewal};

/// How often histograms are folded and idle callers forgotten.
const UPKEEP: Duration = Duration::from_secs(30);
/// The host's own scrapers and probes; nobody else can reach it.
const CONTROL_CONNECTIONS: usize = 32;

/// Runs one enclave until `shutdown`, then finishes what it has accepted.
///
/// # Errors
/// Why it did not come up, or what broke.
pub async fn run(
    config: Config,
    platform: Platform,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let (stop, stopping) = watch::channel(false);
    let signal = AbortOnDrop::spawn(async move {
        shutdown.await;
        tracing::info!("shutting down");
        stop.send_replace(true);
        // The sender lives until the end, so that nobody takes its loss for a signal.
        stop.closed().await;
    });
    let booted = tokio::select! {
        booted = boot(config, &platform) => booted?,
        () = stopped(stopping.clone()) => return Ok(()),
    };
    let outcome = listen(booted, platform, stopping).await;
    drop(signal);
    outcome
}

/// Step 9 of the boot: everything is in place, so the listeners open.
async fn listen(
    booted: Booted,
    platform: Platform,
    stopping: watch::Receiver<bool>,
) -> Result<(), Error> {
    let Booted {
        config,
        boot_id,
        keys,
        credentials,
        models,
        metrics,
    } = booted;
    let limits = config.limits.clone();
    let trust = config.trust;
    let bundles = trust.bundles.into_handle();
    let acceptor = tls::server_config(&credentials, Arc::clone(&bundles), trust.callers)
        .map_err(Error::Tls)?;
    let leaf = credentials
        .leaf()
        .ok_or(Error::Internal("no identity after boot"))?;
    let serving = serve_limits(&limits, &leaf, (platform.now)());

    let models = Arc::new(models);
    let app = Arc::new(App {
        spiffe_id: config.spiffe_id.clone(),
        config_digest: config.digest,
        boot_id,
        authorization: config.authorization,
        attester: Arc::clone(&platform.attester),
        evidence_slots: Arc::new(Semaphore::new(limits.evidence_in_flight)),
        bodies: Budget::mebibytes(limits.body_memory_mib),
        answers: Budget::mebibytes(limits.body_memory_mib),
        rate: Rate::new(limits.requests_per_minute, limits.burst, limits.max_callers),
        metrics: Arc::clone(&metrics),
        limits,
        now: Arc::clone(&platform.now),
    });
    let health = Arc::new(Health {
        credentials: Arc::clone(&credentials),
        models: Arc::clone(&models),
        metrics: Arc::clone(&metrics),
        reload: Reload {
            allowed: config.reload,
            configured: config.models,
            limits: config.limits,
            keys: Arc::clone(&keys),
            models: Arc::clone(&models),
            metrics: Arc::clone(&metrics),
            now: Arc::clone(&platform.now),
            one: Mutex::new(()),
        },
        draining: AtomicBool::new(false),
        now: Arc::clone(&platform.now),
    });

    let bind = async |endpoint: &transport::Endpoint| {
        endpoint.bind().await.map_err(|source| Error::Listen {
            endpoint: endpoint.clone(),
            source,
        })
    };
    let serve_listener = bind(&config.listen.serve).await?;
    let control_listener = bind(&config.listen.control).await?;
    tracing::info!(
        step = 9,
        serve = %serve_listener.local(),
        control = %control_listener.local(),
        "listening"
    );

    let renewal = renewal::keep(
        Arc::clone(&keys.broker),
        config.spiffe_id,
        Arc::clone(&credentials),
        Arc::clone(&metrics),
        Arc::clone(&platform.now),
    );
    let reloading = Arc::clone(&health);
    let following: Vec<_> = trust
        .followed
        .into_iter()
        .map(|bundle| AbortOnDrop::spawn(follow(bundle, &bundles, &platform.now)))
        .collect();
    let background = [
        AbortOnDrop::spawn(renewal),
        AbortOnDrop::spawn(async move { reloading.reload.at_hangup().await }),
        AbortOnDrop::spawn(upkeep(Arc::clone(&app))),
    ];

    // The control listener outlives the drain, so that the host can watch it.
    let (drained, after_drain) = watch::channel(false);
    let control_router = control::router(Arc::clone(&health));
    let control = serve(
        control_listener,
        move |stream: Stream| {
            let router = control_router.clone();
            async move { Ok::<_, io::Error>((stream, router)) }
        },
        ServeLimits {
            max_connections: CONTROL_CONNECTIONS,
            drain: Duration::from_secs(1),
            ..serving
        },
        stopped(after_drain),
    );
    let sessions = Sessions {
        acceptor: TlsAcceptor::from(acceptor),
        credentials,
        models: Arc::clone(&models),
        router: api::router(app),
        metrics,
        now: platform.now,
    };
    let callers = async {
        let stopping = async {
            stopped(stopping).await;
            health.draining.store(true, Ordering::Relaxed);
        };
        let accept = move |stream| sessions.clone().accept(stream);
        let turnover = models.turnover();
        let outcome =
            serve_with_turnover(serve_listener, accept, serving, turnover, stopping).await;
        models.stop();
        drained.send_replace(true);
        outcome
    };
    let (callers, control) = tokio::join!(callers, control);
    drop((background, following));
    callers.and(control).map_err(Error::Serve)
}

/// Keeps another trust domain's bundle up to date, for the handshakes to come.
fn follow(
    bundle: FollowedBundle,
    bundles: &BundleHandle,
    now: &Clock,
) -> impl Future<Output = ()> + Send + 'static {
    let clock = IdentityClock::from_fn(Arc::clone(now));
    let FollowedBundle { dial, endpoint } = bundle;
    let bundles = Arc::clone(bundles);
    async move { federation::follow(endpoint, bundles, clock, || dial.connect()).await }
}

async fn upkeep(app: Arc<App>) {
    let mut tick = tokio::time::interval(UPKEEP);
    loop {
        tick.tick().await;
        app.metrics.upkeep();
        app.rate.upkeep();
    }
}

/// Connections are closed gently before half the identity's life is over: at any moment the identity in use has at
/// least that long to live, unless renewal fails, and then `tls::Mortal` cuts them.
fn serve_limits(limits: &Limits, leaf: &Leaf, now: SystemTime) -> ServeLimits {
    let life = leaf.not_after.duration_since(now).unwrap_or_default();
    let age = Duration::from_secs(limits.connection_max_age_s).min(life / 2);
    ServeLimits {
        max_connections: limits.max_connections,
        handshake_timeout: Duration::from_secs(limits.handshake_timeout_s),
        header_timeout: Duration::from_secs(limits.header_timeout_s),
        idle_timeout: Duration::from_secs(limits.idle_timeout_s),
        max_age: Some(age),
        max_streams: limits.max_streams,
        drain: Duration::from_secs(limits.drain_s),
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_err() {
        tracing::debug!("whoever would stop us is gone; stopping");
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(AbortHandle);

impl AbortOnDrop {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
