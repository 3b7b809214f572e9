//! `gateway --config FILE`: a local OpenAI-compatible endpoint in front of a verified enclave.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Parser as _;
use gateway::{Config, check, policy};

#[derive(clap::Parser)]
#[command(
    version,
    about,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Args {
    /// The gateway's configuration (TOML).
    #[arg(long, required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say what a policy would accept, and whether it may follow what was enforced; nothing is enforced or written.
    ///
    /// Exit codes: 0 it would be enforced, 77 it goes back, 66 the history cannot be read, 64 the file cannot be used.
    CheckPolicy {
        /// The policy file (TOML).
        policy: PathBuf,
        /// `policy_history` of the gateway that is to take it.
        #[arg(long)]
        history: Option<PathBuf>,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of policy files.
    PolicySchema,
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
    match (args.command, args.config) {
        (
            Some(Command::CheckPolicy {
                policy,
                history,
                json,
            }),
            _,
        ) => check_policy(&policy, history.as_deref(), json),
        (Some(Command::PolicySchema), _) => print(policy::SCHEMA),
        (None, Some(config)) => run(&config).await,
        // clap asks for one of them.
        (None, None) => ExitCode::from(64),
    }
}

async fn run(config: &Path) -> ExitCode {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    #[expect(clippy::disallowed_methods, reason = "time enters the program here")]
    let now = Arc::new(SystemTime::now);
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => return fail(error.exit_code(), &error),
    };
    match gateway::run(config, now, gateway::termination()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), &error),
    }
}

fn check_policy(policy: &Path, history: Option<&Path>, json: bool) -> ExitCode {
    match check::check(policy, history) {
        Ok(checked) if json => print(&format!("{:#}\n", checked.json())),
        Ok(checked) => print(&checked.text()),
        Err(error) => fail(error.exit_code(), &error),
    }
}

/// A reader that has gone is told nothing more.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::from(74),
    }
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    let _printed = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
}
