//! `kbs log`: for the operator, and for an auditor who has neither the database nor a secret.

use std::io::{self, BufReader, Write as _};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::Subcommand;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{ConfigArg, print};
use crate::error::Error;
use crate::offline;
use crate::store::{LogPublicKey, Record};

#[derive(Subcommand)]
pub(super) enum Log {
    /// Print every entry, checking the chain on the way.
    Print(ConfigArg),
    /// Hold the log against its chain, every checkpoint in it, and checkpoints kept elsewhere.
    Verify {
        /// Configuration file of the broker; its own checkpoint file is used as well.
        #[arg(long, required_unless_present = "export", conflicts_with = "export")]
        config: Option<PathBuf>,
        /// What `kbs log export` printed, in place of a broker.
        #[arg(long, requires = "key")]
        export: Option<PathBuf>,
        /// The log's public key, as `kbs log key` printed it; with --export.
        #[arg(long, conflicts_with = "config")]
        key: Option<LogPublicKey>,
        /// A checkpoint that was kept elsewhere; the log has to contain what it signed.
        #[arg(long, value_name = "FILE")]
        checkpoint: Vec<PathBuf>,
    },
    /// Print checkpoints and entries, one JSON object per line, checking the chain on the way.
    Export(ConfigArg),
    /// Print the public key that checkpoints verify under (C2SP signed-note).
    Key(ConfigArg),
}

impl Log {
    pub(super) fn run(self) -> Result<(), Error> {
        match self {
            Self::Print(config) => print_log(&config),
            Self::Verify {
                config,
                export,
                key,
                checkpoint,
            } => {
                let audited = match (config, export, key) {
                    (Some(config), _, _) => {
                        let config = ConfigArg { config }.load()?;
                        offline::verify_log(&config, &checkpoint)?
                    }
                    (None, Some(export), Some(key)) => {
                        let failed = |source| Error::File {
                            path: export.display().to_string(),
                            source,
                        };
                        let file = std::fs::File::open(&export).map_err(failed)?;
                        offline::verify_export(BufReader::new(file), &key, &checkpoint)?
                    }
                    _ => {
                        return Err(Error::Usage(
                            "name --config, or --export and --key".to_owned(),
                        ));
                    }
                };
                let unsigned = audited.entries.saturating_sub(audited.signed);
                print(&format!(
                    "{} entries, chain unbroken, last hash {}\n{} checkpoints agree; the newest signed entry {}, \
                     {unsigned} came after it\n",
                    audited.entries, audited.hash, audited.checkpoints, audited.signed
                ))
            }
            Self::Export(config) => {
                let mut out = io::stdout().lock();
                offline::export_log(&config.load()?, |line| writeln!(out, "{line}"))
            }
            Self::Key(config) => print(&format!("{}\n", offline::log_key(&config.load()?)?)),
        }
    }
}

fn print_log(config: &ConfigArg) -> Result<(), Error> {
    let mut last = String::from("none");
    let mut entries = 0_u64;
    let mut failed = None;
    offline::read_log(&config.load()?, |record| {
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
        ("policy", &entry.policy_sha256),
        ("admin", &entry.admin),
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
