use std::io;
use std::sync::Arc;
use std::time::Duration;

use identity::{Clock, Credentials, TrustBundles};
use spiffe::x509_source::X509SourceError;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use transport::{Endpoint, ServeLimits, serve};

use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::proxy::Proxy;
use crate::workload::Workload;
use crate::{Config, ConnectOptions, Now};

/// Why the gateway did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    #[error(
        "workload api {endpoint}: {source}; is the spiffe agent running, and does it know this program?"
    )]
    Workload {
        endpoint: String,
        source: X509SourceError,
    },
    #[error("{0}")]
    Listen(#[source] io::Error),
}

impl RunError {
    /// The program's exit code (BSD sysexits): everything that can stop a gateway is something it depends on.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Workload { .. } | Self::Listen(_) => 69,
        }
    }
}

/// Runs the proxy until `shutdown`, then finishes what is in flight.
///
/// # Errors
/// No identity from the Workload API, or an address that cannot be listened on. An enclave that cannot be verified is no
/// such error: it is answered to each request, and tried again.
pub async fn run(
    config: Config,
    now: Now,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    summary(&config);
    let policy = Arc::new(config.policy);
    let credentials = Arc::new(Credentials::with_clock(Clock::from_fn(Arc::clone(&now))));
    let bundles = TrustBundles::new().into_handle();

    let workload = Workload::start(
        &config.workload_api,
        Arc::clone(&credentials),
        Arc::clone(&bundles),
        policy.server_id.trust_domain().clone(),
    );
    let stop = CancellationToken::new();
    let signal = stop.clone();
    tokio::spawn(async move {
        shutdown.await;
        signal.cancel();
    });
    let workload = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        workload = workload => workload.map_err(|source| RunError::Workload {
            endpoint: config.workload_api.clone(),
            source,
        })?,
    };

    // Nothing listens before there is an identity to speak with.
    let listener = Endpoint::Tcp(config.listen.to_string());
    let listener = listener.bind().await.map_err(RunError::Listen)?;
    let control = match &config.control {
        Some(endpoint) => Some(endpoint.bind().await.map_err(RunError::Listen)?),
        None => None,
    };
    let changed = Arc::new(Notify::new());
    let metrics = Arc::new(Metrics::default());
    let options = ConnectOptions {
        endpoint: config.enclave,
        credentials,
        bundles,
        policy: Arc::clone(&policy),
        now,
    };
    let (pool, keep) = Pool::new(options, Arc::clone(&changed), Arc::clone(&metrics));
    let proxy = Proxy::new(pool, policy, metrics, config.limits);

    let limits = ServeLimits {
        max_connections: config.limits.connections,
        // A local client's connection may stay for as long as it likes.
        max_age: None,
        idle_timeout: Duration::from_secs(300),
        ..ServeLimits::default()
    };
    tracing::info!(listen = %listener.local(), "ready to be asked");
    let stopped = stop.clone();
    let local = {
        let service = proxy.local();
        serve(
            listener,
            move |stream| std::future::ready(Ok((stream, service.clone()))),
            limits,
            async move { stopped.cancelled().await },
        )
    };
    let control = async {
        let Some(control) = control else {
            return std::future::pending().await;
        };
        let service = proxy.control();
        let stopped = stop.clone();
        serve(
            control,
            move |stream| std::future::ready(Ok((stream, service.clone()))),
            ServeLimits::default(),
            async move { stopped.cancelled().await },
        )
        .await
    };
    // The background tasks outlive the drain and end with this future.
    let background = async {
        tokio::join!(keep, workload.follow(changed));
        std::future::pending::<()>().await;
    };
    let done = tokio::select! {
        done = local => done,
        () = background => Ok(()),
        Err(error) = control => Err(error),
    };
    tracing::info!("stopped");
    done.map_err(RunError::Listen)
}

/// What this gateway will insist on, before it does anything.
fn summary(config: &Config) {
    let policy = &config.policy;
    let anchor = &policy.trust_anchor;
    tracing::info!(
        listen = %config.listen,
        enclave = %config.enclave,
        workload_api = config.workload_api,
        "gateway starts"
    );
    tracing::info!(
        server_id = %policy.server_id,
        trust_anchor = %anchor.fingerprint(),
        config_digest = %policy.config_digest,
        policy_sha256 = %policy.digest(),
        "policy"
    );
    for (number, image) in policy.images.images().iter().enumerate() {
        let registers: Vec<_> = image
            .registers
            .iter()
            .map(|(index, pcr)| format!("PCR{index}={pcr}"))
            .collect();
        tracing::info!(
            number,
            registers = registers.join(" "),
            not_before = image.not_before.map(attestation::rfc3339),
            not_after = image.not_after.map(attestation::rfc3339),
            "accepted image"
        );
    }
    for model in &policy.models {
        tracing::info!(
            name = model.name,
            min_epoch = model.min_epoch,
            manifest_sha256 = model.manifest_sha256.map(|digest| digest.to_string()),
            "accepted model"
        );
    }
    if !anchor.is_aws_nitro() {
        tracing::warn!(
            trust_anchor = %anchor.fingerprint(),
            "evidence is checked against a root that is not AWS Nitro's: it proves what the holder of that root says"
        );
    }
}

/// Resolves on SIGINT or SIGTERM.
pub async fn termination() {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            // Without a handler the signal still ends the process, only without a drain.
            Err(error) => {
                tracing::warn!(%error, "no signal handler");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}
