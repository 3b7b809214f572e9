use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::service_fn;
use transport::{Endpoint, Listener, serve};

use crate::boot;
use crate::config::{Config, RelayConfig};
use crate::control::{self, Control};
use crate::credentials::{self, Source};
use crate::forward::Forward;
use crate::meters::Meters;
use crate::models::{self, Models, Root};
use crate::{CredentialsConfig, EgressConfig, Error, ModelsConfig};

/// What serves the enclave and the operator has this long to end, once the relay has drained.
const LAST_DRAIN: Duration = Duration::from_secs(3);

pub(crate) type Services = JoinSet<(String, io::Result<()>)>;

/// Runs the host until `shutdown`, then drains: first the relay, so that requests in flight can still use the way out.
///
/// # Errors
/// A configured directory or endpoint that cannot be used, before anything is served; later only a broken listener.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let meters = Arc::new(Meters::new());
    let control = Arc::new(Control::new(
        config.enclave_control.clone(),
        Arc::clone(&meters),
    ));
    let drain = Duration::from_secs(config.limits.drain_s);
    let (stop_relay, relay_stopping) = watch::channel(false);
    let (stop_rest, rest_stopping) = watch::channel(false);
    let mut relay = Services::new();
    let mut rest = Services::new();

    // What the enclave needs to boot opens first, the way in last.
    for (i, egress) in config.egress.into_iter().enumerate() {
        open_egress(i, egress, &meters, &rest_stopping, &mut rest).await?;
    }
    boot::open(&config.boot, LAST_DRAIN, &rest_stopping, &mut rest).await?;
    if let Some(config) = config.models {
        open_models(config, &meters, &rest_stopping, &mut rest).await?;
    }
    if let Some(config) = &config.credentials {
        open_credentials(config, &rest_stopping, &mut rest).await?;
    }
    open_control(&config.control, &control, &rest_stopping, &mut rest).await?;
    open_relay(config.relay, drain, &meters, &relay_stopping, &mut relay).await?;

    let failed = tokio::select! {
        () = shutdown => None,
        never = reload_at_hangup(&control) => match never {},
        Some(ended) = relay.join_next() => Some(ended),
        Some(ended) = rest.join_next() => Some(ended),
    };
    if let Some(ended) = failed {
        return Err(match ended {
            Ok((field, Err(source))) => Error::Stopped { field, source },
            Ok((_, Ok(()))) | Err(_) => Error::Task,
        });
    }
    tracing::info!(limit_s = drain.as_secs(), "draining");
    control.drain();
    stop_relay.send_replace(true);
    finish(relay).await?;
    stop_rest.send_replace(true);
    finish(rest).await?;
    tracing::info!("stopped");
    Ok(())
}

/// SIGHUP: the operator has put newer packages in place.
async fn reload_at_hangup(control: &Control) -> Infallible {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::warn!(%error, "SIGHUP cannot be waited for");
            std::future::pending().await
        }
    };
    loop {
        match hangup.recv().await {
            // The log has the answer.
            Some(()) => drop(control.reload().await),
            None => std::future::pending().await,
        }
    }
}

async fn finish(mut services: Services) -> Result<(), Error> {
    while let Some(ended) = services.join_next().await {
        match ended {
            Ok((_, Ok(()))) => {}
            Ok((field, Err(source))) => return Err(Error::Stopped { field, source }),
            Err(_) => return Err(Error::Task),
        }
    }
    Ok(())
}

async fn open_relay(
    config: RelayConfig,
    drain: Duration,
    meters: &Meters,
    stopping: &watch::Receiver<bool>,
    services: &mut Services,
) -> Result<(), Error> {
    let listener = listen("relay.listen", &config.listen).await?;
    tracing::info!(listen = %listener.local(), enclave = %config.enclave, "relay");
    let forward = Forward {
        class: "relay".to_owned(),
        target: config.enclave,
        limits: config.limits,
        drain,
        meters: meters.forward("relay"),
    };
    let stopping = stopped(stopping.clone());
    services.spawn(async move { ("relay".to_owned(), forward.run(listener, stopping).await) });
    Ok(())
}

async fn open_egress(
    i: usize,
    config: EgressConfig,
    meters: &Meters,
    stopping: &watch::Receiver<bool>,
    services: &mut Services,
) -> Result<(), Error> {
    let field = format!("egress[{i}]");
    let listener = listen(&format!("{field}.listen"), &config.listen).await?;
    let target = config.endpoint().map_err(|_checked| Error::Task)?;
    tracing::info!(class = config.class, listen = %listener.local(), %target, "egress");
    let forward = Forward {
        meters: meters.forward(&config.class),
        class: config.class,
        target,
        limits: config.limits,
        drain: LAST_DRAIN,
    };
    let stopping = stopped(stopping.clone());
    services.spawn(async move { (field, forward.run(listener, stopping).await) });
    Ok(())
}

async fn open_credentials(
    config: &CredentialsConfig,
    stopping: &watch::Receiver<bool>,
    services: &mut Services,
) -> Result<(), Error> {
    let source = Arc::new(Source::of(config).ok_or(Error::Task)?);
    let listener = listen("credentials.listen", &config.listen).await?;
    tracing::info!(listen = %listener.local(), "AWS credentials");
    let accept = move |stream| {
        let source = Arc::clone(&source);
        let service = service_fn(move |request| Arc::clone(&source).answer(request));
        async move { Ok((stream, service)) }
    };
    let limits = credentials::serve_limits(LAST_DRAIN);
    let stopping = stopped(stopping.clone());
    services.spawn(async move {
        (
            "credentials".to_owned(),
            serve(listener, accept, limits, stopping).await,
        )
    });
    Ok(())
}

async fn open_models(
    config: ModelsConfig,
    meters: &Meters,
    stopping: &watch::Receiver<bool>,
    services: &mut Services,
) -> Result<(), Error> {
    let root = Root::new(&config.root).map_err(|source| Error::Models {
        path: config.root.clone(),
        source,
    })?;
    let listener = listen("models.listen", &config.listen).await?;
    tracing::info!(listen = %listener.local(), root = %config.root.display(), "sealed models");
    let models = Arc::new(Models::new(root, meters.models()));
    let accept = move |stream| {
        models::widen(&stream);
        let models = Arc::clone(&models);
        let service = service_fn(move |request| {
            let models = Arc::clone(&models);
            async move { models.answer(request).await }
        });
        async move { Ok((stream, service)) }
    };
    let limits = models::serve_limits(config.max_connections, LAST_DRAIN);
    let stopping = stopped(stopping.clone());
    services.spawn(async move {
        (
            "models".to_owned(),
            serve(listener, accept, limits, stopping).await,
        )
    });
    Ok(())
}

async fn open_control(
    endpoint: &Endpoint,
    control: &Arc<Control>,
    stopping: &watch::Receiver<bool>,
    services: &mut Services,
) -> Result<(), Error> {
    let listener = listen("control", endpoint).await?;
    tracing::info!(listen = %listener.local(), "control");
    let control = Arc::clone(control);
    let accept = move |stream| {
        let control = Arc::clone(&control);
        let service = service_fn(move |request| {
            let control = Arc::clone(&control);
            async move { control.answer(request).await }
        });
        async move { Ok((stream, service)) }
    };
    let limits = control::serve_limits(LAST_DRAIN);
    let stopping = stopped(stopping.clone());
    services.spawn(async move {
        (
            "control".to_owned(),
            serve(listener, accept, limits, stopping).await,
        )
    });
    Ok(())
}

pub(crate) async fn listen(field: &str, endpoint: &Endpoint) -> Result<Listener, Error> {
    endpoint.bind().await.map_err(|source| Error::Listen {
        field: field.to_owned(),
        source,
    })
}

/// Resolves once told to stop; also when `run` itself was dropped.
pub(crate) async fn stopped(mut stopping: watch::Receiver<bool>) {
    while !*stopping.borrow_and_update() {
        if stopping.changed().await.is_err() {
            return;
        }
    }
}
