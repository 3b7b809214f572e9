use std::io;
use std::sync::Arc;

use identity::issue::{Authority, new_svid};
use identity::{
    Accept, BundleHandle, ClientAuth, Credentials, Error, SpiffeId, Svid, TrustBundles,
    client_config, client_facts, server_config, server_facts, server_name, verdict,
};
use rustls::{ClientConfig, NamedGroup, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::support::{HOUR, LooseCa, clock_at, domain, id, now, root, uri};

const SERVER: &str = "spiffe://one.test/enclave/demo";
const CLIENT: &str = "spiffe://one.test/app/caller";

type Ends = (
    io::Result<client::TlsStream<DuplexStream>>,
    io::Result<server::TlsStream<DuplexStream>>,
);

struct World {
    root: Authority,
    bundles: BundleHandle,
    server: Arc<Credentials>,
    client: Arc<Credentials>,
}

impl World {
    fn new() -> Self {
        let root = root("one.test");
        let bundles = TrustBundles::from_pem(root.trust_domain(), &root.cert_pem())
            .unwrap()
            .into_handle();
        let world = Self {
            server: Arc::new(Credentials::with_clock(clock_at(now()))),
            client: Arc::new(Credentials::with_clock(clock_at(now()))),
            root,
            bundles,
        };
        world.server.install(world.svid(SERVER));
        world.client.install(world.svid(CLIENT));
        world
    }

    fn svid(&self, name: &str) -> Svid {
        new_svid(&self.root, &id(name), HOUR, now()).unwrap()
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        let clients = ClientAuth::Svid {
            bundles: Arc::clone(&self.bundles),
            accept: Accept::TrustDomains(vec![domain("one.test")]),
        };
        server_config(Arc::clone(&self.server), clients, &[b"h2", b"http/1.1"]).unwrap()
    }

    fn client_config(
        &self,
        credentials: Option<Arc<Credentials>>,
        accept: SpiffeId,
    ) -> Arc<ClientConfig> {
        client_config(
            credentials,
            Arc::clone(&self.bundles),
            Accept::Ids(vec![accept]),
            &[b"h2"],
        )
        .unwrap()
    }

    fn usual_client(&self) -> Arc<ClientConfig> {
        self.client_config(Some(Arc::clone(&self.client)), id(SERVER))
    }
}

/// Runs one handshake and one exchange: in TLS 1.3 a client learns that its certificate was refused only by reading.
async fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Ends {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let client = async {
        let mut stream = TlsConnector::from(client)
            .connect(server_name(), near)
            .await?;
        stream.read_u8().await?;
        Ok(stream)
    };
    let server = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
        Ok(stream)
    };
    tokio::join!(client, server)
}

/// Both ends fail, and `verdict` finds this reason on the side that decided.
fn decided(result: io::Result<impl Sized>, expected: fn(&Error) -> bool) {
    let error = result.err().expect("refused");
    let reason = verdict(&error).unwrap_or_else(|| panic!("no verdict in {error:?}"));
    assert!(expected(reason), "{reason:?}");
}

#[tokio::test]
async fn both_ends_agree_on_the_facts() {
    let world = World::new();
    let (client, server) = meet(world.usual_client(), world.server_config()).await;
    let (client, server) = (client.unwrap(), server.unwrap());
    let near = client_facts(client.get_ref().1).unwrap();
    let far = server_facts(server.get_ref().1).unwrap();
    assert_eq!(near.exporter, far.exporter);
    assert_eq!(near.peer.as_ref(), world.server.leaf().as_deref());
    assert_eq!(far.peer.as_ref(), world.client.leaf().as_deref());
    assert_eq!(near.alpn.as_deref(), Some(&b"h2"[..]));
    assert!(near.require_alpn(b"h2").is_ok() && near.require_alpn(b"http/1.1").is_err());
    assert_eq!(near.group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(far.group, near.group);
}

#[tokio::test]
async fn the_exporter_differs_on_every_connection() {
    let world = World::new();
    let (client, server) = (world.usual_client(), world.server_config());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (client, _server) = meet(Arc::clone(&client), Arc::clone(&server)).await;
        seen.push(client_facts(client.unwrap().get_ref().1).unwrap().exporter);
    }
    assert_ne!(seen[0], seen[1]);
}

#[tokio::test]
async fn nothing_is_ever_resumed_and_no_ticket_is_sent() {
    let world = World::new();
    let (client, server) = (world.usual_client(), world.server_config());
    assert_eq!(server.send_tls13_tickets, 0);
    assert_eq!(server.max_early_data_size, 0);
    assert!(!server.session_storage.can_cache());
    assert!(!client.enable_early_data);
    for _ in 0..2 {
        let (client, server) = meet(Arc::clone(&client), Arc::clone(&server)).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        let kind = Some(rustls::HandshakeKind::Full);
        assert_eq!(client.get_ref().1.handshake_kind(), kind);
        assert_eq!(server.get_ref().1.handshake_kind(), kind);
        assert_eq!(client.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn refuses_a_client_without_a_certificate() {
    let world = World::new();
    let client = world.client_config(None, id(SERVER));
    let (client, server) = meet(client, world.server_config()).await;
    assert!(client.is_err() && server.is_err());
    let nothing = Arc::new(Credentials::with_clock(clock_at(now())));
    let (client, server) = meet(
        world.client_config(Some(nothing), id(SERVER)),
        world.server_config(),
    )
    .await;
    assert!(client.is_err() && server.is_err());
}

#[tokio::test]
async fn refuses_a_client_of_another_trust_domain() {
    let world = World::new();
    let other = root("two.test");
    let svid = new_svid(&other, &id("spiffe://two.test/app/caller"), HOUR, now()).unwrap();
    world.client.install(svid);
    let (client, server) = meet(world.usual_client(), world.server_config()).await;
    assert!(client.is_err());
    decided(server, |error| {
        matches!(error, Error::UnknownTrustDomain(_))
    });
    // Known, but not accepted here.
    let mut bundles = TrustBundles::clone(&world.bundles.load());
    bundles
        .insert(domain("two.test"), other.cert_chain().to_vec())
        .unwrap();
    world.bundles.store(Arc::new(bundles));
    let (client, server) = meet(world.usual_client(), world.server_config()).await;
    assert!(client.is_err());
    decided(server, |error| matches!(error, Error::NotAccepted { .. }));
}

#[tokio::test]
async fn refuses_a_server_that_is_someone_else() {
    let world = World::new();
    world
        .server
        .install(world.svid("spiffe://one.test/enclave/other"));
    let (client, server) = meet(world.usual_client(), world.server_config()).await;
    decided(client, |error| matches!(error, Error::NotAccepted { .. }));
    assert!(server.is_err());
}

#[tokio::test]
async fn the_peer_learns_no_reason() {
    let world = World::new();
    world
        .server
        .install(world.svid("spiffe://one.test/enclave/other"));
    let (_, server) = meet(world.usual_client(), world.server_config()).await;
    let error = server.err().unwrap();
    assert!(error.to_string().contains("CertificateUnknown"), "{error}");
}

#[tokio::test]
async fn an_expired_svid_is_neither_presented_nor_believed() {
    // Our own clock is past the end: nothing is presented.
    let world = World::new();
    let late = Arc::new(Credentials::with_clock(clock_at(now() + 2 * HOUR)));
    late.install(world.svid(CLIENT));
    assert!(late.leaf().is_some());
    let (client, server) = meet(
        world.client_config(Some(late), id(SERVER)),
        world.server_config(),
    )
    .await;
    assert!(client.is_err() && server.is_err());
    // The peer's clock is past the end while ours stands still: the peer refuses.
    let server = Arc::new(Credentials::with_clock(clock_at(now() + 2 * HOUR)));
    server.install(new_svid(&world.root, &id(SERVER), 4 * HOUR, now()).unwrap());
    let world = World { server, ..world };
    let (client, server) = meet(world.usual_client(), world.server_config()).await;
    assert!(client.is_err());
    decided(server, |error| matches!(error, Error::Expired { .. }));
}

#[tokio::test]
async fn refuses_a_client_with_two_names() {
    let world = World::new();
    let ca = LooseCa::new();
    let (der, key) = ca.leaf_with_key(|params| {
        params.subject_alt_names = vec![uri(CLIENT), uri("https://one.test/")];
    });
    // Svid refuses such a leaf, so the client is built by hand.
    let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let client = Arc::new(
        ClientConfig::builder_with_provider(Arc::new(identity::provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_client_auth_cert(vec![der], key)
            .unwrap(),
    );
    let (client, server) = meet(client, world.server_config()).await;
    assert!(client.is_err());
    decided(server, |error| {
        matches!(error, Error::UriNames { found: 2 })
    });
}

#[tokio::test]
async fn a_server_without_an_svid_answers_nobody() {
    let world = World::new();
    world.server.withdraw();
    let (client, server) = meet(world.usual_client(), world.server_config()).await;
    assert!(client.is_err() && server.is_err());
}

#[tokio::test]
async fn refuses_an_application_protocol_we_do_not_speak() {
    let world = World::new();
    let client = client_config(
        Some(Arc::clone(&world.client)),
        Arc::clone(&world.bundles),
        Accept::Ids(vec![id(SERVER)]),
        &[b"spdy"],
    );
    let (client, server) = meet(client.unwrap(), world.server_config()).await;
    assert!(client.is_err() && server.is_err());
}

#[tokio::test]
async fn a_new_svid_and_a_new_bundle_need_no_new_configuration() {
    let world = World::new();
    let (client, server) = (world.usual_client(), world.server_config());
    let first = world.server.leaf().unwrap();
    meet(Arc::clone(&client), Arc::clone(&server))
        .await
        .0
        .unwrap();
    world.server.install(world.svid(SERVER));
    let stream = meet(Arc::clone(&client), Arc::clone(&server))
        .await
        .0
        .unwrap();
    let facts = client_facts(stream.get_ref().1).unwrap();
    assert_ne!(facts.peer.unwrap().serial, first.serial);
    // The authority is replaced: its old SVIDs stop working, new ones start.
    let next = root("one.test");
    let mut bundles = TrustBundles::new();
    bundles
        .insert(domain("one.test"), next.cert_chain().to_vec())
        .unwrap();
    world.bundles.store(Arc::new(bundles));
    let (refused, _) = meet(Arc::clone(&client), Arc::clone(&server)).await;
    decided(refused, |error| matches!(error, Error::Untrusted { .. }));
    for (credentials, name) in [(&world.server, SERVER), (&world.client, CLIENT)] {
        credentials.install(new_svid(&next, &id(name), HOUR, now()).unwrap());
    }
    meet(client, server).await.0.unwrap();
}

#[test]
fn accepting_nobody_is_a_configuration_error() {
    let world = World::new();
    let empty = client_config(
        None,
        Arc::clone(&world.bundles),
        Accept::Ids(Vec::new()),
        &[],
    );
    assert!(matches!(empty.err(), Some(Error::NothingAccepted)));
}

/// A client that does not care, as an attacker would write it.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls_pki_types::CertificateDer<'_>,
        _intermediates: &[rustls_pki_types::CertificateDer<'_>],
        _server_name: &rustls_pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &rustls_pki_types::CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &rustls_pki_types::CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        identity::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
