//! Hybrid vsock, host side: a unix socket that asks which guest port is meant.
//!
//! The caller writes `CONNECT <port>\n`; the virtual machine monitor answers `OK <its own port>\n` and from then on passes
//! bytes, or closes if nobody listens (Firecracker, docs/vsock.md; vhost-device-vsock speaks the same words).

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// `OK `, ten digits of a 32-bit port, newline.
const MAX_ANSWER: usize = 3 + 10 + 1;

/// The answer costs the monitor no more than a look into a table.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn connect(path: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await?;
    match timeout(HANDSHAKE_TIMEOUT, handshake(&mut stream, port)).await {
        Ok(done) => done.map(|()| stream),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer to the hybrid vsock handshake",
        )),
    }
}

async fn handshake(stream: &mut UnixStream, port: u32) -> io::Result<()> {
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await?;

    // Byte by byte: what follows the newline belongs to the guest.
    let mut answer = Vec::with_capacity(MAX_ANSWER);
    loop {
        let byte = match stream.read_u8().await {
            Ok(byte) => byte,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    "nobody listens on this port in the guest",
                ));
            }
            Err(e) => return Err(e),
        };
        if byte == b'\n' {
            break;
        }
        answer.push(byte);
        if answer.len() >= MAX_ANSWER {
            return Err(malformed());
        }
    }
    let digits = answer.strip_prefix(b"OK ").ok_or_else(malformed)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    Ok(())
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "malformed answer to the hybrid vsock handshake",
    )
}
