//! The shipped client by passport: evidence to our broker, its token to a server that is not ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use identity::Clock;
use kbs_client::{Error, Server, ServerIdentity};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use transport::Endpoint;

use crate::broker::{BROKER_ID, Broker, KEY_ID, SECRET, pcrs, server};
use crate::passport::{jwks, trustee};

const HOST: &str = "trustee.example.org";
/// The name under which a program, which asks the system, finds it.
const LOCAL: &str = "localhost";

/// A TLS server with a web certificate that asks the Python peer, which decides as a stock Trustee does, about each token.
pub(crate) struct Trustee {
    address: String,
    root: CertificateDer<'static>,
    asked: Arc<AtomicUsize>,
}

impl Trustee {
    pub(crate) async fn start(broker: &Broker, trusted: Value) -> Self {
        let (root, chain, key) = web_certificate(broker);
        let provider = Arc::new(identity::provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                count.fetch_add(1, Ordering::SeqCst);
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let answer = answer(&head, &trusted);
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.ok();
            }
        });
        Self {
            address,
            root,
            asked,
        }
    }

    pub(crate) fn url(&self) -> String {
        let (_, port) = self.address.rsplit_once(':').unwrap();
        format!("https://{LOCAL}:{port}")
    }

    pub(crate) fn root_pem(&self) -> String {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(&self.root);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    fn server(&self, name: &str, root: &CertificateDer<'static>) -> Server {
        Server {
            endpoint: Endpoint::Tcp(self.address.clone()),
            identity: ServerIdentity::Web {
                name: ServerName::try_from(name.to_owned()).unwrap(),
                roots: vec![root.clone()],
            },
        }
    }
}

fn answer(head: &str, trusted: &Value) -> String {
    let line = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
            .next()
    };
    assert!(
        head.starts_with(&format!("GET /kbs/v0/resource/{KEY_ID} HTTP/1.1\r\n")),
        "{head}"
    );
    let host = line("host").unwrap();
    assert!(
        host == HOST || host.split(':').next() == Some(LOCAL),
        "{host}"
    );
    assert_eq!(line("cookie"), None);
    let bearer = line("authorization").unwrap();
    let token = bearer.strip_prefix("Bearer ").unwrap();
    let (status, body) = match trustee(trusted, token).unwrap() {
        Ok(outcome) => ("200 OK", outcome["jwe"].to_string()),
        Err(_) => (
            "401 Unauthorized",
            r#"{"type":"https://github.com/confidential-containers/kbs/errors/TokenVerifierError","detail":"x"}"#.to_owned(),
        ),
    };
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// A root, and a leaf for [`HOST`] under it, good at the broker's time.
fn web_certificate(
    broker: &Broker,
) -> (
    CertificateDer<'static>,
    Vec<CertificateDer<'static>>,
    PrivateKeyDer<'static>,
) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let day = std::time::Duration::from_secs(24 * 3600);
    let dated = |mut params: CertificateParams| {
        params.not_before = (broker.now() - day).into();
        params.not_after = (broker.now() + day).into();
        params
    };
    let root_key = KeyPair::generate().unwrap();
    let mut root = dated(CertificateParams::new(Vec::new()).unwrap());
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&root_key).unwrap();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().unwrap();
    let leaf = dated(CertificateParams::new(vec![HOST.to_owned(), LOCAL.to_owned()]).unwrap());
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    (
        root_certificate.der().clone(),
        vec![leaf.der().clone()],
        key,
    )
}

fn client(broker: &Broker, trustee: Server) -> kbs_client::Broker {
    let servers = vec![server(&broker.listen, BROKER_ID)];
    broker
        .client_of_any(Arc::new(broker.nsm(pcrs())), servers)
        .with_trustee(trustee)
        .unwrap()
        .with_clock(Clock::from_fn(broker.clock()))
        .unwrap()
}

/// False, and said so, where the Python peer is not installed.
pub(crate) fn python() -> bool {
    trustee(&Value::Null, "x").is_some()
}

#[tokio::test]
async fn a_key_comes_from_a_trustee_on_the_word_of_our_broker() {
    if !python() {
        return;
    }
    let broker = Broker::start().await;
    let trustee = Trustee::start(&broker, jwks(&broker).await).await;
    let client = client(&broker, trustee.server(HOST, &trustee.root));
    let key = client.data_key(KEY_ID).await.unwrap();
    assert_eq!(key.expose(), SECRET);
    assert_eq!(broker.last_entry().path, "token");
    assert!(!broker.outcomes().contains(&"released".to_owned()));
}

#[tokio::test]
async fn a_trustee_that_does_not_trust_our_broker_is_asked_twice_and_no_more() {
    if !python() {
        return;
    }
    let (broker, other) = (Broker::start().await, Broker::start().await);
    let trustee = Trustee::start(&broker, jwks(&other).await).await;
    let client = client(&broker, trustee.server(HOST, &trustee.root));
    let error = client.data_key(KEY_ID).await.err().unwrap();
    assert!(
        matches!(error, Error::Unavailable { attempts: 2, .. }),
        "{error}"
    );
    assert_eq!(trustee.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn no_token_goes_to_a_server_of_another_name_or_under_another_root() {
    let (broker, other) = (Broker::start().await, Broker::start().await);
    let trustee = Trustee::start(&broker, Value::Null).await;
    let (foreign, ..) = web_certificate(&other);
    for server in [
        trustee.server("another.example.org", &trustee.root),
        trustee.server(HOST, &foreign),
    ] {
        let error = client(&broker, server)
            .data_key(KEY_ID)
            .await
            .err()
            .unwrap();
        assert!(
            error.to_string().contains("the peer is not the broker"),
            "{error}"
        );
    }
    assert_eq!(trustee.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_second_broker_serves_when_the_first_is_gone() {
    let broker = Broker::start().await;
    let nobody = Endpoint::Tcp("127.0.0.1:1".to_owned());
    let servers = vec![
        server(&nobody, BROKER_ID),
        server(&broker.listen, BROKER_ID),
    ];
    let client = broker.client_of_any(Arc::new(broker.nsm(pcrs())), servers);
    assert_eq!(client.data_key(KEY_ID).await.unwrap().expose(), SECRET);
}

#[tokio::test]
async fn a_refusal_by_one_broker_is_not_taken_to_another() {
    let (broker, other) = (Broker::start().await, Broker::start().await);
    let servers = vec![
        server(&broker.listen, BROKER_ID),
        server(&other.listen, BROKER_ID),
    ];
    let nsm = Arc::new(broker.nsm(crate::broker::other_pcrs()));
    let error = broker
        .client_of_any(nsm, servers)
        .data_key(KEY_ID)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!(other.outcomes(), ["stored", "policy-set", "started"]);
}
