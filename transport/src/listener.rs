use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixSocket, UnixStream};
use tokio_vsock::{VsockAddr, VsockListener};

use crate::{Endpoint, Stream};

/// Connections the kernel holds for us while the accept loop is busy.
const BACKLOG: u32 = 1024;

/// A listening endpoint. Dropping it stops listening; a unix socket's file goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    local: Endpoint,
}

#[derive(Debug)]
enum Socket {
    Vsock(VsockListener),
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
    Tcp(TcpListener),
}

impl Listener {
    pub(crate) async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Vsock { cid, port } => {
                let listener = VsockListener::bind(VsockAddr::new(*cid, *port))?;
                let at = listener.local_addr()?;
                Ok(Self {
                    socket: Socket::Vsock(listener),
                    local: Endpoint::Vsock {
                        cid: at.cid(),
                        port: at.port(),
                    },
                })
            }
            Endpoint::Hvsock { path, port } => Ok(Self {
                socket: bind_unix(&Endpoint::hybrid_listen_path(path, *port)).await?,
                local: endpoint.clone(),
            }),
            Endpoint::Unix(path) => Ok(Self {
                socket: bind_unix(path).await?,
                local: endpoint.clone(),
            }),
            Endpoint::Tcp(address) => {
                let listener = TcpListener::bind(address.as_str()).await?;
                let local = Endpoint::Tcp(listener.local_addr()?.to_string());
                Ok(Self {
                    socket: Socket::Tcp(listener),
                    local,
                })
            }
        }
    }

    /// Waits for the next connection. Cancel safe.
    ///
    /// # Errors
    /// Whatever the kernel says; most reasons pass (see [`AcceptBackoff`]).
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Vsock(listener) => listener.accept().await.map(|(s, _)| Stream::Vsock(s)),
            Socket::Unix { listener, .. } => listener.accept().await.map(|(s, _)| Stream::Unix(s)),
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }

    /// Where this listens, with the real port where port 0 was asked for.
    #[must_use]
    pub fn local(&self) -> Endpoint {
        self.local.clone()
    }
}

/// How long to rest after a failed `accept`.
///
/// A caller that hung up early costs nothing; a process out of file descriptors must not spin.
#[derive(Debug, Default)]
pub struct AcceptBackoff {
    failures: u32,
}

impl AcceptBackoff {
    /// To be called after each accepted connection.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The rest to take before the next `accept`; `None` when the listener itself is broken.
    pub fn failed(&mut self, error: &io::Error) -> Option<Duration> {
        match error.kind() {
            io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NotConnected => Some(Duration::ZERO),
            io::ErrorKind::InvalidInput => None,
            _ => {
                self.failures = (self.failures + 1).min(8);
                Some(Duration::from_millis(5 << self.failures).min(Duration::from_secs(1)))
            }
        }
    }
}

/// The file of a unix socket we bound; removed with it, unless somebody has put another in its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // Nothing to do about a failure here; the next bind sees a stale socket and replaces it.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

async fn bind_unix(path: &Path) -> io::Result<Socket> {
    remove_stale(path).await?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = SocketFile::of(path)?;
    // Between bind and listen nobody can connect, so the mode is never wider than this.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Socket::Unix {
        listener: socket.listen(BACKLOG)?,
        _file: file,
    })
}

/// Removes a socket nobody answers on; leaves everything else alone.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "the path exists and is not a socket",
        ));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there",
        )),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(e) => Err(e),
    }
}
