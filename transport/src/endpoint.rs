use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_vsock::{VsockAddr, VsockStream};

use crate::error::at;
use crate::{EndpointError, Listener, Stream, hybrid};

/// A kernel may try a dead address for two minutes; callers of ours want an answer sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a program listens or connects; written as a URI in configuration.
///
/// | form | meaning |
/// |---|---|
/// | `vsock://CID:PORT` | AF_VSOCK; `any` is the wildcard CID to listen on |
/// | `hvsock:///PATH:PORT` | hybrid vsock of Firecracker and vhost-device-vsock: a unix socket and a port behind it |
/// | `unix:///PATH` | a unix stream socket, mode 0600 when we listen |
/// | `tcp://HOST:PORT` | TCP; `[::1]:PORT` for IPv6 |
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// A context identifier and a port of the host's or hypervisor's AF_VSOCK.
    Vsock {
        /// Context identifier: 3 is the parent of a Nitro enclave, `u32::MAX` any.
        cid: u32,
        /// 32-bit port.
        port: u32,
    },
    /// A port multiplexed over one unix socket.
    Hvsock {
        /// Socket of the virtual machine monitor.
        path: PathBuf,
        /// 32-bit port inside the guest (connect) or on the host (bind).
        port: u32,
    },
    /// A unix stream socket.
    Unix(PathBuf),
    /// `host:port`, resolved when used.
    Tcp(String),
}

impl Endpoint {
    /// Opens a connection.
    ///
    /// # Errors
    /// Names the endpoint and keeps the kind of the io error; `TimedOut` after ten seconds.
    pub async fn connect(&self) -> io::Result<Stream> {
        let attempt = async {
            match self {
                Self::Vsock { cid, port } => VsockStream::connect(VsockAddr::new(*cid, *port))
                    .await
                    .map(Stream::Vsock),
                Self::Hvsock { path, port } => hybrid::connect(path, *port).await.map(Stream::Unix),
                Self::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
                Self::Tcp(address) => {
                    let stream = TcpStream::connect(address.as_str()).await?;
                    stream.set_nodelay(true)?;
                    Ok(Stream::Tcp(stream))
                }
            }
        };
        match timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(result) => result.map_err(|e| at("connect to", self, e)),
            Err(_) => Err(at("connect to", self, io::ErrorKind::TimedOut.into())),
        }
    }

    /// Starts to listen. A unix socket gets mode 0600 before it accepts; one left behind by a dead process is replaced.
    ///
    /// # Errors
    /// Names the endpoint; `AddrInUse` when somebody answers on it or when the path is something else than a socket.
    pub async fn bind(&self) -> io::Result<Listener> {
        Listener::bind(self)
            .await
            .map_err(|e| at("listen on", self, e))
    }

    /// Hybrid vsock: connections that the guest opens arrive on `<path>_<port>`.
    pub(crate) fn hybrid_listen_path(path: &Path, port: u32) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("_{port}"));
        PathBuf::from(name)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock {
                cid: u32::MAX,
                port,
            } => write!(f, "vsock://any:{port}"),
            Self::Vsock { cid, port } => write!(f, "vsock://{cid}:{port}"),
            Self::Hvsock { path, port } => write!(f, "hvsock://{}:{port}", path.display()),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(rest) = text.strip_prefix("vsock://") {
            let (cid, port) = split_port::<u32>(text, rest)?;
            let cid = match cid {
                "any" => u32::MAX,
                digits => number(digits).ok_or_else(|| EndpointError::Cid(text.to_owned()))?,
            };
            return Ok(Self::Vsock { cid, port });
        }
        if let Some(rest) = text.strip_prefix("hvsock://") {
            let (path, port) = split_port(text, rest)?;
            let path = absolute(text, path)?;
            return Ok(Self::Hvsock { path, port });
        }
        if let Some(rest) = text.strip_prefix("unix://") {
            return absolute(text, rest).map(Self::Unix);
        }
        if let Some(rest) = text.strip_prefix("tcp://") {
            let (host, _) = split_port::<u16>(text, rest)?;
            // A bare IPv6 address would leave open which colon starts the port.
            let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
            let plain = !host.is_empty() && !host.contains([':', '/', '@', '[', ']', ' ']);
            if !bracketed && !plain {
                return Err(EndpointError::Host(text.to_owned()));
            }
            return Ok(Self::Tcp(rest.to_owned()));
        }
        Err(EndpointError::Scheme(text.to_owned()))
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

fn split_port<'a, N: FromStr>(text: &str, rest: &'a str) -> Result<(&'a str, N), EndpointError> {
    rest.rsplit_once(':')
        .and_then(|(before, port)| Some((before, number(port)?)))
        .ok_or_else(|| EndpointError::Port(text.to_owned()))
}

/// Digits only: `FromStr` of integers would also take a sign.
fn number<N: FromStr>(digits: &str) -> Option<N> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn absolute(text: &str, path: &str) -> Result<PathBuf, EndpointError> {
    if !path.starts_with('/') || path.len() < 2 || path.contains('\0') {
        return Err(EndpointError::Path(text.to_owned()));
    }
    Ok(PathBuf::from(path))
}
