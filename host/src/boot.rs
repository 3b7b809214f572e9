//! What an enclave says before it listens: that it came up, and its log.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::sync::watch;
use tokio::time::timeout;
use transport::Stream;

use crate::Error;
use crate::accept::{Class, accept};
use crate::config::BootConfig;
use crate::run::{Services, listen, stopped};

/// The byte that an enclave's first process sends and wants back (AWS `enclaves-sdk-bootstrap`, `init.c`).
const HEARTBEAT: u8 = 0xb7;
/// Between its connection and its byte.
const PATIENCE: Duration = Duration::from_secs(5);
/// One enclave has one; what was cut off may still be draining.
const CONNECTIONS: usize = 8;
/// Longer lines come in pieces.
const MAX_LINE: u64 = 8 << 10;
/// An enclave says a few lines while it boots and one now and then; its log must not fill the host's disk. For all
/// connections of this process together, each line counted with what the log puts around it.
const MAX_LOG: u64 = 64 << 20;
const AROUND_A_LINE: u64 = 96;
static LOGGED: AtomicU64 = AtomicU64::new(0);

/// Opens what is configured.
pub(crate) async fn open(
    config: &BootConfig,
    drain: Duration,
    stopping: &watch::Receiver<bool>,
    services: &mut Services,
) -> Result<(), Error> {
    let class = move |name| Class {
        name,
        max_connections: CONNECTIONS,
        drain,
    };
    if let Some(endpoint) = &config.heartbeat {
        let listener = listen("boot.heartbeat", endpoint).await?;
        tracing::info!(listen = %listener.local(), "heartbeat");
        let stopping = stopped(stopping.clone());
        services.spawn(async move {
            let outcome = accept(listener, class("heartbeat"), stopping, || {}, heartbeat).await;
            ("boot.heartbeat".to_owned(), outcome)
        });
    }
    if let Some(endpoint) = &config.console {
        let listener = listen("boot.console", endpoint).await?;
        tracing::info!(listen = %listener.local(), "console");
        let stopping = stopped(stopping.clone());
        services.spawn(async move {
            let outcome = accept(listener, class("console"), stopping, || {}, console).await;
            ("boot.console".to_owned(), outcome)
        });
    }
    Ok(())
}

async fn heartbeat(mut stream: Stream) {
    let exchange = async {
        let byte = stream.read_u8().await?;
        if byte != HEARTBEAT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("got {byte:#04x}, expected {HEARTBEAT:#04x}"),
            ));
        }
        stream.write_u8(byte).await?;
        stream.flush().await
    };
    match timeout(PATIENCE, exchange).await {
        Ok(Ok(())) => tracing::info!("the enclave came up"),
        Ok(Err(error)) => tracing::warn!(%error, "no heartbeat"),
        Err(_) => tracing::warn!("no heartbeat: nothing was sent"),
    }
}

async fn console(stream: Stream) {
    match lines(
        stream,
        &LOGGED,
        MAX_LOG,
        |line| tracing::info!(target: "enclave", "{line}"),
    )
    .await
    {
        Ok(()) => tracing::info!("the enclave's console ended"),
        Err(error) => tracing::warn!(%error, "the enclave's console was cut"),
    }
}

/// Gives each line to `line`, with nothing in it that could steer a terminal or pretend to be a line of its own.
async fn lines(
    from: impl AsyncRead + Unpin,
    logged: &AtomicU64,
    max: u64,
    mut line: impl FnMut(&str),
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let mut part = (&mut from).take(MAX_LINE);
        if part.read_until(b'\n', &mut bytes).await? == 0 {
            return Ok(());
        }
        let text = printable(String::from_utf8_lossy(&bytes).trim_end());
        let size = text.len() as u64 + AROUND_A_LINE;
        if logged.fetch_add(size, Ordering::Relaxed) > max {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{max} bytes are logged already; restart the host to log more"),
            ));
        }
        line(&text);
    }
}

fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            c => out.extend(c.escape_debug()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(bytes: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        lines(bytes, &AtomicU64::new(0), 1 << 20, |line| {
            all.push(line.to_owned())
        })
        .await
        .unwrap();
        all
    }

    #[tokio::test]
    async fn passes_lines_on_as_they_are() {
        let log = b"init: 3 files\nINFO boot step done step=2 name=\"entropy\"\nlast";
        assert_eq!(
            said(log).await,
            [
                "init: 3 files",
                "INFO boot step done step=2 name=\"entropy\"",
                "last"
            ]
        );
    }

    #[tokio::test]
    async fn escapes_what_could_steer_a_terminal_or_forge_a_line() {
        assert_eq!(said(b"\x1b[2Jx\rerror\n").await, ["\\u{1b}[2Jx\\rerror"]);
        assert_eq!(said(b"\xff\n").await, ["\u{fffd}"]);
    }

    #[tokio::test]
    async fn cuts_long_lines_into_pieces() {
        let cap = usize::try_from(MAX_LINE).unwrap();
        let pieces = said(&vec![b'x'; 2 * cap + 1]).await;
        assert_eq!(
            pieces.iter().map(String::len).collect::<Vec<_>>(),
            [cap, cap, 1]
        );
    }

    #[tokio::test]
    async fn stops_at_the_limit_of_a_whole_log() {
        let endless = tokio::io::repeat(b'\n');
        let mut count = 0;
        let (logged, max) = (AtomicU64::new(0), 1000 * AROUND_A_LINE);
        let error = lines(endless, &logged, max, |_| count += 1)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(count, 1001);
        // The next connection gets no budget of its own.
        lines(&b"x\n"[..], &logged, max, |_| count += 1)
            .await
            .unwrap_err();
        assert_eq!(count, 1001);
    }
}
