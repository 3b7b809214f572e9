//! A server that is not what it should be: each promise of its broken once. What a real one does is `tests/spire.rs`'s.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::issue::{Authority, key_and_csr};
use identity::{TrustDomain, pem};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::pb::spire::api::server::bundle::v1::GetBundleRequest;
use super::pb::spire::api::server::bundle::v1::bundle_server::{Bundle, BundleServer};
use super::pb::spire::api::server::entry::v1::entry_server::{Entry, EntryServer};
use super::pb::spire::api::server::entry::v1::{
    GetAuthorizedEntriesRequest, GetAuthorizedEntriesResponse, ListEntriesRequest,
    ListEntriesResponse,
};
use super::pb::spire::api::server::svid::v1::svid_server::{Svid, SvidServer};
use super::pb::spire::api::server::svid::v1::{
    BatchNewX509svidRequest, BatchNewX509svidResponse, MintX509svidRequest, MintX509svidResponse,
};
use super::*;
use crate::issuer::{IssuerBackend as _, IssuerError, Order};

const TTL: Duration = Duration::from_secs(600);

fn id(text: &str) -> SpiffeId {
    SpiffeId::new(text).unwrap()
}

fn enclave() -> SpiffeId {
    id("spiffe://example.org/enclave")
}

#[expect(
    clippy::disallowed_methods,
    reason = "files' times are the system's, so the test's are too"
)]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

fn root() -> Authority {
    let domain = TrustDomain::new("example.org").unwrap();
    Authority::generate_root(&domain, now(), Duration::from_secs(86_400)).unwrap()
}

type Sign = Box<dyn Fn(&Authority, &[u8]) -> Result<Vec<Vec<u8>>, Status> + Send>;

/// What the server answers.
struct Answers {
    root: Authority,
    sign: Sign,
    bundle: types::Bundle,
    entries: Vec<types::Entry>,
    next_page_token: String,
}

impl Answers {
    /// All as it should be.
    fn right() -> Self {
        let root = root();
        Self {
            bundle: types::Bundle {
                trust_domain: "example.org".to_owned(),
                x509_authorities: vec![types::X509Certificate {
                    asn1: root.cert_chain()[0].to_vec(),
                    tainted: false,
                }],
                sequence_number: 1,
            },
            root,
            sign: Box::new(|root, csr| Ok(signed(root, csr))),
            entries: Vec::new(),
            next_page_token: String::new(),
        }
    }
}

fn signed(root: &Authority, csr: &[u8]) -> Vec<Vec<u8>> {
    let csr = identity::issue::csr(csr).unwrap();
    let chain = root.issue(&csr.id, &csr.spki_der, TTL, now()).unwrap();
    chain.iter().map(|der| der.to_vec()).collect()
}

#[derive(Clone)]
struct Fake(Arc<Mutex<Answers>>);

#[tonic::async_trait]
impl Bundle for Fake {
    async fn get_bundle(
        &self,
        _request: Request<GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        Ok(Response::new(self.0.lock().unwrap().bundle.clone()))
    }
}

#[tonic::async_trait]
impl Entry for Fake {
    async fn list_entries(
        &self,
        _request: Request<ListEntriesRequest>,
    ) -> Result<Response<ListEntriesResponse>, Status> {
        let answers = self.0.lock().unwrap();
        Ok(Response::new(ListEntriesResponse {
            entries: answers.entries.clone(),
            next_page_token: answers.next_page_token.clone(),
        }))
    }

    async fn get_authorized_entries(
        &self,
        _request: Request<GetAuthorizedEntriesRequest>,
    ) -> Result<Response<GetAuthorizedEntriesResponse>, Status> {
        Err(Status::permission_denied("no agent"))
    }
}

#[tonic::async_trait]
impl Svid for Fake {
    async fn mint_x509svid(
        &self,
        request: Request<MintX509svidRequest>,
    ) -> Result<Response<MintX509svidResponse>, Status> {
        let answers = self.0.lock().unwrap();
        let cert_chain = (answers.sign)(&answers.root, &request.into_inner().csr)?;
        let svid = types::X509svid {
            cert_chain,
            id: None,
            expires_at: 0,
        };
        Ok(Response::new(MintX509svidResponse { svid: Some(svid) }))
    }

    async fn batch_new_x509svid(
        &self,
        _request: Request<BatchNewX509svidRequest>,
    ) -> Result<Response<BatchNewX509svidResponse>, Status> {
        Err(Status::permission_denied("no agent"))
    }
}

struct World {
    answers: Arc<Mutex<Answers>>,
    socket: Endpoint,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.sock");
        let answers = Arc::new(Mutex::new(Answers::right()));
        let fake = Fake(Arc::clone(&answers));
        let incoming = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(BundleServer::new(fake.clone()))
            .add_service(EntryServer::new(fake.clone()))
            .add_service(SvidServer::new(fake));
        tokio::spawn(server.serve_with_incoming(incoming));
        Self {
            answers,
            socket: Endpoint::Unix(path),
            _dir: dir,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.answers.lock().unwrap());
    }

    async fn start(&self) -> Result<Mint, SpireError> {
        let domain = TrustDomain::new("example.org").unwrap();
        Mint::start(self.socket.clone(), domain, &[enclave()], now()).await
    }

    /// Starts with a right server, changes it, and asks for a signature.
    async fn sign(&self, change: impl FnOnce(&mut Answers)) -> Result<usize, String> {
        let mint = self.start().await.map_err(|error| error.to_string())?;
        self.change(change);
        let signing = tokio::task::spawn_blocking(move || {
            let (_, csr) = key_and_csr(&enclave()).unwrap();
            let spki = identity::issue::csr(&csr).unwrap().spki_der;
            let order = Order {
                id: &enclave(),
                spki: &spki,
                csr: &csr,
                ttl: TTL,
                now: now(),
            };
            mint.sign(&order)
        });
        let signed: Result<_, IssuerError> = signing.await.unwrap();
        signed
            .map(|chain| chain.len())
            .map_err(|error| error.to_string())
    }
}

async fn refused(expected: &str, change: impl FnOnce(&mut Answers)) {
    let error = World::new().sign(change).await.unwrap_err();
    assert!(error.contains(expected), "{error}");
}

fn entry(spiffe_id: &str, parent: &str) -> types::Entry {
    types::Entry {
        id: "e-1".to_owned(),
        spiffe_id: Some(split(&id(spiffe_id))),
        parent_id: Some(split(&id(parent))),
        ..types::Entry::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_enclaves_would_not_take_is_not_handed_on() {
    assert_eq!(World::new().sign(|_| {}).await, Ok(1));
    refused("does not lead to the bundle", |answers| {
        answers.sign = Box::new(|_, csr| Ok(signed(&root(), csr)));
    })
    .await;
    refused("number of certificates", |answers| {
        answers.sign = Box::new(|_, _| Ok(Vec::new()));
    })
    .await;
    refused("number of certificates", |answers| {
        answers.sign = Box::new(|root, csr| Ok(vec![signed(root, csr).remove(0); 9]));
    })
    .await;
    refused("not an x.509 certificate", |answers| {
        answers.sign = Box::new(|_, _| Ok(vec![b"noise".to_vec()]));
    })
    .await;
    refused("no trust bundle", |answers| {
        answers.bundle.x509_authorities.clear();
    })
    .await;
    refused("the server's bundle is not", |answers| {
        answers.bundle.trust_domain = "other.example".to_owned();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_words_are_cut_and_cannot_write_log_lines() {
    let world = World::new();
    let error = world.sign(|answers| {
        let words = format!("a\nforged line{}", "x".repeat(4000));
        answers.sign = Box::new(move |_, _| Err(Status::internal(words.clone())));
    });
    let error = error.await.unwrap_err();
    assert!(error.contains("MintX509SVID: Internal"), "{error}");
    assert!(error.contains("a\\nforged") && error.len() < 300, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_anybody_else_is_seen_and_of_no_matter_to_others() {
    let host = "spiffe://example.org/spire/agent/x509pop/1";
    let world = World::new();
    // A server that does not know the filter gives all its entries.
    world.change(|answers| answers.entries = vec![entry("spiffe://example.org/gateway", host)]);
    world.start().await.unwrap();
    world.change(|answers| answers.entries.push(entry(&enclave().to_string(), host)));
    let error = world.start().await.err().unwrap();
    assert!(error.is_denial() && error.exit_code() == 77, "{error}");
    assert!(
        error.to_string().contains("entry delete -entryID e-1"),
        "{error}"
    );
    // An ID that would put options or commands into that line is not repeated.
    for bad in ["a; rm", "-force", "", "ä"] {
        world.change(|answers| answers.entries[1].id = bad.to_owned());
        let error = world.start().await.err().unwrap().to_string();
        assert!(error.contains("(unreadable)"), "{error}");
    }
    // A parent that cannot be read is somebody else.
    world.change(|answers| answers.entries[1].parent_id = None);
    assert!(world.start().await.err().unwrap().is_denial());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_end_is_not_read_for_ever() {
    let world = World::new();
    world.change(|answers| answers.next_page_token = "more".to_owned());
    let error = world.start().await.err().unwrap();
    assert!(
        matches!(error, SpireError::Malformed("list of entries")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_on_the_socket_is_unavailable() {
    let world = World::new();
    let socket = world.socket.clone();
    drop(world);
    let domain = TrustDomain::new("example.org").unwrap();
    let error = Mint::start(socket, domain, &[enclave()], now()).await;
    let error = error.err().unwrap();
    assert!(matches!(error, SpireError::Unreachable { .. }), "{error}");
    assert_eq!((error.exit_code(), error.is_denial()), (69, false));
}

#[test]
fn an_id_is_put_together_only_as_it_was_split() {
    let part = |trust_domain: &str, path: &str| types::Spiffeid {
        trust_domain: trust_domain.to_owned(),
        path: path.to_owned(),
    };
    assert_eq!(joined(Some(&split(&enclave()))), Some(enclave()));
    assert_eq!(joined(None), None);
    for (trust_domain, path) in [
        ("example.org", "enclave"),
        ("example.org/", "enclave"),
        ("Example.org", "/enclave"),
        ("example.org", "/enclave/"),
        ("example.org/a", "/enclave"),
        ("", "/enclave"),
        ("example.org", "//enclave"),
    ] {
        assert_eq!(
            joined(Some(&part(trust_domain, path))),
            None,
            "{trust_domain} {path}"
        );
    }
}

fn p256() -> Attestor {
    let key = rcgen::KeyPair::generate().unwrap();
    Attestor::X509Pop {
        chain: root().cert_chain().to_vec(),
        key: PopKey::from_pkcs8(key.serialized_der()).unwrap(),
    }
}

#[test]
fn a_challenge_is_answered_once_it_is_one() {
    let nonce = STANDARD.encode([7; 32]);
    let right = format!(r#"{{"ecdsa_signature": {{"nonce": "{nonce}"}}, "rsa_signature": null}}"#);
    let one = p256().answer(right.as_bytes()).unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&one).unwrap();
    let length = |name: &str| {
        let text = answer["ecdsa_signature"][name].as_str().unwrap();
        STANDARD.decode(text).unwrap().len()
    };
    assert_eq!((length("nonce"), length("r"), length("s")), (32, 32, 32));
    assert!(answer.get("rsa_signature").is_none());
    let short = STANDARD.encode([7; 31]);
    for wrong in [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        format!(r#"{{"rsa_signature": {{"nonce": "{nonce}"}}}}"#),
        format!(r#"{{"ecdsa_signature": {{"nonce": "{short}"}}}}"#),
        r#"{"ecdsa_signature": {"nonce": "?"}}"#.to_owned(),
        r#"{"ecdsa_signature": {}}"#.to_owned(),
    ] {
        let refused = p256().answer(wrong.as_bytes());
        assert!(
            matches!(refused, Err(SpireError::Malformed("challenge"))),
            "{wrong}"
        );
    }
    // A token has no key: there is nothing to answer with.
    let token = Attestor::JoinToken {
        token: "t".into(),
        state: "s".into(),
    };
    assert!(token.answer(right.as_bytes()).is_err());
}

#[test]
fn keys_that_spire_asks_no_proof_of_are_told_at_once() {
    let of = |algorithm| {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        PopKey::from_pkcs8(key.serialized_der())
    };
    assert!(matches!(
        of(&rcgen::PKCS_ECDSA_P256_SHA256),
        Some(PopKey::P256(_))
    ));
    assert!(of(&rcgen::PKCS_ECDSA_P384_SHA384).is_none());
    assert!(of(&rcgen::PKCS_ED25519).is_none());
    assert!(PopKey::from_pkcs8(b"noise").is_none());
}

#[test]
fn a_kept_agent_is_read_back_and_a_broken_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("agent.pem");
    let attestor = Attestor::JoinToken {
        token: dir.path().join("token"),
        state: state.clone(),
    };
    assert!(attestor.kept().unwrap().is_none());
    let id = id("spiffe://example.org/spire/agent/join_token/1");
    let (chain, key) = identity::issue::new_svid_der(&root(), &id, TTL, now()).unwrap();
    attestor.keep(&chain, &key).unwrap();
    attestor.keep(&chain, &key).unwrap();
    assert_eq!(attestor.kept().unwrap().unwrap().leaf().id, id);
    std::fs::write(&state, pem::encode_certificates(&chain)).unwrap();
    assert!(matches!(attestor.kept(), Err(SpireError::File { path, .. }) if path == state));
    // The token's file: absent, empty, too large.
    for text in [None, Some(" \n".to_owned()), Some("x".repeat(600))] {
        if let Some(text) = text {
            std::fs::write(dir.path().join("token"), text).unwrap();
        }
        assert!(matches!(attestor.data(), Err(SpireError::File { .. })));
    }
}
