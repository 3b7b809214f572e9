//! Our two TLS configurations against others': both directions, and who is refused by whom.

use std::io;
use std::sync::Arc;

use identity::{
    Accept, BundleHandle, ClientAuth, Credentials, SpiffeId, TrustDomain, client_config,
    client_facts, server_config, server_facts, server_name,
};
use rustls::{ClientConfig, ServerConfig};
use spiffe::X509Source;
use spiffe_rustls::{TerminalSourcePolicy, TrustDomainPolicy, authorizer};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::peer::{Domain, HOUR, Peer, ask, entries};

const SERVER: &str = "spiffe://one.test/enclave/demo";
const CLIENT: &str = "spiffe://one.test/app/caller";

fn id(text: &str) -> SpiffeId {
    SpiffeId::new(text).unwrap()
}

fn ours_as_server(domain: &Domain, own: &str, callers: &str) -> Arc<ServerConfig> {
    let clients = ClientAuth::Svid {
        bundles: domain.bundles(),
        accept: Accept::TrustDomains(vec![TrustDomain::new(callers).unwrap()]),
    };
    server_config(domain.credentials(own), clients, &[]).unwrap()
}

fn ours_as_client(own: Arc<Credentials>, bundles: BundleHandle, server: &str) -> Arc<ClientConfig> {
    client_config(Some(own), bundles, Accept::Ids(vec![id(server)]), &[]).unwrap()
}

/// Accepts one connection, echoes one line, and gives the exporter and the peer's ID.
async fn serve_once(
    listener: TcpListener,
    config: Arc<ServerConfig>,
) -> io::Result<(Vec<u8>, String)> {
    let (stream, _) = listener.accept().await?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let facts = server_facts(stream.get_ref().1).map_err(io::Error::other)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    stream.write_all(line.as_bytes()).await?;
    stream.flush().await?;
    let peer = facts.peer.unwrap().id.to_string();
    // Until the peer has read it.
    stream.read_to_end(&mut Vec::new()).await.ok();
    Ok((facts.exporter.to_vec(), peer))
}

async fn dial_once(address: &str, config: Arc<ClientConfig>) -> io::Result<(Vec<u8>, String)> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(config)
        .connect(server_name(), stream)
        .await?;
    let facts = client_facts(stream.get_ref().1).map_err(io::Error::other)?;
    stream.write_all(b"ping\n").await?;
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await?;
    assert_eq!(&echo, b"ping\n");
    Ok((facts.exporter.to_vec(), facts.peer.unwrap().id.to_string()))
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn exporter(said: &serde_json::Value) -> Vec<u8> {
    use base64::Engine as _;
    let text = said["exporter"]
        .as_str()
        .unwrap_or_else(|| panic!("{said}"));
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap()
}

#[tokio::test]
async fn a_go_spiffe_client_and_our_server_agree() {
    let domain = Domain::start("one.test", &[CLIENT], HOUR).await;
    let (listener, address) = listener().await;
    let server = tokio::spawn(serve_once(
        listener,
        ours_as_server(&domain, SERVER, "one.test"),
    ));
    let Some(said) = ask(&["dial", &domain.socket, &address, SERVER]).await else {
        return;
    };
    let (ours, peer) = server.await.unwrap().unwrap();
    assert_eq!(
        (&said[0]["peer"], &said[0]["version"]),
        (&SERVER.into(), &"TLS 1.3".into())
    );
    assert_eq!(said[0]["resumed"], false);
    assert_eq!(peer, CLIENT);
    assert_eq!(exporter(&said[0]), ours, "RFC 9266, the same at both ends");
}

#[tokio::test]
async fn a_go_spiffe_server_and_our_client_agree() {
    let domain = Domain::start("one.test", &[SERVER], HOUR).await;
    let Some(mut server) = Peer::start(&["serve", &domain.socket, CLIENT]) else {
        return;
    };
    let address = server.address().await;
    let config = ours_as_client(domain.credentials(CLIENT), domain.bundles(), SERVER);
    let (ours, peer) = dial_once(&address, config).await.unwrap();
    let said = server.said().await;
    assert_eq!(
        (&said["peer"], &said["version"]),
        (&CLIENT.into(), &"TLS 1.3".into())
    );
    assert_eq!(peer, SERVER);
    assert_eq!(exporter(&said), ours);
}

#[tokio::test]
async fn who_go_spiffe_is_not_meant_for_is_refused_on_either_side() {
    let one = Domain::start("one.test", &[CLIENT], HOUR).await;
    let two = Domain::start("two.test", &["spiffe://two.test/app"], HOUR).await;
    // Its server expects another caller than us.
    one.entries.send_replace(entries(&[SERVER]));
    let Some(mut server) = Peer::start(&["serve", &one.socket, "spiffe://one.test/another"]) else {
        return;
    };
    let address = server.address().await;
    let config = ours_as_client(one.credentials(CLIENT), one.bundles(), SERVER);
    dial_once(&address, config).await.unwrap_err();
    assert!(
        server.said().await["error"]
            .as_str()
            .unwrap()
            .contains("unexpected ID")
    );
    // We expect another server than it.
    let config = ours_as_client(
        one.credentials(CLIENT),
        one.bundles(),
        "spiffe://one.test/other",
    );
    let error = dial_once(&address, config).await.unwrap_err();
    assert!(matches!(
        identity::verdict(&error),
        Some(identity::Error::NotAccepted { .. })
    ));
    // Of another trust domain: neither has a bundle for the other.
    let config = ours_as_client(
        two.credentials("spiffe://two.test/app"),
        two.bundles(),
        SERVER,
    );
    let error = dial_once(&address, config).await.unwrap_err();
    assert!(matches!(
        identity::verdict(&error),
        Some(identity::Error::UnknownTrustDomain(_))
    ));

    // Its client comes from another trust domain, or meets a server that it does not want.
    let (listener, address) = listener().await;
    let server = tokio::spawn(serve_once(
        listener,
        ours_as_server(&one, SERVER, "one.test"),
    ));
    let said = ask(&["dial", &two.socket, &address, SERVER]).await.unwrap();
    assert!(said[0]["error"].is_string(), "{said:?}");
    assert!(server.await.unwrap().is_err());
}

async fn source(domain: &Domain) -> X509Source {
    X509Source::builder()
        .endpoint(&domain.socket)
        .build()
        .await
        .unwrap()
}

fn theirs_as_server(source: X509Source, domain: &TrustDomain, caller: &str) -> Arc<ServerConfig> {
    let config = spiffe_rustls::mtls_server(source)
        .authorize(authorizer::exact([caller]).unwrap())
        .trust_domain_policy(TrustDomainPolicy::LocalOnly(domain.clone()))
        .terminal_source_policy(TerminalSourcePolicy::FailClosed)
        .build();
    Arc::new(config.unwrap())
}

fn theirs_as_client(source: X509Source, domain: &TrustDomain, server: &str) -> Arc<ClientConfig> {
    let config = spiffe_rustls::mtls_client(source)
        .authorize(authorizer::exact([server]).unwrap())
        .trust_domain_policy(TrustDomainPolicy::LocalOnly(domain.clone()))
        .terminal_source_policy(TerminalSourcePolicy::FailClosed)
        .build();
    Arc::new(config.unwrap())
}

/// spiffe-rustls takes the process's provider.
fn provider() {
    let _already_set = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[tokio::test(flavor = "multi_thread")]
async fn spiffe_rustls_and_our_server_agree() {
    provider();
    let domain = Domain::start("one.test", &[CLIENT], HOUR).await;
    let (at, address) = listener().await;
    let server = tokio::spawn(serve_once(at, ours_as_server(&domain, SERVER, "one.test")));
    let client = theirs_as_client(source(&domain).await, &domain.name, SERVER);
    let (near, peer) = dial_once(&address, client).await.unwrap();
    let (far, caller) = server.await.unwrap().unwrap();
    assert_eq!(
        (near, peer.as_str(), caller.as_str()),
        (far, SERVER, CLIENT)
    );

    // It wants another server, and it is another domain's.
    let (at, address) = listener().await;
    let server = tokio::spawn(serve_once(at, ours_as_server(&domain, SERVER, "one.test")));
    let client = theirs_as_client(
        source(&domain).await,
        &domain.name,
        "spiffe://one.test/other",
    );
    dial_once(&address, client).await.unwrap_err();
    assert!(server.await.unwrap().is_err());
    let two = Domain::start("two.test", &["spiffe://two.test/app"], HOUR).await;
    let (at, address) = listener().await;
    let server = tokio::spawn(serve_once(at, ours_as_server(&domain, SERVER, "one.test")));
    let client = theirs_as_client(source(&two).await, &two.name, SERVER);
    dial_once(&address, client).await.unwrap_err();
    assert!(server.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spiffe_rustls_server_and_our_client_agree() {
    provider();
    let domain = Domain::start("one.test", &[SERVER], HOUR).await;
    let config = theirs_as_server(source(&domain).await, &domain.name, CLIENT);
    let (at, address) = listener().await;
    let server = tokio::spawn(serve_once(at, Arc::clone(&config)));
    let ours = || ours_as_client(domain.credentials(CLIENT), domain.bundles(), SERVER);
    let (near, peer) = dial_once(&address, ours()).await.unwrap();
    let (far, caller) = server.await.unwrap().unwrap();
    assert_eq!(
        (near, peer.as_str(), caller.as_str()),
        (far, SERVER, CLIENT)
    );

    let (at, address) = listener().await;
    let server = tokio::spawn(serve_once(at, config));
    let stranger = ours_as_client(
        domain.credentials("spiffe://one.test/x"),
        domain.bundles(),
        SERVER,
    );
    dial_once(&address, stranger).await.unwrap_err();
    assert!(server.await.unwrap().is_err());
}
