use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use identity::{Clock, Credentials, TrustBundles};
use spiffe::x509_source::X509SourceError;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use transport::{Endpoint, ServeLimits, serve};

use crate::metrics::Metrics;
use crate::policy::{self, History, HistoryError, Policy};
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
    #[error("policy history: {0}")]
    History(#[from] HistoryError),
}

impl RunError {
    /// The program's exit code (BSD sysexits): 77 for a policy that goes back, 73 for a history that cannot be kept, 69 for
    /// everything else that a gateway depends on.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Workload { .. } | Self::Listen(_) => 69,
            Self::History(error) if error.refuses_policy() => 77,
            Self::History(_) => 73,
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
    let mut history = config.history;
    history.accept(&config.policy, now())?;
    let (policies, policy) = watch::channel(Arc::new(config.policy));
    let trust_domain = policy.borrow().server_ids.trust_domain().clone();
    let credentials = Arc::new(Credentials::with_clock(Clock::from_fn(Arc::clone(&now))));
    let bundles = TrustBundles::new().into_handle();

    let workload = Workload::start(
        &config.workload_api,
        Arc::clone(&credentials),
        Arc::clone(&bundles),
        trust_domain,
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
        policy: Arc::clone(&policies.borrow()),
        now: Arc::clone(&now),
    };
    let (pool, keep) = Pool::new(options, policy, Arc::clone(&changed), Arc::clone(&metrics));
    let proxy = Proxy::new(pool, metrics, config.limits);
    let reload = reload_at_hangup(config.policy_file, history, policies, now);

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
        tokio::join!(keep, workload.follow(changed), reload);
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
        file = %config.policy_file.display(),
        serial = policy.serial,
        server_ids = each(policy.server_ids.as_slice()),
        trust_anchor = %anchor.fingerprint(),
        config_digests = each(&policy.config_digests),
        policy_sha256 = %policy.digest(),
        "policy"
    );
    for (register, pins) in [
        ("PCR3", &policy.fleet.roles),
        ("PCR4", &policy.fleet.instances),
    ] {
        if !pins.is_empty() {
            tracing::info!(register, accepted = each(pins), "pinned parent");
        }
    }
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
            publishers = ?model.publishers,
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

fn each<T: std::fmt::Display>(values: &[T]) -> String {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    values.join(" ")
}

/// SIGHUP: the policy file has changed. One that cannot be enforced is refused with a line in the log, and the last goes on.
async fn reload_at_hangup(
    path: PathBuf,
    mut history: History,
    policies: watch::Sender<Arc<Policy>>,
    now: Now,
) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::warn!(%error, "SIGHUP cannot be waited for");
            std::future::pending().await
        }
    };
    while hangup.recv().await.is_some() {
        // Not borrowed across the change, which waits for readers.
        let current = Arc::clone(&policies.borrow());
        match next_policy(&path, &mut history, &current, &now) {
            Ok(policy) => {
                tracing::info!(serial = policy.serial, policy_sha256 = %policy.digest(), "policy read again");
                policies.send_if_modified(|current| {
                    let differs = current.digest() != policy.digest();
                    if differs {
                        *current = Arc::new(policy);
                    }
                    differs
                });
            }
            Err(reason) => tracing::warn!(reason, "the policy stays as it was"),
        }
    }
    std::future::pending().await
}

fn next_policy(
    path: &Path,
    history: &mut History,
    current: &Policy,
    now: &Now,
) -> Result<Policy, String> {
    let policy = policy::load(path).map_err(|error| error.to_string())?;
    // The bundle that is followed is the one of the domain that the gateway started with.
    if policy.server_ids.trust_domain() != current.server_ids.trust_domain() {
        let domain = policy.server_ids.trust_domain();
        return Err(format!(
            "{}: server_ids are of the trust domain {domain}; start the gateway again for that",
            path.display()
        ));
    }
    let accepted = history.accept(&policy, now());
    accepted.map_err(|error| error.to_string())?;
    Ok(policy)
}

/// Resolves on SIGINT or SIGTERM.
pub async fn termination() {
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
