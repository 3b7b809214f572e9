//! `kbs`: see `kbs help`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser as _;
use kbs::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    // A second provider in the process is no reason to fail: every configuration names its own.
    let _already_set = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are answers; anything else is a usage error.
        Err(error) => {
            let _printed = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let log = tracing_subscriber::fmt().with_writer(io::stderr);
    log.with_ansi(io::stderr().is_terminal()).init();
    #[expect(clippy::disallowed_methods, reason = "time enters the program here")]
    let now = SystemTime::now;
    match cli.run(now).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _printed = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
