//! `cloister-dev`: the command line around [`crate::stack`].

mod ask;
mod bench;
pub(crate) mod screen;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::roles;
use crate::stack::Clock;

/// All of Cloister on this machine, with a simulated TEE.
///
/// Every check is made on real bytes, but the "TEE" is this program: it proves the protocol, nothing about the machine.
#[derive(Parser)]
#[command(name = "cloister-dev", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything, ask a first question, stay up until Ctrl-C
    Up(UpArgs),
    /// Measure what the whole service costs here, beside the model called in-process
    Bench {
        /// Where demo-model/ and target/models/ are looked for
        #[arg(long, value_name = "DIR", default_value = ".")]
        project: PathBuf,
    },
    /// One program of a run (started by `up`)
    #[command(hide = true)]
    Role {
        role: roles::Role,
        #[arg(long)]
        config: PathBuf,
    },
}

/// Arguments of `up`.
#[derive(clap::Args)]
pub(crate) struct UpArgs {
    /// Hugging Face directory to serve instead of the demonstration model; may be repeated, NAME=DIR sets its name
    #[arg(long, value_name = "[NAME=]DIR")]
    model: Vec<String>,
    /// Port of the OpenAI-compatible proxy on 127.0.0.1 (0 takes a free one)
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// End after the first answer; exit 0 only if all of it worked
    #[arg(long)]
    once: bool,
    /// The first question
    #[arg(long, value_name = "TEXT", default_value = "What does the host see?")]
    ask: String,
    /// Have AWS KMS, simulated, release the models' keys instead of the key broker
    #[arg(long)]
    kms: bool,
    /// Where demo-model/ and target/models/ are looked for
    #[arg(long, value_name = "DIR", default_value = ".", hide = true)]
    project: PathBuf,
    /// Boot the enclave's image in an emulated Nitro machine (scripts/nitro-emulator up)
    #[arg(long, value_name = "DIR", requires = "parts", hide = true)]
    emulator: Option<PathBuf>,
    /// Kernel and programs of the image
    #[arg(long, value_name = "DIR", requires = "emulator", hide = true)]
    parts: Option<PathBuf>,
    /// With an emulated machine: make the parent instance a second one, with CID 3, as on Nitro
    #[arg(long, requires = "emulator", hide = true)]
    parent_machine: bool,
}

/// Runs the command line and returns the process's exit code: 64 usage, 69 unavailable, 70 bug, 77 refused.
pub fn main(now: Clock) -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return screen::fail(&format!("no async runtime: {error}"), 70),
    };
    match cli.command {
        Command::Role { role, config } => {
            let code = runtime.block_on(roles::run(role, &config, now));
            // A read that still blocks must not keep a finished program alive.
            runtime.shutdown_background();
            code
        }
        Command::Bench { project } => match runtime.block_on(bench::bench(&project, now)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => screen::fail(&format!("{error:#}"), 70),
        },
        Command::Up(args) => match runtime.block_on(up::up(args, now)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(up::Failure { message, code }) => screen::fail(&message, code),
        },
    }
}
