//! `host --config FILE`: runs the host until SIGTERM or SIGINT.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use host::{Config, Error};
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Configuration file (TOML); docs/host.md explains each field.
    #[arg(long)]
    config: PathBuf,
    /// How log lines are written, on standard error.
    #[arg(long, value_parser = ["text", "json"], default_value = "text")]
    log_format: String,
    /// What is logged, as a tracing filter: `info`, `host=debug`, ….
    #[arg(long, default_value = "info")]
    log: Targets,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|e| {
        let code = if e.use_stderr() { 64 } else { 0 };
        e.print().ok();
        std::process::exit(code)
    });
    let log = tracing_subscriber::registry().with(args.log);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match args.log_format.as_str() {
        "json" => log.with(lines.json()).init(),
        _ => log.with(lines).init(),
    }
    match start(args.config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            writeln!(io::stderr(), "error: {e}").ok();
            ExitCode::from(e.exit_code())
        }
    }
}

async fn start(config: PathBuf) -> Result<(), Error> {
    let config = Config::load(&config)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    host::run(config, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = ctrl_c() => {}
        }
    })
    .await
}
