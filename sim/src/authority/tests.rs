use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::issue::Authority;
use identity::{SpiffeId, TrustBundles, TrustDomain};
use spiffe::X509Source;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use transport::Endpoint;

use super::workload_api::pb::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest,
    X509svidResponse,
};
use super::{Entry, Error, serve, serve_changing};

const SOON: Duration = Duration::from_secs(5);

fn entry(path: &str) -> Entry {
    Entry {
        spiffe_id: SpiffeId::new(format!("spiffe://example.org{path}")).unwrap(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clients under test look at the real clock"
)]
fn clock() -> super::Clock {
    Arc::new(SystemTime::now)
}

fn root() -> Authority {
    let domain = TrustDomain::new("example.org").unwrap();
    Authority::generate_root(&domain, clock()(), Duration::from_secs(3600)).unwrap()
}

struct Served {
    unix: String,
    root_pem: String,
    entries: watch::Sender<Vec<Entry>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Error>>,
    _dir: tempfile::TempDir,
}

impl Served {
    async fn start(entries: &[&str], ttl: Duration, authority: Authority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(dir.path().join("workload.sock"));
        let (entries, receiver) = watch::channel(entries.iter().map(|path| entry(path)).collect());
        let (stop, stopped) = oneshot::channel();
        let root_pem = authority.cert_pem();
        let unix = endpoint.to_string();
        let endpoints = vec![endpoint.clone()];
        let task = tokio::spawn(serve_changing(
            authority,
            receiver,
            endpoints,
            ttl,
            clock(),
            async {
                stopped.await.ok();
            },
        ));
        while endpoint.connect().await.is_err() {
            assert!(!task.is_finished());
            sleep(Duration::from_millis(5)).await;
        }
        Self {
            unix,
            root_pem,
            entries,
            stop: Some(stop),
            task,
            _dir: dir,
        }
    }

    async fn source(&self) -> X509Source {
        source(&self.unix).await
    }

    async fn grpc(&self) -> Grpc<tonic::transport::Channel> {
        let endpoint: Endpoint = self.unix.parse().unwrap();
        let connector = tower::service_fn(move |_| {
            let endpoint = endpoint.clone();
            async move { endpoint.connect().await.map(hyper_util::rt::TokioIo::new) }
        });
        let target = tonic::transport::Endpoint::from_static("http://unused");
        let channel = target.connect_with_connector(connector).await;
        let mut grpc = Grpc::new(channel.unwrap());
        grpc.ready().await.unwrap();
        grpc
    }
}

async fn source(endpoint: &str) -> X509Source {
    let building = X509Source::builder()
        .endpoint(endpoint)
        .reconnect_backoff(Duration::from_millis(20), Duration::from_millis(100))
        .initial_sync_timeout(SOON)
        .build();
    building.await.unwrap()
}

fn method(name: &str) -> PathAndQuery {
    format!("/SpiffeWorkloadAPI/{name}").parse().unwrap()
}

fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

async fn stream<Q, A>(
    served: &Served,
    name: &str,
    request: Request<Q>,
) -> Result<Streaming<A>, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let codec = ProstCodec::<Q, A>::default();
    let answer = served
        .grpc()
        .await
        .server_streaming(request, method(name), codec)
        .await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn a_stock_source_gets_a_valid_svid_over_unix() {
    let served = Served::start(&["/caller"], Duration::from_secs(600), root()).await;
    let source = served.source().await;
    let svid = source.svid().unwrap();
    assert_eq!(svid.spiffe_id(), &entry("/caller").spiffe_id);
    let svid = identity::Svid::from_spiffe(&svid).unwrap();
    assert_eq!(svid.leaf().id, entry("/caller").spiffe_id);
    let domain = TrustDomain::new("example.org").unwrap();
    assert!(source.bundle_set().unwrap().get(&domain).is_some());
    source.shutdown().await;
}

#[tokio::test]
async fn a_stock_source_gets_a_valid_svid_over_loopback_tcp() {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let at = format!("tcp://127.0.0.1:{port}");
    let serving = tokio::spawn(serve(
        root(),
        vec![entry("/caller")],
        vec![at.parse().unwrap()],
        Duration::from_secs(600),
        clock(),
        std::future::pending(),
    ));
    let source = source(&at).await;
    assert_eq!(
        source.svid().unwrap().spiffe_id(),
        &entry("/caller").spiffe_id
    );
    source.shutdown().await;
    serving.abort();
}

#[tokio::test]
async fn an_intermediate_sends_its_chain_and_the_root_as_bundle() {
    let root = root();
    let below = root
        .intermediate(clock()(), Duration::from_secs(3600))
        .unwrap();
    let served = Served::start(&["/caller"], Duration::from_secs(600), below).await;
    let source = served.source().await;
    let svid = source.svid().unwrap();
    assert_eq!(svid.cert_chain().len(), 2);
    let chain: Vec<_> = svid
        .cert_chain()
        .iter()
        .map(|c| rustls_pki_types::CertificateDer::from(c.as_bytes().to_vec()))
        .collect();
    let domain = TrustDomain::new("example.org").unwrap();
    let bundles = TrustBundles::from_pem(&domain, &root.cert_pem()).unwrap();
    assert_eq!(
        bundles.verify(&chain, clock()()).unwrap().id,
        entry("/caller").spiffe_id
    );
    source.shutdown().await;
}

#[tokio::test]
async fn rotation_is_seen_with_a_new_key() {
    let served = Served::start(&["/caller"], Duration::from_secs(3), root()).await;
    let source = served.source().await;
    let first = source.svid().unwrap();
    let mut updates = source.updated();
    timeout(SOON, updates.changed()).await.unwrap().unwrap();
    let second = source.svid().unwrap();
    assert_eq!(first.spiffe_id(), second.spiffe_id());
    assert_ne!(
        first.private_key().as_bytes(),
        second.private_key().as_bytes()
    );
    assert_ne!(
        first.cert_chain()[0].as_bytes(),
        second.cert_chain()[0].as_bytes()
    );
    source.shutdown().await;
}

#[tokio::test]
async fn each_message_is_the_complete_state() {
    let served = Served::start(&["/a", "/b"], Duration::from_secs(600), root()).await;
    let mut states =
        stream::<_, X509svidResponse>(&served, "FetchX509SVID", with_header(X509svidRequest {}))
            .await
            .unwrap();
    let mut next = async || {
        let state = timeout(SOON, states.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(state.federated_bundles.is_empty() && state.crl.is_empty());
        state
            .svids
            .into_iter()
            .map(|svid| svid.spiffe_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        next().await,
        ["spiffe://example.org/a", "spiffe://example.org/b"]
    );
    served.entries.send_replace(vec![entry("/b")]);
    assert_eq!(next().await, ["spiffe://example.org/b"]);
    served.entries.send_replace(vec![entry("/b"), entry("/c")]);
    assert_eq!(
        next().await,
        ["spiffe://example.org/b", "spiffe://example.org/c"]
    );
}

#[tokio::test]
async fn a_removed_entry_is_withdrawn_and_comes_back() {
    let served = Served::start(&["/caller"], Duration::from_secs(600), root()).await;
    let source = served.source().await;
    assert!(source.svid().is_ok());
    let mut updates = source.updated();
    served.entries.send_replace(Vec::new());
    timeout(SOON, updates.changed()).await.unwrap().unwrap();
    assert!(
        source.svid().is_err(),
        "withdrawn material must not be used"
    );
    served.entries.send_replace(vec![entry("/caller")]);
    timeout(SOON, updates.changed()).await.unwrap().unwrap();
    assert!(source.svid().is_ok());
    source.shutdown().await;
}

#[tokio::test]
async fn bundles_are_keyed_by_trust_domain_id() {
    let served = Served::start(&["/caller"], Duration::from_secs(600), root()).await;
    let mut states = stream::<_, X509BundlesResponse>(
        &served,
        "FetchX509Bundles",
        with_header(X509BundlesRequest {}),
    )
    .await
    .unwrap();
    let state = timeout(SOON, states.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(state.bundles.len(), 1);
    let der = state.bundles.get("spiffe://example.org").unwrap();
    let pem =
        identity::pem::encode_certificates(&[rustls_pki_types::CertificateDer::from(der.to_vec())]);
    assert_eq!(pem, served.root_pem);
}

#[tokio::test]
async fn refuses_a_request_without_the_security_header() {
    let served = Served::start(&["/caller"], Duration::from_secs(600), root()).await;
    for values in [
        &[][..],
        &["True"],
        &["TRUE"],
        &["1"],
        &["false"],
        &[""],
        &["true", "true"],
        &["true", "false"],
    ] {
        let mut request = Request::new(X509svidRequest {});
        for value in values {
            request
                .metadata_mut()
                .append("workload.spiffe.io", value.parse().unwrap());
        }
        let refused = stream::<_, X509svidResponse>(&served, "FetchX509SVID", request)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{values:?}");
    }
    let bare = Request::new(X509BundlesRequest {});
    let refused = stream::<_, X509BundlesResponse>(&served, "FetchX509Bundles", bare)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn jwt_methods_are_disabled() {
    let served = Served::start(&["/caller"], Duration::from_secs(600), root()).await;
    let codec = ProstCodec::<JwtsvidRequest, JwtsvidResponse>::default();
    let request = with_header(JwtsvidRequest {
        audience: vec!["x".into()],
        spiffe_id: String::new(),
    });
    let svid = served
        .grpc()
        .await
        .unary(request, method("FetchJWTSVID"), codec)
        .await
        .unwrap_err();
    assert_eq!(svid.code(), Code::Unimplemented);
    assert!(svid.message().contains("administratively disabled"));

    let codec = ProstCodec::<ValidateJwtsvidRequest, ValidateJwtsvidResponse>::default();
    let request = with_header(ValidateJwtsvidRequest {
        audience: "x".into(),
        svid: "y".into(),
    });
    let validated = served
        .grpc()
        .await
        .unary(request, method("ValidateJWTSVID"), codec)
        .await
        .unwrap_err();
    assert_eq!(validated.code(), Code::Unimplemented);

    let request = with_header(JwtBundlesRequest {});
    let bundles = stream::<_, JwtBundlesResponse>(&served, "FetchJWTBundles", request)
        .await
        .unwrap_err();
    assert_eq!(bundles.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_long_request_is_refused() {
    let served = Served::start(&["/caller"], Duration::from_secs(600), root()).await;
    let codec = ProstCodec::<ValidateJwtsvidRequest, ValidateJwtsvidResponse>::default();
    let request = with_header(ValidateJwtsvidRequest {
        audience: "x".into(),
        svid: "y".repeat(5 << 10),
    });
    let refused = served
        .grpc()
        .await
        .unary(request, method("ValidateJWTSVID"), codec)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
}

#[tokio::test]
async fn shutdown_ends_open_streams() {
    let mut served = Served::start(&["/caller"], Duration::from_secs(600), root()).await;
    let mut states =
        stream::<_, X509svidResponse>(&served, "FetchX509SVID", with_header(X509svidRequest {}))
            .await
            .unwrap();
    states.message().await.unwrap().unwrap();
    served.stop.take().unwrap().send(()).unwrap();
    let ended = timeout(SOON, states.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    timeout(SOON, served.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn refuses_endpoints_that_others_can_reach() {
    for at in [
        "tcp://0.0.0.0:0",
        "tcp://[::]:0",
        "tcp://10.1.2.3:0",
        "tcp://localhost:0",
        "vsock://3:1",
    ] {
        let endpoints = vec![at.parse().unwrap()];
        let entries = vec![entry("/caller")];
        let ttl = Duration::from_secs(60);
        let refused = serve(
            root(),
            entries,
            endpoints,
            ttl,
            clock(),
            std::future::pending(),
        )
        .await;
        assert!(matches!(refused, Err(Error::Endpoint(_))), "{at}");
    }
}

#[tokio::test]
async fn refuses_an_entry_of_another_trust_domain() {
    let entries = vec![Entry {
        spiffe_id: SpiffeId::new("spiffe://other.org/caller").unwrap(),
    }];
    let ttl = Duration::from_secs(60);
    let refused = serve(
        root(),
        entries,
        Vec::new(),
        ttl,
        clock(),
        std::future::pending(),
    )
    .await;
    assert!(matches!(refused, Err(Error::Issue(_))));
}
