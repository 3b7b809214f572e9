use std::time::UNIX_EPOCH;

use axum::routing::get;
use axum::{Extension, response::IntoResponse};
use identity::issue::{Authority, new_svid};
use identity::{Clock as IdentityClock, SpiffeId, TrustBundles, TrustDomain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use transport::{Endpoint, ServeLimits, serve};

use super::*;

const NOW: SystemTime = UNIX_EPOCH;
const TTL: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    NOW + Duration::from_secs(1_800_000_000)
}

fn clock() -> IdentityClock {
    IdentityClock::from_fn(Arc::new(now))
}

struct Domain {
    name: TrustDomain,
    root: Authority,
}

impl Domain {
    fn new(name: &str) -> Self {
        let name = TrustDomain::new(name).unwrap();
        let root = Authority::generate_root(&name, now(), Duration::from_secs(86_400)).unwrap();
        Self { name, root }
    }

    fn bundles(&self) -> TrustBundles {
        TrustBundles::from_pem(&self.name, &self.root.cert_pem()).unwrap()
    }

    fn id(&self, path: &str) -> SpiffeId {
        SpiffeId::new(format!("spiffe://{}{path}", self.name)).unwrap()
    }

    fn credentials(&self, path: &str, ttl: Duration) -> Arc<Credentials> {
        let credentials = Arc::new(Credentials::with_clock(clock()));
        credentials.install(new_svid(&self.root, &self.id(path), ttl, now()).unwrap());
        credentials
    }
}

/// A served enclave front that answers with the caller's ID and the exporter it saw.
async fn served(domain: &Domain, own: Arc<Credentials>) -> Endpoint {
    async fn who(Extension(connection): Extension<Arc<Connection>>) -> impl IntoResponse {
        format!(
            "{} {}",
            connection.caller.id,
            hex::encode(connection.exporter)
        )
    }
    let bundles = domain.bundles().into_handle();
    let config = server_config(&own, bundles, vec![domain.name.clone()]).unwrap();
    let sessions = Sessions {
        acceptor: TlsAcceptor::from(config),
        credentials: own,
        models: Arc::new(Models::new(Vec::new())),
        router: Router::new().route("/who", get(who)),
        metrics: Arc::new(Metrics::new().unwrap()),
        now: Arc::new(now),
    };
    let listener = Endpoint::Tcp("127.0.0.1:0".to_owned())
        .bind()
        .await
        .unwrap();
    let endpoint = listener.local();
    let accept = move |stream| sessions.clone().accept(stream);
    tokio::spawn(serve(
        listener,
        accept,
        ServeLimits::default(),
        std::future::pending(),
    ));
    endpoint
}

type Client = tokio_rustls::client::TlsStream<Stream>;

/// A handshake, one request, and the text that came back; with the connection, to look at.
async fn ask(
    endpoint: &Endpoint,
    credentials: Option<Arc<Credentials>>,
    domain: &Domain,
) -> io::Result<(String, Client)> {
    let accept = Accept::Ids(vec![domain.id("/enclave")]);
    let bundles = domain.bundles().into_handle();
    let config =
        identity::client_config_at(clock(), credentials, bundles, accept, &[b"http/1.1"]).unwrap();
    let stream = endpoint.connect().await?;
    let mut tls = TlsConnector::from(config)
        .connect(identity::server_name(), stream)
        .await?;
    tls.write_all(b"GET /who HTTP/1.1\r\nhost: e\r\n\r\n")
        .await?;
    let mut answer = vec![0; 4096];
    let length = tls.read(&mut answer).await?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((String::from_utf8_lossy(&answer[..length]).into_owned(), tls))
}

#[tokio::test]
async fn a_handler_knows_the_caller_and_the_exporter_of_its_connection() {
    let domain = Domain::new("cloister.dev");
    let endpoint = served(&domain, domain.credentials("/enclave", TTL)).await;
    let (answer, tls) = ask(&endpoint, Some(domain.credentials("/app", TTL)), &domain)
        .await
        .unwrap();
    let facts = identity::client_facts(tls.get_ref().1).unwrap();
    let expected = format!("spiffe://cloister.dev/app {}", hex::encode(facts.exporter));
    assert!(answer.ends_with(&expected), "{answer}");
}

#[tokio::test]
async fn a_caller_without_an_svid_or_from_elsewhere_gets_an_alert() {
    let domain = Domain::new("cloister.dev");
    let endpoint = served(&domain, domain.credentials("/enclave", TTL)).await;
    assert!(ask(&endpoint, None, &domain).await.is_err());
    // Same name, another authority; and another domain altogether.
    let impostor = Domain::new("cloister.dev");
    assert!(
        ask(&endpoint, Some(impostor.credentials("/app", TTL)), &domain)
            .await
            .is_err()
    );
    let foreign = Domain::new("other.example");
    assert!(
        ask(&endpoint, Some(foreign.credentials("/app", TTL)), &domain)
            .await
            .is_err()
    );
    assert!(
        ask(&endpoint, Some(domain.credentials("/app", TTL)), &domain)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_connection_ends_with_the_callers_certificate() {
    let domain = Domain::new("cloister.dev");
    let endpoint = served(&domain, domain.credentials("/enclave", TTL)).await;
    // The server's clock stands still, so the certificate's life is counted from the handshake.
    let short = domain.credentials("/app", Duration::from_secs(1));
    let (_, mut tls) = ask(&endpoint, Some(short), &domain).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), tls.read(&mut [0; 64])).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "still open");
}

#[tokio::test]
async fn no_identity_means_no_handshake() {
    let domain = Domain::new("cloister.dev");
    let empty = Arc::new(Credentials::with_clock(clock()));
    let endpoint = served(&domain, empty).await;
    assert!(
        ask(&endpoint, Some(domain.credentials("/app", TTL)), &domain)
            .await
            .is_err()
    );
}

#[test]
fn the_certificate_that_ends_first_decides() {
    let leaf = |seconds: u64| Leaf {
        id: SpiffeId::new("spiffe://cloister.dev/x").unwrap(),
        serial: "01".to_owned(),
        not_before: UNIX_EPOCH,
        not_after: UNIX_EPOCH + Duration::from_secs(seconds),
        spki_der: Vec::new(),
        sha256: [0; 32],
    };
    let at = UNIX_EPOCH + Duration::from_secs(100);
    assert_eq!(
        life_left(&leaf(200), &leaf(150), at).unwrap(),
        Duration::from_secs(50)
    );
    assert_eq!(
        life_left(&leaf(110), &leaf(150), at).unwrap(),
        Duration::from_secs(10)
    );
    assert!(life_left(&leaf(99), &leaf(150), at).is_err());
    assert!(life_left(&leaf(200), &leaf(99), at).is_err());
}
