//! What a process around [`crate::run`] needs: signals, exit codes, the one line on standard error.

use std::io::{self, Write};
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::util::TryInitError;

use crate::error::chain;
use crate::{ConfigError, Error};

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    #[error("{}", .0.kind())]
    Usage(clap::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Enclave(Box<Error>),
    #[error("logging: {0}")]
    Log(#[from] TryInitError),
    #[error("no threads to run on: {0}")]
    Runtime(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Enclave(Box::new(error))
    }
}

impl Failure {
    pub fn usage(error: clap::Error) -> Self {
        Self::Usage(error)
    }

    pub fn runtime(error: io::Error) -> Self {
        Self::Runtime(error)
    }

    /// sysexits: 64 usage or configuration, 69 unavailable, 70 a bug, 77 refused.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(error) if !error.use_stderr() => 0,
            Self::Usage(_) | Self::Config(_) => 64,
            Self::Enclave(error) => error.exit_code(),
            Self::Log(_) => 70,
            Self::Runtime(_) => 69,
        }
    }

    /// Says on standard error why, and gives the exit code. Help and version go where they belong.
    pub fn report(self) -> ExitCode {
        let written = match &self {
            Self::Usage(error) => error.print(),
            other => writeln!(io::stderr(), "error: {}", chain(other)),
        };
        // Nobody is left to tell when standard error is closed; the exit code still says it.
        drop(written);
        ExitCode::from(self.exit_code())
    }
}

/// Makes aws-lc-rs the process's TLS provider, before anything could pick another.
///
/// # Errors
/// There is one already: a bug.
pub fn install_crypto() -> Result<(), Error> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_other| Error::Internal("another TLS provider is installed"))
}

/// Resolves at SIGTERM or SIGINT.
pub async fn termination() {
    let (terminate, interrupt) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    tokio::select! {
        () = received(terminate) => {}
        () = received(interrupt) => {}
    }
}

async fn received(signal: io::Result<Signal>) {
    match signal {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "a signal cannot be waited for");
            std::future::pending::<()>().await;
        }
    }
}
