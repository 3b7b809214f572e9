//! Endpoints: their text form, and a connection over each kind that this machine has.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

use std::io;
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use transport::{Endpoint, EndpointError, Listener, Stream};

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap()
}

#[test]
fn reads_what_it_writes() {
    for text in [
        "vsock://3:8000",
        "vsock://any:4294967295",
        "hvsock:///run/vm/v.sock:52",
        "unix:///run/x/enclave.sock",
        "unix:///odd:name.sock",
        "tcp://127.0.0.1:7443",
        "tcp://[::1]:7443",
        "tcp://host-1.example.org:1",
    ] {
        assert_eq!(endpoint(text).to_string(), text);
        let json = serde_json::to_string(&endpoint(text)).unwrap();
        assert_eq!(json, format!("{text:?}"));
        assert_eq!(
            serde_json::from_str::<Endpoint>(&json).unwrap(),
            endpoint(text)
        );
    }
}

#[test]
fn refuses_what_it_cannot_use() {
    let refused = |text: &str| text.parse::<Endpoint>().unwrap_err();
    assert!(matches!(refused("127.0.0.1:80"), EndpointError::Scheme(_)));
    assert!(matches!(refused("http://a:80"), EndpointError::Scheme(_)));
    assert!(matches!(refused(""), EndpointError::Scheme(_)));
    for text in [
        "vsock://3",
        "vsock://3:",
        "vsock://3:+5",
        "vsock://3:4294967296",
    ] {
        assert!(matches!(refused(text), EndpointError::Port(_)), "{text}");
    }
    for text in [
        "tcp://a",
        "tcp://a:65536",
        "tcp://a:-1",
        "hvsock:///a.sock",
        "tcp://a:80/x",
    ] {
        assert!(matches!(refused(text), EndpointError::Port(_)), "{text}");
    }
    for text in [
        "vsock://:1",
        "vsock://-1:1",
        "vsock://4294967296:1",
        "vsock://x:1",
    ] {
        assert!(matches!(refused(text), EndpointError::Cid(_)), "{text}");
    }
    for text in [
        "unix://relative",
        "unix:///",
        "unix://",
        "hvsock://v.sock:1",
        "unix:///a\0b",
    ] {
        assert!(matches!(refused(text), EndpointError::Path(_)), "{text}");
    }
    for text in [
        "tcp://:80",
        "tcp://::1:80",
        "tcp://user@host:80",
        "tcp://a/b:80",
        "tcp://[]:1",
    ] {
        assert!(matches!(refused(text), EndpointError::Host(_)), "{text}");
    }
}

proptest! {
    #[test]
    fn never_panics_and_is_stable(text in "\\PC{0,60}") {
        if let Ok(endpoint) = text.parse::<Endpoint>() {
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
        }
    }
}

/// Sends both ways and checks that closing one direction leaves the other open.
async fn converse(listener: Listener, to: Endpoint) {
    let server = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        stream.write_all(b"heard ").await.unwrap();
        stream.write_all(&heard).await.unwrap();
    });
    let mut stream = to.connect().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "heard hello");
    server.await.unwrap();
}

#[tokio::test]
async fn tcp_tells_its_real_port() {
    let listener = endpoint("tcp://127.0.0.1:0").bind().await.unwrap();
    let local = listener.local();
    assert_ne!(local, endpoint("tcp://127.0.0.1:0"));
    converse(listener, local).await;
}

#[tokio::test]
async fn unix_socket_is_private_and_goes_with_its_listener() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let listener = Endpoint::Unix(path.clone()).bind().await.unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    converse(listener, Endpoint::Unix(path.clone())).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn unix_bind_replaces_only_a_socket_nobody_answers_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let at = Endpoint::Unix(path.clone());

    let listener = at.bind().await.unwrap();
    assert_eq!(
        at.bind().await.unwrap_err().kind(),
        io::ErrorKind::AddrInUse
    );
    drop(listener);

    // What a killed process leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(at.bind().await.unwrap());

    std::fs::write(&path, "a file of the user's").unwrap();
    assert_eq!(
        at.bind().await.unwrap_err().kind(),
        io::ErrorKind::AddrInUse
    );
    assert!(path.exists());
}

#[tokio::test]
async fn a_dropped_listener_leaves_its_successors_socket_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let old = Endpoint::Unix(path.clone()).bind().await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let _new = Endpoint::Unix(path.clone()).bind().await.unwrap();
    drop(old);
    assert!(path.exists());
}

/// A monitor in miniature: answers the handshake with `answer`, then echoes upper case.
fn monitor(path: &std::path::Path, answer: &'static [u8]) {
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut line = Vec::new();
        loop {
            match stream.read_u8().await.unwrap() {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        assert_eq!(line, b"CONNECT 52");
        stream.write_all(answer).await.unwrap();
        let mut rest = Vec::new();
        if stream.read_to_end(&mut rest).await.is_ok() {
            rest.make_ascii_uppercase();
            stream.write_all(&rest).await.ok();
        }
    });
}

#[tokio::test]
async fn hybrid_vsock_passes_the_first_guest_bytes_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.sock");
    monitor(&path, b"OK 1073741824\nfrom the guest,");
    let mut stream = Endpoint::Hvsock { path, port: 52 }.connect().await.unwrap();
    stream.write_all(b"to the guest").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "from the guest,TO THE GUEST");
}

#[tokio::test]
async fn hybrid_vsock_refuses_a_malformed_answer() {
    for answer in [
        &b"OK\n"[..],
        b"OK \n",
        b"OK x\n",
        b"NO 5\n",
        b"\n",
        b"OK 1234567890123456789012345678901234567890",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        monitor(&path, answer);
        let e = Endpoint::Hvsock { path, port: 52 }
            .connect()
            .await
            .unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData, "{answer:?}");
    }
}

#[tokio::test]
async fn hybrid_vsock_tells_that_nobody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let e = Endpoint::Hvsock { path, port: 52 }
        .connect()
        .await
        .unwrap_err();
    assert!(
        matches!(
            e.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
        ),
        "{e}"
    );
}

#[tokio::test]
async fn hybrid_vsock_does_not_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.sock");
    let _silent = tokio::net::UnixListener::bind(&path).unwrap();
    let e = Endpoint::Hvsock { path, port: 52 }
        .connect()
        .await
        .unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn hybrid_vsock_listens_beside_the_monitors_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.sock");
    let at = Endpoint::Hvsock { path, port: 53 };
    let listener = at.bind().await.unwrap();
    assert_eq!(listener.local(), at);
    converse(listener, Endpoint::Unix(dir.path().join("v.sock_53"))).await;
}

#[tokio::test]
async fn vsock_loopback_where_the_kernel_has_it() {
    let Ok(listener) = endpoint("vsock://1:19017").bind().await else {
        println!("skipped: no vsock loopback on this machine");
        return;
    };
    let Ok(Ok(probe)) = tokio::time::timeout(
        std::time::Duration::from_secs(2),
        endpoint("vsock://1:19017").connect(),
    )
    .await
    else {
        println!("skipped: no vsock loopback on this machine");
        return;
    };
    drop(probe);
    drop(listener.accept().await.unwrap());
    converse(listener, endpoint("vsock://1:19017")).await;
}

#[tokio::test]
async fn an_error_names_its_endpoint() {
    let e = endpoint("unix:///nonexistent/s.sock")
        .connect()
        .await
        .unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::NotFound);
    assert!(
        e.to_string()
            .starts_with("cannot connect to unix:///nonexistent/s.sock: ")
    );
}

#[test]
fn stream_can_be_sent_to_another_task() {
    fn sendable<T: Send + Unpin + 'static>() {}
    sendable::<Stream>();
}
