//! The accept loop against slow, greedy, silent and early-leaving peers.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tower::service_fn;
use transport::{Endpoint, ServeLimits, Stream, serve, serve_with_turnover};

fn quick() -> ServeLimits {
    ServeLimits {
        max_connections: 8,
        handshake_timeout: Duration::from_millis(300),
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(600),
        max_age: None,
        max_streams: 4,
        drain: Duration::from_secs(2),
    }
}

struct Server {
    at: Endpoint,
    stop: Option<oneshot::Sender<()>>,
    turnover: watch::Sender<()>,
    task: JoinHandle<io::Result<()>>,
    gate: Arc<Notify>,
    served: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

impl Server {
    /// `/slow` answers once the gate opens, `/big` with 64 MiB, everything else with "hello".
    async fn start(limits: ServeLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = Endpoint::Unix(dir.path().join("s.sock"));
        let listener = at.bind().await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let gate = Arc::new(Notify::new());
        let served = Arc::new(AtomicUsize::new(0));
        let (g, n) = (Arc::clone(&gate), Arc::clone(&served));
        let accept = move |stream: Stream| {
            let (g, n) = (Arc::clone(&g), Arc::clone(&n));
            async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let (g, n) = (Arc::clone(&g), Arc::clone(&n));
                    async move {
                        let body = match request.uri().path() {
                            "/slow" => {
                                g.notified().await;
                                Bytes::from_static(b"at last")
                            }
                            "/big" => Bytes::from(vec![7; 64 << 20]),
                            _ => Bytes::from_static(b"hello"),
                        };
                        n.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, io::Error>(Response::new(Full::new(body)))
                    }
                });
                Ok((stream, service))
            }
        };
        let (turnover, turned) = watch::channel(());
        let task = tokio::spawn(serve_with_turnover(
            listener,
            accept,
            limits,
            turned,
            async {
                stopped.await.ok();
            },
        ));
        Self {
            at,
            stop: Some(stop),
            turnover,
            task,
            gate,
            served,
            _dir: dir,
        }
    }

    async fn connect(&self) -> Stream {
        self.at.connect().await.unwrap()
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

async fn get_h1(stream: &mut Stream, path: &str) -> String {
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

type H2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

async fn h2(stream: Stream) -> (H2, JoinHandle<hyper::Result<()>>) {
    let (send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    (send, tokio::spawn(connection))
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://x{path}"))
        .body(Empty::new())
        .unwrap()
}

#[tokio::test]
async fn speaks_http1_and_http2_on_one_listener() {
    let mut server = Server::start(quick()).await;
    assert!(
        get_h1(&mut server.connect().await, "/")
            .await
            .ends_with("hello")
    );
    let (mut send, _connection) = h2(server.connect().await).await;
    let answer = send.send_request(request("/")).await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "hello"
    );
    server.stop();
    drop(send);
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_silent_peer_is_closed() {
    let server = Server::start(quick()).await;
    let mut stream = server.connect().await;
    let start = Instant::now();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.ok();
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_head_that_drips_is_closed() {
    let server = Server::start(quick()).await;
    let (mut read, mut write) = tokio::io::split(server.connect().await);
    let drip = tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nx-a: 0123456789012345678901234567890123456789".iter() {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    let start = Instant::now();
    let mut rest = Vec::new();
    read.read_to_end(&mut rest).await.ok();
    assert!(
        start.elapsed() < Duration::from_millis(1800),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(server.served.load(Ordering::SeqCst), 0);
    drip.abort();
}

#[tokio::test]
async fn a_slow_handshake_delays_nobody_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let at = Endpoint::Unix(dir.path().join("s.sock"));
    let listener = at.bind().await.unwrap();
    // The first connection's handshake never ends.
    let seen = Arc::new(AtomicUsize::new(0));
    let accept = move |stream: Stream| {
        let first = seen.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            let service = service_fn(|_: Request<Incoming>| async {
                Ok::<_, io::Error>(Response::new(Full::new(Bytes::from_static(b"hello"))))
            });
            Ok((stream, service))
        }
    };
    let limits = ServeLimits {
        handshake_timeout: Duration::from_secs(3),
        ..quick()
    };
    let server = tokio::spawn(serve(listener, accept, limits, std::future::pending()));
    let mut stuck = at.connect().await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    assert!(
        get_h1(&mut at.connect().await.unwrap(), "/")
            .await
            .ends_with("hello")
    );
    assert!(start.elapsed() < Duration::from_secs(1));
    let mut rest = Vec::new();
    timeout(Duration::from_secs(6), stuck.read_to_end(&mut rest))
        .await
        .unwrap()
        .ok();
    server.abort();
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let server = Server::start(ServeLimits {
        max_connections: 2,
        header_timeout: Duration::from_secs(9),
        idle_timeout: Duration::from_secs(9),
        ..quick()
    })
    .await;
    let mut first = server.connect().await;
    let second = server.connect().await;
    sleep(Duration::from_millis(50)).await;
    let mut third = server.connect().await;
    let start = Instant::now();
    let mut rest = Vec::new();
    third.read_to_end(&mut rest).await.ok();
    assert!(rest.is_empty());
    assert!(start.elapsed() < Duration::from_secs(2));

    // A slot that is free again is used again.
    drop(second);
    assert!(get_h1(&mut first, "/").await.ends_with("hello"));
    let again = async {
        loop {
            let mut stream = server.connect().await;
            let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            let mut answer = String::new();
            if stream.write_all(request).await.is_ok()
                && stream.read_to_string(&mut answer).await.is_ok()
                && answer.ends_with("hello")
            {
                return;
            }
        }
    };
    timeout(Duration::from_secs(2), again).await.unwrap();
}

#[tokio::test]
async fn a_request_in_flight_is_not_idle() {
    let server = Server::start(quick()).await;
    let (mut send, _connection) = h2(server.connect().await).await;
    let answer = tokio::spawn(send.send_request(request("/slow")));
    sleep(Duration::from_millis(1300)).await;
    server.gate.notify_one();
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "at last"
    );
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let server = Server::start(quick()).await;
    let (mut send, connection) = h2(server.connect().await).await;
    send.send_request(request("/"))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    timeout(Duration::from_secs(3), connection)
        .await
        .expect("closed by the server")
        .unwrap()
        .ok();
}

#[tokio::test]
async fn an_old_connection_finishes_its_request_and_takes_no_other() {
    let limits = ServeLimits {
        max_age: Some(Duration::from_millis(200)),
        ..quick()
    };
    let server = Server::start(limits).await;
    let (mut send, connection) = h2(server.connect().await).await;
    let answer = tokio::spawn(send.send_request(request("/slow")));
    sleep(Duration::from_millis(500)).await;
    assert!(send.send_request(request("/")).await.is_err());
    server.gate.notify_one();
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "at last"
    );
    timeout(Duration::from_secs(1), connection)
        .await
        .expect("closed after its last answer")
        .unwrap()
        .ok();
}

#[tokio::test]
async fn a_turnover_ends_the_connections_before_it_and_no_later_one() {
    let limits = ServeLimits {
        idle_timeout: Duration::from_secs(30),
        ..quick()
    };
    let server = Server::start(limits).await;
    let (mut send, connection) = h2(server.connect().await).await;
    let in_flight = tokio::spawn(send.send_request(request("/slow")));
    let (mut resting, rested) = h2(server.connect().await).await;
    resting.send_request(request("/")).await.unwrap();
    sleep(Duration::from_millis(100)).await;

    server.turnover.send_replace(());
    timeout(Duration::from_secs(1), rested)
        .await
        .expect("closed at once")
        .unwrap()
        .ok();
    assert!(resting.send_request(request("/")).await.is_err());
    assert!(send.send_request(request("/")).await.is_err());
    let (mut later, _connection) = h2(server.connect().await).await;
    later.send_request(request("/")).await.unwrap();

    server.gate.notify_one();
    let answer = in_flight.await.unwrap().unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "at last"
    );
    timeout(Duration::from_secs(1), connection)
        .await
        .expect("closed after its last answer")
        .unwrap()
        .ok();
    later.send_request(request("/")).await.unwrap();
}

#[tokio::test]
async fn shutdown_loses_no_accepted_request() {
    let mut server = Server::start(quick()).await;
    let mut stream = server.connect().await;
    let answer = tokio::spawn(async move { get_h1(&mut stream, "/slow").await });
    let (mut send, _connection) = h2(server.connect().await).await;
    let other = tokio::spawn(send.send_request(request("/slow")));
    sleep(Duration::from_millis(100)).await;
    server.stop();
    sleep(Duration::from_millis(100)).await;
    assert!(
        server.at.connect().await.is_err(),
        "nobody new is accepted while draining"
    );
    server.gate.notify_waiters();
    assert!(answer.await.unwrap().ends_with("at last"));
    let other = other.await.unwrap().unwrap();
    assert_eq!(
        other.into_body().collect().await.unwrap().to_bytes(),
        "at last"
    );
    drop(send);
    timeout(Duration::from_secs(1), server.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn drain_has_a_deadline() {
    let mut server = Server::start(ServeLimits {
        drain: Duration::from_millis(300),
        ..quick()
    })
    .await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    server.stop();
    server.task.await.unwrap().unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_peer_that_takes_no_bytes_is_cut() {
    let mut server = Server::start(quick()).await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_millis(1500)).await;
    let start = Instant::now();
    server.stop();
    timeout(Duration::from_secs(1), server.task)
        .await
        .expect("it was gone already")
        .unwrap()
        .unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.ok();
    assert!(got.len() < 64 << 20);
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let server = Server::start(quick()).await;
    let (mut read, mut write) = tokio::io::split(server.connect().await);
    let flood = tokio::spawn(async move {
        write.write_all(b"GET / HTTP/1.1\r\n").await.ok();
        while write.write_all(&[b'a'; 4096]).await.is_ok() {}
    });
    let mut answer = Vec::new();
    timeout(Duration::from_secs(2), read.read_to_end(&mut answer))
        .await
        .unwrap()
        .ok();
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 431") || answer.is_empty(),
        "{answer}"
    );
    assert_eq!(server.served.load(Ordering::SeqCst), 0);
    flood.await.unwrap();
}
