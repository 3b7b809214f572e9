//! The command line.

mod approve;
mod log;
mod policy;
mod references;

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::config::{self, Config};
use crate::error::Error;
use crate::{admin, init, offline, server};

use policy::{AttestationPolicy, Policy};
use references::ReferenceValue;

/// As over the network.
const MAX_RESOURCE: u64 = 2 * 1024 * 1024;
/// A token.
const MAX_APPROVAL: u64 = 4 * 1024;

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
    /// Read and verify the release log.
    #[command(subcommand)]
    Log(log::Log),
    /// Print an approval of one change, for the two-person rule.
    Approve(approve::Approve),
    /// Copy the database, as it is at one moment, to a new file; the broker may run.
    Backup {
        #[command(flatten)]
        config: ConfigArg,
        /// The new file. It opens under the same master key, which is not in it.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make the database, which must not exist, from a backup.
    Restore {
        #[command(flatten)]
        config: ConfigArg,
        /// The backup.
        #[arg(long)]
        from: PathBuf,
        /// Go on although the newest checkpoint signed entries that the backup lacks.
        #[arg(long)]
        accept_lost: bool,
    },
    /// Change the key that everything is encrypted under.
    #[command(subcommand)]
    MasterKey(MasterKey),
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

impl ConfigArg {
    fn load(&self) -> Result<Config, Error> {
        Ok(Config::load(&self.config)?)
    }
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
        #[command(flatten)]
        approvals: Approvals,
    },
    /// Delete what is under PATH.
    Delete {
        #[command(flatten)]
        config: ConfigArg,
        /// As stored.
        path: String,
        #[command(flatten)]
        approvals: Approvals,
    },
}

/// Under the two-person rule, the files that two administrators made with `kbs approve`.
#[derive(Args)]
struct Approvals {
    /// File with an administrator's approval of this change; give two under the two-person rule.
    #[arg(long = "approval", value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Approvals {
    fn read(&self) -> Result<Vec<String>, Error> {
        let read = |file: &PathBuf| {
            let text = config::read(file, MAX_APPROVAL);
            let text =
                text.map_err(|problem| Error::Usage(format!("{}: {problem}", file.display())))?;
            Ok(text.trim().to_owned())
        };
        self.files.iter().map(read).collect()
    }
}

#[derive(Subcommand)]
enum MasterKey {
    /// Encrypt everything under a fresh key and put that in the key's file. Stop the broker first.
    Rotate(ConfigArg),
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
            Command::Resource(Resource::Put {
                config,
                path,
                file,
                approvals,
            }) => {
                let (value, approvals) = (secret(&file)?, approvals.read()?);
                offline::approved_put(&config.load()?, &path, &value, &approvals, now())
            }
            Command::Resource(Resource::Delete {
                config,
                path,
                approvals,
            }) => offline::delete_resource(&config.load()?, &path, &approvals.read()?, now()),
            Command::Policy(command) => command.run(now()),
            Command::AttestationPolicy(command) => command.run(now()),
            Command::ReferenceValue(command) => command.run(now()),
            Command::Jwks(config) => print(&format!("{}\n", offline::jwks(&config.load()?)?)),
            Command::Log(command) => command.run(),
            Command::Approve(command) => command.run(now()),
            Command::Backup { config, out } => {
                let held = offline::backup(&config.load()?, &out)?;
                let (entries, hash) = (held.entries, &held.hash);
                print(&format!(
                    "{}: {entries} entries, last hash {hash}; it opens under this master key only, keep the two apart\n",
                    out.display()
                ))
            }
            Command::Restore {
                config,
                from,
                accept_lost,
            } => {
                let (held, lost) = offline::restore(&config.load()?, &from, accept_lost, now())?;
                print(&format!(
                    "restored {} entries, last hash {}, {lost} known to be lost\n",
                    held.entries, held.hash
                ))
            }
            Command::MasterKey(MasterKey::Rotate(config)) => {
                let old = offline::rotate_master_key(&config.load()?, now())?;
                print(&format!(
                    "everything is under the new master key; the old one is {}: backups made until now need it, \
                     delete it with the last of them\n",
                    old.display()
                ))
            }
            Command::AdminToken { key, ttl_s } => {
                let unusable =
                    || Error::Usage(format!("{}: not an Ed25519 PKCS#8 key", key.display()));
                let pem = config::read(&key, 16 * 1024)
                    .map_err(|problem| Error::Usage(format!("{}: {problem}", key.display())))?;
                let token = admin::token(&pem, None, Duration::from_secs(ttl_s), now())
                    .ok_or_else(unusable)?;
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
