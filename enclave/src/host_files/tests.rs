//! A host that lies, stalls and hangs up: each trick ends in an error that names the file, in time, or is survived.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::*;

const DATA: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// What the host does with the nth connection (the last entry serves all later ones).
#[derive(Clone, Copy)]
enum Trick {
    /// Answers well, request after request.
    Honest,
    /// A fixed answer to every request.
    Says(&'static str),
    /// A fixed answer to the first request, then the connection is closed.
    SaysAndHangsUp(&'static str),
    /// Accepts and says nothing.
    Silent,
    /// A good head, then one byte now and then.
    Drips,
    /// Never stops sending a head.
    EndlessHead,
    HangsUp,
}

struct Host {
    runtime: Runtime,
    endpoint: Endpoint,
    connections: Arc<AtomicUsize>,
}

fn host(tricks: &'static [Trick]) -> Host {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let index = counter.fetch_add(1, Ordering::SeqCst);
            let trick = tricks[index.min(tricks.len() - 1)];
            tokio::spawn(answer(stream, trick));
        }
    });
    Host {
        runtime,
        endpoint,
        connections,
    }
}

impl Host {
    fn files(&self) -> HostFiles {
        let mut files = HostFiles::new(
            self.runtime.handle().clone(),
            self.endpoint.clone(),
            "demo".to_owned(),
            2,
            Duration::from_secs(8),
        );
        files.stall = Duration::from_millis(300);
        files.pause = Duration::from_millis(5);
        files
    }
}

async fn answer(mut stream: TcpStream, trick: Trick) {
    while let Some(request) = request(&mut stream).await {
        match trick {
            Trick::HangsUp => return,
            Trick::Silent => std::future::pending().await,
            Trick::Honest => {
                if stream.write_all(&honest(&request)).await.is_err() {
                    return;
                }
            }
            Trick::Says(text) => {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Trick::SaysAndHangsUp(text) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                return;
            }
            Trick::Drips => {
                let head =
                    "HTTP/1.1 206 P\r\ncontent-range: bytes 0-9/36\r\ncontent-length: 10\r\n\r\n";
                stream.write_all(head.as_bytes()).await.unwrap();
                for byte in 0..10 {
                    sleep(Duration::from_millis(250)).await;
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                }
            }
            Trick::EndlessHead => {
                stream.write_all(b"HTTP/1.1 206 P\r\n").await.unwrap();
                while stream
                    .write_all(b"x-more: and more and more and more\r\n")
                    .await
                    .is_ok()
                {}
                return;
            }
        }
    }
}

/// One request head, as text.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn honest(request: &str) -> Vec<u8> {
    assert!(
        request.contains(" /demo/weights.enc HTTP/1.1\r\n"),
        "{request}"
    );
    if request.starts_with("HEAD") {
        return format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", DATA.len()).into_bytes();
    }
    let range = request
        .split("range: bytes=")
        .nth(1)
        .unwrap()
        .split("\r\n")
        .next()
        .unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let body = &DATA[first..=last];
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {first}-{last}/{}\r\ncontent-length: {}\r\n\r\n",
        DATA.len(),
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn read(host: &Host) -> io::Result<[u8; 10]> {
    let mut buffer = [0; 10];
    host.files().read_at("weights.enc", 0, &mut buffer)?;
    Ok(buffer)
}

#[test]
fn an_honest_host_is_read_over_one_connection() {
    let host = host(&[Trick::Honest]);
    let files = host.files();
    assert_eq!(files.size("weights.enc").unwrap(), 36);
    let mut buffer = [0; 26];
    files.read_at("weights.enc", 10, &mut buffer).unwrap();
    assert_eq!(buffer, DATA[10..]);
    files.read_at("weights.enc", 0, &mut []).unwrap();
    assert_eq!(host.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn many_threads_share_a_few_connections() {
    let host = host(&[Trick::Honest]);
    let files = host.files();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let files = &files;
            scope.spawn(move || {
                for offset in 0..8 {
                    let mut byte = [0];
                    files
                        .read_at("weights.enc", thread + offset, &mut byte)
                        .unwrap();
                    assert_eq!(byte[0], DATA[usize::try_from(thread + offset).unwrap()]);
                }
            });
        }
    });
    assert!(host.connections.load(Ordering::SeqCst) <= 2);
}

#[test]
fn a_lie_is_refused_at_once_and_not_asked_for_again() {
    let cases: &[(&'static [Trick], &str)] = &[
        (
            &[Trick::Says(
                "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789",
            )],
            "status 200",
        ),
        (
            &[Trick::Says("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")],
            "status 404",
        ),
        (
            &[Trick::Says(
                "HTTP/1.1 302 No\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n",
            )],
            "status 302",
        ),
        (
            &[Trick::Says("HTTP/1.1 416 No\r\ncontent-length: 0\r\n\r\n")],
            "shorter than the range",
        ),
        (
            &[Trick::Says(
                "HTTP/1.1 206 P\r\ncontent-length: 10\r\n\r\n0123456789",
            )],
            "another range",
        ),
        (
            &[Trick::Says(
                "HTTP/1.1 206 P\r\ncontent-range: bytes 1-10/36\r\ncontent-length: 10\r\n\r\n0123456789",
            )],
            "another range",
        ),
        (
            &[Trick::Says(
                "HTTP/1.1 206 P\r\ncontent-range: bytes 0-9/36\r\ncontent-length: 9\r\n\r\n012345678",
            )],
            "another length",
        ),
        (
            &[Trick::Says(
                "HTTP/1.1 206 P\r\ncontent-range: bytes 0-9/36\r\ncontent-length: 99999999999\r\n\r\n",
            )],
            "another length",
        ),
        (
            &[Trick::Says(
                "HTTP/1.1 206 P\r\ncontent-range: bytes 0-9/36\r\ntransfer-encoding: chunked\r\n\r\n",
            )],
            "another length",
        ),
    ];
    for (tricks, expected) in cases {
        let host = host(tricks);
        let error = read(&host).unwrap_err().to_string();
        assert!(
            error.starts_with("the host's file demo/weights.enc: "),
            "{error}"
        );
        assert!(error.contains(expected), "{error} (expected {expected})");
        assert_eq!(host.connections.load(Ordering::SeqCst), 1, "{expected}");
    }
}

#[test]
fn a_size_that_is_missing_or_absurd_is_refused() {
    for says in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5000000000000\r\n\r\n",
        "HTTP/1.1 500 No\r\ncontent-length: 5\r\n\r\n",
    ] {
        let trick: &'static [Trick] = Box::leak(Box::new([Trick::Says(says)]));
        assert!(host(trick).files().size("weights.enc").is_err(), "{says}");
    }
}

#[test]
fn a_broken_connection_is_replaced_and_reading_goes_on_where_it_stopped() {
    const HALF: &str =
        "HTTP/1.1 206 P\r\ncontent-range: bytes 0-9/36\r\ncontent-length: 10\r\n\r\n01234";
    for tricks in [
        &[Trick::HangsUp, Trick::Honest] as &'static [Trick],
        &[Trick::SaysAndHangsUp(HALF), Trick::Honest],
        &[Trick::Silent, Trick::Honest],
        &[
            Trick::SaysAndHangsUp("not http at all\r\n\r\n"),
            Trick::Honest,
        ],
        &[
            Trick::SaysAndHangsUp("HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n"),
            Trick::Honest,
        ],
    ] {
        let host = host(tricks);
        assert_eq!(&read(&host).unwrap(), b"0123456789");
        assert_eq!(host.connections.load(Ordering::SeqCst), 2);
    }
}

#[test]
fn a_host_that_never_delivers_is_given_up() {
    let cases: [(&'static [Trick], &str); 4] = [
        (&[Trick::Silent], "no byte came"),
        (&[Trick::HangsUp], "connection broke"),
        (&[Trick::EndlessHead], "not an HTTP/1.1 answer"),
        (
            &[Trick::SaysAndHangsUp(
                "HTTP/1.1 206 P\r\ncontent-range: bytes 0-9/36\r\ncontent-length: 10\r\n\r\n",
            )],
            "",
        ),
    ];
    for (tricks, expected) in cases {
        let host = host(tricks);
        let error = read(&host).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_dripping_host_does_not_outlast_the_deadline() {
    let host = host(&[Trick::Drips]);
    let mut files = host.files();
    files.deadline = Duration::from_secs(1);
    let error = files.read_at("weights.enc", 0, &mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("not read within 1 s"), "{error}");
}

#[test]
fn nobody_at_the_endpoint_is_an_error_that_names_it() {
    let host = host(&[Trick::Honest]);
    let gone = Endpoint::Unix("/nonexistent/models.sock".into());
    let files = HostFiles::new(
        host.runtime.handle().clone(),
        gone,
        "demo".to_owned(),
        1,
        Duration::from_millis(500),
    );
    let error = files.size("weights.enc").unwrap_err().to_string();
    assert!(error.contains("weights.enc"), "{error}");
}

#[test]
fn a_name_cannot_become_another_request() {
    let host = host(&[Trick::Honest]);
    let files = host.files();
    for name in [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a?b",
        "a#b",
        "a b",
        "a\r\nx: y",
        "http://h/x",
        "a//b",
        "%2e",
    ] {
        assert_eq!(
            files.size(name).unwrap_err().kind(),
            io::ErrorKind::InvalidInput,
            "{name}"
        );
    }
    assert_eq!(host.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn a_range_beyond_all_numbers_is_refused() {
    let host = host(&[Trick::Honest]);
    let error = host
        .files()
        .read_at("weights.enc", u64::MAX - 2, &mut [0; 10])
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}
