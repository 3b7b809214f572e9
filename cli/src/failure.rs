use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use sealed_model::{Error, ErrorKind, Rejection};

/// Why a command ended: the exit code says who must act, the text which file and what to do. One line on stderr.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    error: Option<anyhow::Error>,
}

const DIFFERS: u8 = 1;
const USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const BUG: u8 = 70;
const REFUSED: u8 = 77;

impl Failure {
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::new(USAGE, error)
    }

    pub(crate) fn unavailable(error: impl Into<anyhow::Error>) -> Self {
        Self::new(UNAVAILABLE, error)
    }

    pub(crate) fn refused(error: impl Into<anyhow::Error>) -> Self {
        Self::new(REFUSED, error)
    }

    pub(crate) fn bug(error: impl Into<anyhow::Error>) -> Self {
        Self::new(BUG, error)
    }

    /// A file of the user's that could not be read or written: a missing one is a wrong argument.
    pub(crate) fn io(action: &str, path: &Path, error: io::Error) -> Self {
        let code = io_code(&error);
        let context = format!("{}: cannot {action}", path.display());
        Self::new(code, anyhow::Error::new(error).context(context))
    }

    /// What the library said about the package or directory `path`.
    pub(crate) fn model(path: &Path, error: Error) -> Self {
        let code = match &error {
            Error::Rejected { .. } => REFUSED,
            Error::Io { source, .. } | Error::Unavailable { source, .. } => io_code(source),
            Error::Internal(_) => BUG,
            other => match other.kind() {
                ErrorKind::Refused => REFUSED,
                ErrorKind::Unavailable => UNAVAILABLE,
                ErrorKind::Internal => BUG,
                _ => USAGE,
            },
        };
        let fix = fix(&error);
        // These name their own path, or an argument.
        let complete = matches!(
            error,
            Error::Io { .. }
                | Error::OutputExists { .. }
                | Error::Busy { .. }
                | Error::NotNewer { .. }
                | Error::Key { .. }
                | Error::ModelName { .. }
                | Error::Epoch { .. }
        );
        let reason = match &error {
            // Its text has the cause already.
            Error::Rejected { file, reason } => rejection(file, reason),
            other => format!("{:#}", Chain(other)),
        };
        let prefix = if complete {
            String::new()
        } else {
            format!("{}: ", path.display())
        };
        Self::new(code, anyhow::anyhow!("{prefix}{reason}{fix}"))
    }

    /// Says where a run that makes the package `out` has left what it did, if it did.
    pub(crate) fn resumable(self, out: &Path) -> Self {
        let partial = sealed_model::partial_path(out);
        if !partial.exists() {
            return self;
        }
        let hint = |error: anyhow::Error| {
            anyhow::anyhow!(
                "{error:#} (what is done stays in {}: run the same command again to go on, or remove it)",
                partial.display()
            )
        };
        Self {
            code: self.code,
            error: self.error.map(hint),
        }
    }

    /// What was compared is not the same; the difference was printed.
    pub(crate) fn differs() -> Self {
        Self {
            code: DIFFERS,
            error: None,
        }
    }

    /// What the library said about the enclave image `path`.
    pub(crate) fn image(path: &Path, error: image::Error) -> Self {
        match error {
            image::Error::Io(error) => Self::io("read or write", path, error),
            error => Self::new(
                REFUSED,
                anyhow::anyhow!("{}: refused: {:#}", path.display(), Chain(&error)),
            ),
        }
    }

    pub(crate) fn report(&self) -> ExitCode {
        if let Some(error) = &self.error {
            // Where even stderr is gone, the exit code is what is left to say.
            drop(writeln!(io::stderr().lock(), "error: {error:#}"));
        }
        ExitCode::from(self.code)
    }

    fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            error: Some(error.into()),
        }
    }
}

/// Help and version go to stdout and are no failure.
pub(crate) fn show_usage(usage: &clap::Error) -> Result<(), Failure> {
    drop(usage.print());
    match usage.use_stderr() {
        true => Err(Failure {
            code: USAGE,
            error: None,
        }),
        false => Ok(()),
    }
}

fn io_code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            USAGE
        }
        _ => UNAVAILABLE,
    }
}

fn rejection(file: &str, reason: &Rejection) -> String {
    format!("{file}: refused: {:#}", Chain(reason))
}

fn fix(error: &Error) -> &'static str {
    match error {
        Error::Unavailable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            " (a package is a directory that cloister seal made)"
        }
        Error::UnknownPublisher { .. } => " (give the publisher's key with --publisher)",
        Error::WrongKey { .. } => " (give that key with --key-file)",
        Error::Busy { .. } => " (wait for it, or end it)",
        Error::NotNewer { .. } => " (give a higher --epoch)",
        Error::OutputExists { .. } => " (choose another --out, or remove it)",
        _ => "",
    }
}

/// An error with its causes on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
