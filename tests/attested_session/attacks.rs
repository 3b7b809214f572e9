//! Attacks that need more than one lie: on the connection itself, on what comes after the verdict, on the clock. The list of all, with
//! the test of each, is in `docs/threat-model.md`.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use attestation::{Sha256Digest, Subject};
use bytes::Bytes;
use gateway::{Error, Policy, Step, connect};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use identity::{Accept, Credentials, SpiffeId};
use rustls::HandshakeKind;
use rustls::server::ServerSessionMemoryCache;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use transport::Endpoint;

use crate::fake_enclave::{CALLER, FakeEnclave, HOUR, SERVER, World, at_once, honest, now};

const SOON: Duration = Duration::from_secs(8);

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).body(Empty::new()).unwrap()
}

/// The caller's own evidence, sent back at it: everything in it is true, with the roles exchanged.
#[tokio::test]
async fn evidence_with_the_roles_exchanged_is_refused() {
    let world = World::new();
    let lying = Arc::clone(&world);
    let respond = at_once(move |asked| {
        lying.answer(asked, |draft| {
            let caller = asked.facts.peer.as_ref().unwrap();
            let mut subject = lying.subject(asked);
            subject.tls_spki_sha256 = Sha256Digest::of(&caller.spki_der);
            subject.peer_leaf_sha256 = Sha256Digest::from(asked.server.sha256);
            subject.spiffe_id = caller.id.to_string();
            subject.svid_serial = caller.serial.clone();
            draft.binding.subject = Subject::Session(subject);
            draft.public_key = caller.spki_der.clone();
        })
    });
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), respond).await;
    let error = connect(&world.options(&enclave, world.policy()))
        .await
        .err()
        .unwrap();
    assert_eq!(error.step(), Some(Step::PublicKey), "{error}");
    assert_eq!(enclave.log.paths(), ["/v1/attestation"]);
}

/// The clock of the caller's machine is set back while a session stands: by NTP from the host's network, or by hand.
#[tokio::test]
async fn a_clock_set_back_prolongs_no_verdict() {
    let world = World::new();
    let silent = Arc::clone(&world);
    let respond: crate::fake_enclave::Respond = Arc::new(move |asked| {
        let said = silent.answer(&asked, |_| {});
        Box::pin(async move {
            if asked.before > 0 {
                sleep(HOUR).await;
            }
            said
        })
    });
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), respond).await;
    let back = Arc::new(AtomicI64::new(0));
    let policy = Policy {
        reattest: Duration::from_secs(2),
        ..world.policy()
    };
    let mut options = world.options(&enclave, policy);
    let moved = Arc::clone(&back);
    options.now =
        Arc::new(move || now() - Duration::from_secs(moved.load(Ordering::Relaxed).unsigned_abs()));
    let session = connect(&options).await.ok().unwrap();
    back.store(1800, Ordering::Relaxed);
    let reason = timeout(SOON, session.ended()).await.unwrap().unwrap();
    // By the monotonic clock; or before that, since by the wall clock the server's certificate has not begun.
    assert!(
        matches!(reason.step(), Some(Step::Expiry | Step::ServerIdentity)),
        "{reason}"
    );
    assert!(matches!(
        session.send(get("/v1/models")).await,
        Err(Error::Expired | Error::Closed)
    ));
}

/// With a clock set back by more than the age of a document, no document is fresh: it was made in the future.
#[tokio::test]
async fn a_clock_that_was_set_back_before_accepts_nobody() {
    let world = World::new();
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let mut options = world.options(&enclave, world.policy());
    options.now = Arc::new(|| now() - Duration::from_secs(1800));
    assert!(connect(&options).await.is_err());
    assert!(
        enclave
            .log
            .paths()
            .iter()
            .all(|path| path == "/v1/attestation")
    );
}

#[tokio::test]
async fn a_stream_goes_on_while_its_verdict_is_renewed() {
    let world = World::new();
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let policy = Policy {
        reattest: Duration::from_secs(1),
        ..world.policy()
    };
    let session = connect(&world.options(&enclave, policy))
        .await
        .ok()
        .unwrap();
    let pieces = enclave.log.stream();
    let mut body = session.send(get("/v1/stream")).await.unwrap().into_body();
    let first = session.verdict().until;
    // Three verdicts long.
    for piece in ["one", "two", "three", "four", "five", "six", "seven"] {
        pieces.send(Bytes::from(piece)).await.unwrap();
        let frame = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
        sleep(Duration::from_millis(500)).await;
    }
    assert!(session.verdict().until >= first + Duration::from_secs(2));
    assert_eq!(enclave.log.connections.load(Ordering::SeqCst), 1);
}

/// A server that gives tickets, as a host in the middle would to have a later connection skip its checks.
#[tokio::test]
async fn a_server_that_gives_tickets_is_met_by_full_handshakes_only() {
    let world = World::new();
    let credentials = Arc::new(Credentials::new());
    credentials.install(world.svid(SERVER, HOUR));
    let clients = identity::ClientAuth::None;
    let server = identity::server_config(credentials, clients, &[b"h2"]).unwrap();
    let mut server = Arc::unwrap_or_clone(server);
    server.send_tls13_tickets = 4;
    server.session_storage = ServerSessionMemoryCache::new(64);
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut tls = acceptor.accept(tcp).await.unwrap();
            tls.write_all(b"tickets are on the way").await.unwrap();
            tls.shutdown().await.unwrap();
        }
    });
    let accept = Accept::Ids(vec![SpiffeId::new(SERVER).unwrap()]);
    let config = identity::client_config(None, world.bundles().into_handle(), accept, &[b"h2"]);
    let connector = TlsConnector::from(config.unwrap());
    for _ in 0..3 {
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut tls = connector
            .connect(identity::server_name(), tcp)
            .await
            .unwrap();
        let mut words = Vec::new();
        tls.read_to_end(&mut words).await.unwrap();
        let session = tls.get_ref().1;
        assert!(
            session.tls13_tickets_received() > 0,
            "the server did give tickets"
        );
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
        assert!(identity::client_facts(session).is_ok());
    }
}

fn openssl(args: &[&str], dir: &Path) -> Option<Output> {
    let run = Command::new("openssl")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output();
    run.ok()
}

/// OpenSSL, which speaks both versions, asks our server for each.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_offers_tls_1_2_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    if openssl(&["version"], dir.path()).is_none() {
        tests::skip("openssl");
        return;
    }
    let world = World::new();
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let address = enclave.address.to_string();
    let dial = |version: &'static str| {
        let (address, dir) = (address.clone(), dir.path().to_owned());
        tokio::task::spawn_blocking(move || {
            let done = openssl(
                &[
                    "s_client", "-connect", &address, version, "-alpn", "h2", "-brief",
                ],
                &dir,
            );
            let done = done.unwrap();
            [done.stdout, done.stderr].concat()
        })
    };
    let old = String::from_utf8_lossy(&dial("-tls1_2").await.unwrap()).into_owned();
    assert!(old.contains("protocol version"), "{old}");
    let new = String::from_utf8_lossy(&dial("-tls1_3").await.unwrap()).into_owned();
    assert!(new.contains("TLSv1.3"), "{new}");
}

/// A host in the middle with a certificate that chains, and an old protocol in which resumption and exporters are weaker.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_knows_only_tls_1_2_gets_no_question() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    let id = SpiffeId::new(SERVER).unwrap();
    let (chain, key) = identity::issue::new_svid_der(&world.authority, &id, HOUR, now()).unwrap();
    std::fs::write(dir.path().join("leaf.der"), &chain[0]).unwrap();
    std::fs::write(dir.path().join("key.der"), &*key).unwrap();
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        free.local_addr().unwrap().port().to_string()
    };
    let server = |version: &str| {
        Command::new("openssl")
            .args([
                "s_server", "-accept", &port, version, "-alpn", "h2", "-quiet",
            ])
            .args([
                "-cert",
                "leaf.der",
                "-certform",
                "DER",
                "-key",
                "key.der",
                "-keyform",
                "DER",
            ])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    };
    let Ok(mut old) = server("-tls1_2") else {
        tests::skip("openssl");
        return;
    };
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let mut options = world.options(&enclave, world.policy());
    options.endpoint = Endpoint::Tcp(format!("127.0.0.1:{port}"));
    let error = timeout(SOON, async {
        loop {
            match connect(&options).await.err().unwrap() {
                // It has not begun to listen.
                Error::Connect(_) => sleep(Duration::from_millis(50)).await,
                error => return error,
            }
        }
    })
    .await
    .unwrap();
    assert!(matches!(error, Error::Tls(_)), "{error}");
    old.kill().unwrap();
    let said = old.wait_with_output().unwrap().stdout;
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    // The same server with the right version passes this step, so it was the version.
    let mut new = server("-tls1_3").unwrap();
    let error = timeout(SOON, async {
        loop {
            match connect(&options).await.err().unwrap() {
                Error::Connect(_) => sleep(Duration::from_millis(50)).await,
                error => return error,
            }
        }
    });
    // It does not speak HTTP/2, so the attempt ends at the challenge or at its limit.
    let error = error.await;
    assert!(!matches!(error, Ok(Error::Tls(_))), "{error:?}");
    new.kill().unwrap();
    new.wait().unwrap();
}

/// The connection that was verified is exchanged for one that was not, below a proxy that keeps connections.
#[tokio::test]
async fn a_connection_swapped_after_the_verdict_carries_nothing() {
    let world = World::new();
    let genuine = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let options = world.options(&genuine, world.policy());
    let session = connect(&options).await.ok().unwrap();
    let address = genuine.address;
    drop(genuine);
    // The same address, the same SPIFFE ID, a valid SVID of the host's own: everything but the evidence of this connection.
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_still_closing) => sleep(Duration::from_millis(20)).await,
        }
    };
    let host = FakeEnclave::start_on(&world, world.svid(SERVER, HOUR), honest(&world), listener);
    let sent = timeout(SOON, session.send(get("/v1/models")))
        .await
        .unwrap();
    assert!(sent.is_err(), "a session belongs to one connection");
    assert_eq!(host.log.connections.load(Ordering::SeqCst), 0);
    assert!(host.log.paths().is_empty());
}

/// Whoever asks the enclave for evidence gets it for the connection that it asks on, and for its own certificate.
#[tokio::test]
async fn evidence_made_for_another_caller_on_this_connection_is_refused() {
    let world = World::new();
    let lying = Arc::clone(&world);
    let other = world
        .svid("spiffe://cloister.test/app/other", HOUR)
        .leaf()
        .sha256;
    assert_ne!(SpiffeId::new(CALLER).unwrap().path(), "/app/other");
    let respond = at_once(move |asked| {
        lying.answer(asked, |draft| {
            let mut subject = lying.subject(asked);
            subject.peer_leaf_sha256 = Sha256Digest::from(other);
            draft.binding.subject = Subject::Session(subject);
        })
    });
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), respond).await;
    let error = connect(&world.options(&enclave, world.policy()))
        .await
        .err()
        .unwrap();
    assert_eq!(error.step(), Some(Step::Binding), "{error}");
}
