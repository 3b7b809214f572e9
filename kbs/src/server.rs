//! The two listeners. Nothing listens before every key, certificate and policy was read.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use identity::{ClientAuth, Clock, Credentials};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use transport::{Endpoint, Listener, ServeLimits, Stream, serve};

use crate::admin::AdminKeys;
use crate::api;
use crate::config::Config;
use crate::desk::{Desk, Now};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::offline::{self, Told};
use crate::policy::PolicyEngine;
use crate::session::{Challenges, Sessions};
use crate::store::{Outcome, Store};

const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];
/// Operators and their scrapers are few.
const CONTROL_CONNECTIONS: usize = 16;

/// A broker that listens.
pub struct Server {
    desk: Arc<Desk>,
    credentials: Arc<Credentials>,
    tls: TlsAcceptor,
    listener: Listener,
    control: Listener,
    limits: crate::config::Limits,
}

impl Server {
    /// Reads everything the configuration names, then opens both endpoints.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn bind(config: &Config, now: Now) -> Result<Self, Error> {
        let store = offline::open(config)?;
        store.check_integrity(&config.database)?;
        let verifier = config.verifier()?;
        let admins = config.admin_keys()?;
        let issuer = config.issuer(&now).await?;
        let svid = config.svid()?;
        let tokens = config.token_signer()?;
        if store.policy()?.is_none() {
            let text = config.initial_policy()?;
            if admins.two_person() {
                // Whoever writes this file is one person.
                tracing::warn!(
                    "the two-person rule is on: the policy of the configuration is not installed, everything is \
                     denied until `kbs policy set` or the network brings one with two approvals"
                );
            } else {
                offline::install_policy(&store, &text, "configuration", now())?;
            }
        }
        announce(config, &verifier, &admins, &store, now())?;
        tracing::info!(
            key_id = tokens.key_id(),
            configured = config.token.is_some(),
            "token key"
        );

        let credentials = Arc::new(Credentials::with_clock(Clock::from_fn(Arc::clone(&now))));
        credentials.install(svid);
        // Peers prove themselves by evidence and by tokens; a certificate is what some of them come for.
        let tls = identity::server_config(Arc::clone(&credentials), ClientAuth::None, ALPN)?;
        let desk = Arc::new(Desk {
            store,
            sessions: Sessions::new(config.limits.max_sessions),
            challenges: Challenges::new(config.limits.max_sessions),
            verifier,
            policy: PolicyEngine::default(),
            tokens,
            admins,
            issuer,
            metrics: Metrics::default(),
            slots: Arc::new(Semaphore::new(config.limits.max_decisions)),
            now,
        });
        let listen = |field: &'static str| move |source| Error::Listen { field, source };
        Ok(Self {
            desk,
            credentials,
            tls: TlsAcceptor::from(tls),
            listener: config.listen.bind().await.map_err(listen("listen"))?,
            control: config.control.bind().await.map_err(listen("control"))?,
            limits: config.limits,
        })
    }

    /// Where keys are asked for, with the real port.
    #[must_use]
    pub fn listen(&self) -> Endpoint {
        self.listener.local()
    }

    /// Where health is asked for, with the real port.
    #[must_use]
    pub fn control(&self) -> Endpoint {
        self.control.local()
    }

    /// Serves until `shutdown`, then finishes what is in flight.
    ///
    /// # Errors
    /// A listener that broke.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        tracing::info!(listen = %self.listen(), control = %self.control(), "serving");
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            shutdown.await;
            stop.send_replace(true);
        });
        let drain = Duration::from_secs(self.limits.drain_s);
        let limits = ServeLimits {
            max_connections: self.limits.max_connections,
            max_streams: 16,
            idle_timeout: Duration::from_secs(30),
            max_age: Some(Duration::from_secs(600)),
            drain,
            ..ServeLimits::default()
        };
        let control_limits = ServeLimits {
            max_connections: CONTROL_CONNECTIONS,
            max_streams: 8,
            drain,
            ..limits
        };

        let router = api::router(Arc::clone(&self.desk));
        let tls = self.tls;
        let accept = move |stream: Stream| {
            let (tls, router) = (tls.clone(), router.clone());
            async move { Ok((tls.accept(stream).await?, router)) }
        };
        let desk = Arc::clone(&self.desk);
        let control = control_router(self.desk, self.credentials);
        let accept_control = move |stream: Stream| {
            let control = control.clone();
            async move { Ok::<_, io::Error>((stream, control)) }
        };
        let stopped = |field: &'static str| move |source| Error::Stopped { field, source };
        let (main, control) = tokio::join!(
            serve(self.listener, accept, limits, stop_of(stopping.clone())),
            serve(
                self.control,
                accept_control,
                control_limits,
                stop_of(stopping)
            ),
        );
        // The last word on what this run did.
        let signed = tokio::task::spawn_blocking(move || desk.store.checkpoint()).await;
        main.map_err(stopped("listen"))?;
        control.map_err(stopped("control"))?;
        Ok(signed.unwrap_or(Ok(()))?)
    }
}

async fn stop_of(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone means stop as well.
    let _stopped = stopping.wait_for(|stop| *stop).await;
}

fn control_router(desk: Arc<Desk>, credentials: Arc<Credentials>) -> Router {
    let metrics = Arc::clone(&desk);
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route(
            "/readyz",
            get(move || ready(Arc::clone(&desk), Arc::clone(&credentials))),
        )
        .route(
            "/metrics",
            get(move || {
                let desk = Arc::clone(&metrics);
                async move { desk.metrics.render(desk.sessions.len()) }
            }),
        )
}

/// Ready while the store answers and no certificate of ours has ended.
async fn ready(
    desk: Arc<Desk>,
    credentials: Arc<Credentials>,
) -> Result<&'static str, (StatusCode, String)> {
    let now = (desk.now)();
    let unready = |what: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n"));
    if credentials
        .leaf()
        .is_none_or(|leaf| leaf.valid_at(now).is_err())
    {
        return Err(unready("own certificate is not valid"));
    }
    if let Some(issuer) = &desk.issuer {
        issuer.ready(now).map_err(unready)?;
    }
    match tokio::task::spawn_blocking(move || desk.store.ping()).await {
        Ok(Ok(())) => Ok("ready\n"),
        _ => Err(unready("store does not answer")),
    }
}

/// What an operator should read before trusting this process.
///
/// The rules go into the log as well: whoever changes them later cannot have had others all along.
fn announce(
    config: &Config,
    verifier: &attestation::Verifier,
    admins: &AdminKeys,
    store: &Store,
    now: SystemTime,
) -> Result<(), Error> {
    let anchor = verifier.anchor();
    if anchor.is_aws_nitro() {
        tracing::info!(root_sha256 = %anchor.fingerprint(), "evidence of AWS Nitro enclaves is accepted");
    } else {
        tracing::warn!(
            root_sha256 = %anchor.fingerprint(),
            "THE TRUST ANCHOR IS NOT AWS NITRO'S: evidence under this root proves only what its owner wants"
        );
    }
    let rule = if admins.two_person() { "two" } else { "one" };
    let reason = format!(
        "version {}, trust anchor {}, {} administrators of whom a change needs {rule}",
        env!("CARGO_PKG_VERSION"),
        anchor.fingerprint(),
        admins.len(),
    );
    let told = Told {
        outcome: Outcome::Started,
        path: "serve",
        policy: None,
        reason: Some(&reason),
    };
    told.commit(store, None, None, now)?;
    store.checkpoint()?;
    let (entries, hash) = store.log_head()?;
    let key = store.log_key().to_string();
    let checkpoint = config.checkpoints().file.display().to_string();
    tracing::info!(entries, hash, key, checkpoint, "release log");
    if admins.len() == 0 {
        tracing::info!(
            "no administrator is named: resources and policy change only with `kbs resource` and `kbs policy`"
        );
    }
    Ok(())
}

/// [`Server::bind`] and [`Server::run`].
///
/// # Errors
/// See [`Error`].
pub async fn run(
    config: Config,
    now: Now,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    Server::bind(&config, now).await?.run(shutdown).await
}
