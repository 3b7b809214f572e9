//! The command line.

mod policy;
mod references;

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::config::{self, Config};
use crate::error::Error;
use crate::store::Record;
use crate::{admin, init, offline, server};

use policy::{AttestationPolicy, Policy};
use references::ReferenceValue;

/// As over the network.
const MAX_RESOURCE: u64 = 2 * 1024 * 1024;

/// The key broker.
#[derive(Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve keys and SVIDs until SIGTERM or SIGINT.
    Serve(ConfigArg),
    /// Make the files of a new broker; nothing that exists is touched.
    Init {
        /// Directory to make them in.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Store and delete resources, straight in the database.
    #[command(subcommand)]
    Resource(Resource),
    /// Replace the resource policy, or try one on a stored document.
    #[command(subcommand)]
    Policy(Policy),
    /// Replace the attestation policy, straight in the database.
    #[command(subcommand)]
    AttestationPolicy(AttestationPolicy),
    /// Set the reference values that the attestation policy asks for, straight in the database.
    #[command(subcommand)]
    ReferenceValue(ReferenceValue),
    /// Print the public keys of tokens, for brokers that take them (a JWK set).
    Jwks(ConfigArg),
    /// Print the release log and check its chain.
    Log(ConfigArg),
    /// Print a bearer token for the administrator's endpoints.
    AdminToken {
        /// The administrator's private key (PKCS#8 PEM).
        #[arg(long)]
        key: PathBuf,
        /// Seconds it is good for.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        ttl_s: u64,
    },
}

#[derive(Args)]
struct ConfigArg {
    /// Configuration file (TOML).
    #[arg(long)]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Resource {
    /// Store FILE under PATH.
    Put {
        #[command(flatten)]
        config: ConfigArg,
        /// `<repository>/<type>/<tag>`, for a model's key `models/<name>/epoch-<n>`.
        path: String,
        /// The secret; `-` reads standard input.
        file: PathBuf,
    },
    /// Delete what is under PATH.
    Delete {
        #[command(flatten)]
        config: ConfigArg,
        /// As stored.
        path: String,
    },
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run(self, now: fn() -> SystemTime) -> Result<(), Error> {
        match self.command {
            Command::Serve(ConfigArg { config }) => {
                server::run(Config::load(&config)?, Arc::new(now), terminated()?).await
            }
            Command::Init { dir } => {
                init(&dir)?;
                print(&format!(
                    "made a broker's files in {}; complete kbs.toml\n",
                    dir.display()
                ))
            }
            Command::Resource(Resource::Put { config, path, file }) => {
                let value = secret(&file)?;
                offline::put_resource(&Config::load(&config.config)?, &path, &value, now())
            }
            Command::Resource(Resource::Delete { config, path }) => {
                offline::delete_resource(&Config::load(&config.config)?, &path, now())
            }
            Command::Policy(command) => command.run(now()),
            Command::AttestationPolicy(command) => command.run(now()),
            Command::ReferenceValue(command) => command.run(now()),
            Command::Jwks(ConfigArg { config }) => {
                print(&format!("{}\n", offline::jwks(&Config::load(&config)?)?))
            }
            Command::Log(ConfigArg { config }) => print_log(&Config::load(&config)?),
            Command::AdminToken { key, ttl_s } => {
                let unusable =
                    || Error::Usage(format!("{}: not an Ed25519 PKCS#8 key", key.display()));
                let pem = config::read(&key, 16 * 1024)
                    .map_err(|problem| Error::Usage(format!("{}: {problem}", key.display())))?;
                let token =
                    admin::token(&pem, Duration::from_secs(ttl_s), now()).ok_or_else(unusable)?;
                print(&format!("{}\n", *token))
            }
        }
    }
}

/// Standard input or a file, at most as large as a resource may be.
fn secret(file: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |source| Error::File {
        path: file.display().to_string(),
        source,
    };
    let source: Box<dyn io::Read> = match file {
        file if file == Path::new("-") => Box::new(io::stdin()),
        file => Box::new(std::fs::File::open(file).map_err(failed)?),
    };
    let mut value = Zeroizing::new(Vec::with_capacity(4096));
    source
        .take(MAX_RESOURCE + 1)
        .read_to_end(&mut value)
        .map_err(failed)?;
    if value.len() as u64 > MAX_RESOURCE {
        return Err(Error::Usage(format!(
            "{} is over {MAX_RESOURCE} bytes",
            file.display()
        )));
    }
    Ok(value)
}

fn print_log(config: &Config) -> Result<(), Error> {
    let mut last = String::from("none");
    let mut entries = 0_u64;
    let mut failed = None;
    offline::read_log(config, |record| {
        entries += 1;
        last.clone_from(&record.hash);
        if failed.is_none() {
            failed = print(&line(record)).err();
        }
    })?;
    failed.map_or(Ok(()), Err)?;
    print(&format!(
        "{entries} entries, chain unbroken, last hash {last}\n"
    ))
}

/// One entry as `time seq outcome path name=value…`; what is unknown is left out.
fn line(record: &Record) -> String {
    let entry = &record.entry;
    let since = Duration::from_millis(entry.time_ms.try_into().unwrap_or_default());
    let time = UNIX_EPOCH.checked_add(since).map(OffsetDateTime::from);
    let time = time
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default();
    let mut line = format!("{time} {} {} {}", entry.seq, entry.outcome, entry.path);
    for (name, value) in [
        ("error", &entry.error_type),
        ("pcr0", &entry.pcr0),
        ("pcr1", &entry.pcr1),
        ("pcr2", &entry.pcr2),
        ("config", &entry.config_digest),
        ("key", &entry.tee_key),
        ("serial", &entry.serial),
        ("reason", &entry.reason),
    ] {
        if let Some(value) = value {
            let quoted = if value.contains(' ') {
                format!("{value:?}")
            } else {
                value.clone()
            };
            line.push_str(&format!(" {name}={quoted}"));
        }
    }
    line.push('\n');
    line
}

fn print(text: &str) -> Result<(), Error> {
    let failed = |source| Error::File {
        path: "standard output".to_owned(),
        source,
    };
    io::stdout().write_all(text.as_bytes()).map_err(failed)
}

fn terminated() -> Result<impl Future<Output = ()> + Send + 'static, Error> {
    let failed = |source| Error::Listen {
        field: "signals",
        source,
    };
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
