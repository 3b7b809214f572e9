//! Logs go to standard error, one line per event. Their level is fixed in here: whoever starts the process must not be
//! able to turn on what libraries say about the bytes they handle.

use std::panic::{self, PanicHookInfo};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Our own events from `info`, everybody else's from `warn`.
///
/// # Errors
/// A subscriber is already installed.
pub fn init(format: Format) -> Result<(), TryInitError> {
    let ours = [
        "enclave",
        "transport",
        "identity",
        "kbs_client",
        "sealed_model",
        "engine",
        "attestation",
    ];
    let targets = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_targets(ours.map(|target| (target, LevelFilter::INFO)));
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false);
    match format {
        Format::Text => registry.with(layer).try_init()?,
        Format::Json => registry.with(layer.json()).try_init()?,
    }
    panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// Where it happened, never what it said: a panic's message can quote the text that was being worked on.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    tracing::error!(place, "bug: a thread panicked");
}
