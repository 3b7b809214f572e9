//! The enclave's process: real clock, real secure module, and nothing else that could be chosen from outside.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use attestation::NsmAttester;
use clap::Parser;
use enclave::{Config, Failure, Platform, config, log};
use tokio::runtime::Runtime;

/// Serves sealed models to attested, authorised callers.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The measured configuration, part of the enclave image.
    #[arg(long)]
    config: PathBuf,
    #[arg(long, value_enum, default_value = "text")]
    log_format: log::Format,
    /// The parent's CID where it is not Nitro's 3. Only where ciphertext goes depends on it.
    #[arg(long, value_name = "CID", default_value_t = config::NITRO_PARENT)]
    parent_cid: u32,
    /// Check the configuration, print its digest and end.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let outcome = Arguments::try_parse()
        .map_err(Failure::usage)
        .and_then(start);
    outcome.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}

fn start(arguments: Arguments) -> Result<(), Failure> {
    enclave::install_crypto()?;
    log::init(arguments.log_format)?;
    let mut config = Config::load(&arguments.config)?;
    if arguments.check {
        // A closed standard output leaves the exit code.
        writeln!(std::io::stdout(), "{}", config.digest).ok();
        return Ok(());
    }
    config.dial_parent(arguments.parent_cid);
    let attester = NsmAttester::open().map_err(enclave::Error::Platform)?;
    enclave::check_clock_source(&config.clock_sources)?;
    #[expect(clippy::disallowed_methods, reason = "main is where time enters")]
    let now = Arc::new(SystemTime::now);
    let platform = Platform {
        attester: Arc::new(attester),
        now,
    };
    let runtime = Runtime::new().map_err(Failure::runtime)?;
    let outcome = runtime.block_on(enclave::run(config, platform, enclave::termination()));
    // A weight read that still blocks must not keep a finished process alive.
    runtime.shutdown_background();
    Ok(outcome?)
}
