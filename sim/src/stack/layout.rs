//! Where the files of a run lie: one private directory, removed when the run ends.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::Error;
use super::tee::Tee;

/// The run's directory, its sockets and its loopback ports.
pub struct Layout {
    dir: tempfile::TempDir,
    /// OpenAI-compatible proxy.
    pub port: u16,
    /// Relay of the host.
    pub relay: u16,
    /// Broker.
    pub broker: u16,
    /// AWS KMS, in a run that has one.
    pub kms: u16,
    tee: Tee,
}

impl Layout {
    pub(super) fn create(port: u16, tee: Tee) -> Result<Self, Error> {
        // A unix socket's path has at most 107 bytes, so the directory is named shortly.
        let dir = tempfile::Builder::new()
            .prefix("cloister-")
            .tempdir()
            .map_err(Error::io("the run's directory could not be made"))?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700))
            .map_err(Error::io(dir.path().display().to_string()))?;
        for sub in ["logs", "packages"] {
            fs::create_dir(dir.path().join(sub))
                .map_err(Error::io(dir.path().display().to_string()))?;
        }
        Ok(Self {
            dir,
            port,
            relay: claim_port(0)?,
            broker: claim_port(0)?,
            kms: claim_port(0)?,
            tee,
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    pub fn log(&self, role: &str) -> PathBuf {
        self.path("logs").join(format!("{role}.log"))
    }

    pub fn packages(&self) -> PathBuf {
        self.path("packages")
    }

    /// `unix://` endpoint of a socket in the run's directory.
    pub fn unix(&self, name: &str) -> String {
        format!("unix://{}", self.path(name).display())
    }

    pub fn config(&self, role: &str) -> PathBuf {
        self.path(&format!("{role}.toml"))
    }

    /// Where `role` answers `/healthz`, `/readyz` and `/metrics`.
    pub fn control(&self, role: &str) -> String {
        match role {
            "gateway" => format!("tcp://127.0.0.1:{}", self.port),
            "enclave" | "machine" => match self.tee.control(self.dir()) {
                Some(endpoint) => endpoint,
                None => self.unix("enclave-control.sock"),
            },
            other => self.unix(&format!("{other}-control.sock")),
        }
    }

    /// What to ask to know that `role` is up. The host is ready only with its enclave, so it is asked for its health.
    pub(super) fn ready(&self, role: &str) -> (String, &'static str) {
        let path = if role == "host" {
            "/healthz"
        } else {
            "/readyz"
        };
        (self.control(role), path)
    }

    /// Writes a file that only this user may read.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, Error> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.path(name);
        let write = || -> io::Result<()> {
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?
                .write_all(content)
        };
        write().map_err(Error::io(path.display().to_string()))?;
        Ok(path)
    }
}

/// A loopback port that was free a moment ago; `0` asks for any.
pub(super) fn claim_port(port: u16) -> Result<u16, Error> {
    let listener =
        TcpListener::bind(("127.0.0.1", port)).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::PortInUse(port),
            _ => Error::Io {
                context: format!("127.0.0.1:{port}"),
                source,
            },
        })?;
    listener
        .local_addr()
        .map(|a| a.port())
        .map_err(Error::io("a loopback port"))
}
