//! `gateway --config FILE`: a local OpenAI-compatible endpoint in front of a verified enclave.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Parser as _;
use gateway::Config;

#[derive(clap::Parser)]
#[command(version, about)]
struct Args {
    /// The gateway's configuration (TOML).
    #[arg(long)]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    // A second provider in the process is no reason to fail: every configuration names its own.
    let _already_set = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let args = match Args::try_parse() {
        Ok(args) => args,
        // Help and version are answers; anything else is a usage error (EX_USAGE).
        Err(error) => {
            let _printed = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    #[expect(clippy::disallowed_methods, reason = "time enters the program here")]
    let now = Arc::new(SystemTime::now);
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return fail(64, &error),
    };
    match gateway::run(config, now, gateway::termination()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), &error),
    }
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    let _printed = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
}
