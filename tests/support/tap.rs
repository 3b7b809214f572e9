//! An observer between two programs: it forwards bytes and keeps a copy of each direction.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Every byte that passed, both ways.
#[derive(Clone, Default)]
pub struct Tap {
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Listens on a free loopback port, forwards to `target` (`host:port`, or a unix socket's path) and records.
    pub async fn listen(target: String) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tap = Self::default();
        let record = tap.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let record = record.clone();
                let target = target.clone();
                tokio::spawn(async move {
                    let (from_client, to_client) = client.into_split();
                    if let Some(path) = target.strip_prefix("unix://") {
                        if let Ok(server) = tokio::net::UnixStream::connect(path).await {
                            let (from_server, to_server) = server.into_split();
                            tokio::join!(
                                record.copy(from_client, to_server),
                                record.copy(from_server, to_client)
                            );
                        }
                    } else if let Ok(server) =
                        TcpStream::connect(target.trim_start_matches("tcp://")).await
                    {
                        let (from_server, to_server) = server.into_split();
                        tokio::join!(
                            record.copy(from_client, to_server),
                            record.copy(from_server, to_client)
                        );
                    }
                });
            }
        });
        (tap, format!("tcp://{address}"))
    }

    async fn copy(
        &self,
        mut from: impl tokio::io::AsyncRead + Unpin,
        mut to: impl tokio::io::AsyncWrite + Unpin,
    ) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            self.seen.lock().unwrap().extend_from_slice(&buffer[..n]);
            if to.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
        // The other end may be gone already.
        to.shutdown().await.ok();
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }
}

/// Makes `socket` a way to loopback port `port`.
pub fn forward(socket: &std::path::Path, port: u16) {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    tokio::spawn(async move {
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await {
                    // Either end may go first; the bytes are what counts.
                    tokio::io::copy_bidirectional(&mut from, &mut to).await.ok();
                }
            });
        }
    });
}
