use std::sync::{Arc, Mutex};
use std::time::Duration;

use attestation::{Pcr, ReferenceValues, Sha256Digest, Sha384Digest, Subject, TrustAnchor};
use bytes::Bytes;
use gateway::{Error, Fleet, Policy, Step, connect};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::{Accept, Credentials, SpiffeId, Svid};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use sim::nsm::SimPki;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::fake_enclave::{
    Asked, CALLER, DOMAIN, Draft, FakeEnclave, HOUR, MODEL, Respond, SERVER, Said, World, at_once,
    honest, now,
};

fn prompt(path: &str) -> Request<Full<Bytes>> {
    Request::post(path)
        .body(Full::new(Bytes::from_static(b"the prompt")))
        .unwrap()
}

/// Connects, expects a refusal, and holds that nothing but the challenge arrived.
async fn refused_by(world: &Arc<World>, svid: Svid, respond: Respond, policy: Policy) -> Error {
    let enclave = FakeEnclave::start(world, svid, respond).await;
    let error = connect(&world.options(&enclave, policy))
        .await
        .err()
        .expect("refused");
    for path in enclave.log.paths() {
        assert_eq!(path, "/v1/attestation");
    }
    assert!(enclave.log.paths().len() <= 1, "one question, one answer");
    error
}

async fn refused(world: &Arc<World>, respond: Respond) -> Error {
    refused_by(world, world.svid(SERVER, HOUR), respond, world.policy()).await
}

/// An enclave that is honest but for one thing.
async fn liar(step: Step, edit: fn(&World, &mut Draft)) -> Error {
    let world = World::new();
    let lying = Arc::clone(&world);
    let respond = at_once(move |asked| lying.answer(asked, |draft| edit(&lying, draft)));
    let error = refused(&world, respond).await;
    assert_eq!(error.step(), Some(step), "{error}");
    error
}

/// An honest enclave that is not the one the policy wants.
async fn unwanted(step: Step, edit: fn(&mut Policy)) -> Error {
    let world = World::new();
    let mut policy = world.policy();
    edit(&mut policy);
    let error = refused_by(&world, world.svid(SERVER, HOUR), honest(&world), policy).await;
    assert_eq!(error.step(), Some(step), "{error}");
    error
}

#[tokio::test]
async fn a_genuine_enclave_is_accepted_and_then_spoken_to() {
    let world = World::new();
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let session = connect(&world.options(&enclave, world.policy()))
        .await
        .ok()
        .unwrap();
    assert_eq!(enclave.log.paths(), ["/v1/attestation"]);

    let verdict = session.verdict();
    assert_eq!(verdict.config_digest, world.config_digest);
    assert_eq!(verdict.boot_id, world.boot_id);
    assert_eq!(verdict.models, world.models);
    let left = verdict.until.duration_since(now()).unwrap();
    assert!(left <= Duration::from_secs(600) && left > Duration::from_secs(590));
    assert_eq!(session.group(), Some(rustls::NamedGroup::X25519MLKEM768));

    let answer = session.send(prompt("/v1/chat/completions")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({"echo": "the prompt"})
    );
    assert_eq!(
        enclave.log.paths(),
        ["/v1/attestation", "/v1/chat/completions"]
    );
}

/// `cargo test --release -p tests --test attested_session -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: prints how long it takes to get an attested session"]
async fn an_attested_session_takes_milliseconds() {
    let world = World::new();
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let options = world.options(&enclave, world.policy());
    let mut took = Vec::new();
    for _ in 0..100 {
        let begun = tokio::time::Instant::now();
        connect(&options).await.ok().unwrap();
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    println!(
        "tcp, tls, challenge, verification: median {:?}, 95th {:?}",
        took[50], took[95]
    );
}

#[tokio::test]
async fn a_verdict_ends_with_the_servers_svid() {
    let world = World::new();
    let svid = world.svid(SERVER, Duration::from_secs(60));
    let end = svid.leaf().not_after;
    let enclave = FakeEnclave::start(&world, svid, honest(&world)).await;
    let session = connect(&world.options(&enclave, world.policy()))
        .await
        .ok()
        .unwrap();
    assert_eq!(session.verdict().until, end);
}

/// A caller's connection to `target`, as a host that has obtained an SVID of its own can make one.
async fn ask_genuine(world: &World, target: std::net::SocketAddr, nonce: &[u8]) -> Said {
    use base64::Engine as _;
    let credentials = Credentials::new();
    credentials.install(world.svid(CALLER, HOUR));
    let accept = Accept::Ids(vec![SpiffeId::new(SERVER).unwrap()]);
    let bundles = world.bundles().into_handle();
    let config =
        identity::client_config(Some(Arc::new(credentials)), bundles, accept, &[b"h2"]).unwrap();
    let tcp = TcpStream::connect(target).await.unwrap();
    let tls = TlsConnector::from(config)
        .connect(identity::server_name(), tcp)
        .await
        .unwrap();
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .unwrap();
    tokio::spawn(driver);
    let nonce = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(nonce);
    let body = Full::new(Bytes::from(json!({ "nonce": nonce }).to_string()));
    let request = Request::post("https://enclave/v1/attestation")
        .body(body)
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

/// A host in the middle: its TLS towards the caller, the genuine enclave's evidence for the caller's nonce.
fn relaying(world: &Arc<World>, genuine: &FakeEnclave) -> Respond {
    let (world, target) = (Arc::clone(world), genuine.address);
    Arc::new(move |asked: Asked| {
        let world = Arc::clone(&world);
        Box::pin(async move { ask_genuine(&world, target, &asked.nonce).await })
    })
}

#[tokio::test]
async fn a_host_with_its_own_svid_of_the_same_id_that_relays_genuine_evidence_is_caught() {
    let world = World::new();
    let genuine = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let error = refused(&world, relaying(&world, &genuine)).await;
    assert_eq!(error.step(), Some(Step::PublicKey), "{error}");
    assert_eq!(
        genuine.log.paths(),
        ["/v1/attestation"],
        "genuine evidence was relayed"
    );
}

#[tokio::test]
async fn a_host_with_the_enclaves_own_key_on_another_connection_is_caught() {
    let world = World::new();
    let id = SpiffeId::new(SERVER).unwrap();
    let (chain, key) = identity::issue::new_svid_der(&world.authority, &id, HOUR, now()).unwrap();
    let same = |chain: Vec<CertificateDer<'static>>, key: &Zeroizing<Vec<u8>>| {
        Svid::from_der(chain, Zeroizing::new(key.to_vec())).unwrap()
    };
    let genuine = FakeEnclave::start(&world, same(chain.clone(), &key), honest(&world)).await;
    // The very same caller certificate on both legs, too: only the exporter is left to differ.
    let leaked = same(chain, &key);
    let error = refused_by(&world, leaked, relaying(&world, &genuine), world.policy()).await;
    assert_eq!(error.step(), Some(Step::Binding), "{error}");
}

#[tokio::test]
async fn each_member_of_the_binding_counts() {
    type Change = fn(&mut attestation::SessionSubject);
    let changes: [Change; 5] = [
        |subject| subject.exporter[31] ^= 1,
        |subject| subject.peer_leaf_sha256 = Sha256Digest::of(b"another caller"),
        |subject| subject.svid_serial.push('0'),
        |subject| subject.spiffe_id = CALLER.to_owned(),
        |subject| subject.models[0].epoch += 1,
    ];
    for change in changes {
        let world = World::new();
        let lying = Arc::clone(&world);
        let respond = at_once(move |asked| {
            lying.answer(asked, |draft| {
                let mut subject = lying.subject(asked);
                change(&mut subject);
                draft.binding.subject = Subject::Session(subject);
            })
        });
        let error = refused(&world, respond).await;
        assert_eq!(error.step(), Some(Step::Binding), "{error}");
    }
}

#[tokio::test]
async fn evidence_of_another_purpose_is_refused() {
    liar(Step::Binding, |_, draft| {
        let runtime_data_sha384 = Sha384Digest::of(b"runtime data");
        draft.binding.subject = Subject::KeyRelease {
            runtime_data_sha384,
        };
    })
    .await;
    liar(Step::Binding, |_, draft| {
        draft.binding.subject = Subject::SvidIssuance {
            csr_sha256: Sha256Digest::of(b"request"),
            spki_sha256: Sha256Digest::of(&draft.public_key),
        };
    })
    .await;
}

#[tokio::test]
async fn a_stale_nonce_is_refused() {
    liar(Step::Nonce, |_, draft| draft.nonce = vec![7; 32]).await;
    liar(Step::Nonce, |_, draft| draft.nonce.clear()).await;
}

#[tokio::test]
async fn an_earlier_document_of_the_same_connection_cannot_be_replayed_to_another() {
    let world = World::new();
    let first: Arc<Mutex<Option<Said>>> = Arc::default();
    let (lying, kept) = (Arc::clone(&world), Arc::clone(&first));
    let respond = at_once(move |asked| {
        let mut kept = kept.lock().unwrap();
        kept.get_or_insert_with(|| lying.answer(asked, |_| {}))
            .clone()
    });
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), respond).await;
    let options = world.options(&enclave, world.policy());
    assert!(connect(&options).await.is_ok());
    let error = connect(&options).await.err().unwrap();
    assert_eq!(error.step(), Some(Step::Nonce), "{error}");
}

#[tokio::test]
async fn a_debug_enclave_is_refused() {
    liar(Step::Debug, |_, draft| {
        draft.document = Box::new(|document| {
            document.pcrs.insert(0, Pcr::ZERO);
        });
    })
    .await;
}

#[tokio::test]
async fn a_foreign_root_is_refused() {
    unwanted(Step::Chain, |policy| {
        let other = SimPki::generate(now());
        policy.trust_anchor = TrustAnchor::from_pem(other.root_pem().as_bytes()).unwrap();
    })
    .await;
    // A production anchor refuses everything simulated.
    unwanted(Step::Chain, |policy| {
        policy.trust_anchor = TrustAnchor::aws_nitro()
    })
    .await;
}

#[tokio::test]
async fn a_spoiled_signature_and_a_broken_document_are_refused() {
    liar(Step::Signature, |_, draft| {
        draft.document = Box::new(|document| document.spoil_signature = 1);
    })
    .await;
    liar(Step::Structure, |_, draft| {
        draft.document = Box::new(|document| document.digest = "SHA256".to_owned());
    })
    .await;
}

#[tokio::test]
async fn a_wrong_measurement_is_refused_and_named() {
    let error = liar(Step::Measurements, |_, draft| {
        draft.document = Box::new(|document| {
            document
                .pcrs
                .insert(2, Pcr::ZERO.extend(b"another application"));
        });
    })
    .await;
    let (expected, actual) = error.compared().unwrap();
    assert_eq!(expected, Pcr::ZERO.extend(&[2]).to_string());
    assert_eq!(actual, Pcr::ZERO.extend(b"another application").to_string());
}

#[tokio::test]
async fn a_parent_that_is_not_in_the_fleet_is_refused_and_named() {
    let world = World::new();
    let other = Pcr::ZERO.extend(b"another account's role");
    let (role, instance) = (Pcr::ZERO.extend(&[3]), Pcr::ZERO.extend(&[4]));
    for (fleet, index) in [
        (
            Fleet {
                roles: vec![other],
                instances: vec![],
            },
            3,
        ),
        (
            Fleet {
                roles: vec![],
                instances: vec![other],
            },
            4,
        ),
        (
            Fleet {
                roles: vec![role],
                instances: vec![other],
            },
            4,
        ),
        (
            Fleet {
                roles: vec![other, role],
                instances: vec![role],
            },
            4,
        ),
    ] {
        let policy = Policy {
            fleet,
            ..world.policy()
        };
        let svid = world.svid(SERVER, HOUR);
        let error = refused_by(&world, svid, honest(&world), policy).await;
        assert_eq!(error.step(), Some(Step::Fleet));
        assert!(
            error.to_string().contains(&format!("PCR{index}")),
            "{error}"
        );
    }
    let fleet = Fleet {
        roles: vec![other, role],
        instances: vec![instance],
    };
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let policy = Policy {
        fleet,
        ..world.policy()
    };
    connect(&world.options(&enclave, policy)).await.unwrap();
}

#[tokio::test]
async fn a_parent_that_is_not_told_is_refused_where_it_is_pinned() {
    let world = World::new();
    let liar = Arc::clone(&world);
    let respond = at_once(move |asked| {
        liar.answer(asked, |draft| {
            draft.document = Box::new(|document| {
                document.pcrs.remove(&3);
            });
        })
    });
    let image = [(0, Pcr::ZERO.extend(&[0]))].into();
    let policy = Policy {
        images: ReferenceValues::try_new(vec![image]).unwrap(),
        fleet: Fleet {
            roles: vec![Pcr::ZERO.extend(&[3])],
            instances: vec![],
        },
        ..world.policy()
    };
    let error = refused_by(&world, world.svid(SERVER, HOUR), respond, policy).await;
    assert_eq!(error.step(), Some(Step::Fleet));
    assert!(error.to_string().contains("absent"), "{error}");
}

#[tokio::test]
async fn an_old_or_future_document_is_refused() {
    liar(Step::Freshness, |_, draft| {
        draft.document = Box::new(|document| document.timestamp_ms -= 301_000);
    })
    .await;
    liar(Step::Freshness, |_, draft| {
        draft.document = Box::new(|document| document.timestamp_ms += 60_000);
    })
    .await;
}

#[tokio::test]
async fn another_configuration_is_refused_however_it_is_told() {
    // Honest about running with another file.
    let error = liar(Step::ConfigDigest, |_, draft| {
        draft.config_digest = Sha256Digest::of(b"another file");
        draft.binding.config_digest = draft.config_digest;
    })
    .await;
    assert_eq!(
        error.compared().unwrap().1,
        Sha256Digest::of(b"another file").to_string()
    );
    // Says the right digest, attests the other.
    liar(Step::Binding, |_, draft| {
        draft.binding.config_digest = Sha256Digest::of(b"another file");
    })
    .await;
}

#[tokio::test]
async fn another_model_is_refused_however_it_is_told() {
    let manifest = unwanted(Step::Models, |policy| {
        policy.models[0].manifest_sha256 = Some(Sha256Digest::of(b"another manifest"));
    })
    .await;
    assert!(
        matches!(manifest, Error::ModelManifest { .. }),
        "{manifest}"
    );
    let publisher = unwanted(Step::Models, |policy| {
        policy.models[0].publishers = vec![Sha256Digest::of(b"another publisher")];
    })
    .await;
    assert!(
        matches!(publisher, Error::ModelPublisher { .. }),
        "{publisher}"
    );
    let epoch = unwanted(Step::Models, |policy| policy.models[0].min_epoch = 8).await;
    assert!(
        matches!(
            epoch,
            Error::ModelEpoch {
                minimum: 8,
                actual: 7,
                ..
            }
        ),
        "{epoch}"
    );
    let missing = unwanted(Step::Models, |policy| {
        let mut rule = policy.models[0].clone();
        rule.name = "second".to_owned();
        policy.models.push(rule);
    })
    .await;
    assert!(matches!(missing, Error::ModelMissing { .. }), "{missing}");
    let unlisted = unwanted(Step::Models, |policy| {
        policy.models[0].name = "other".to_owned()
    })
    .await;
    assert!(matches!(unlisted, Error::ModelMissing { .. }), "{unlisted}");
    // Says the right models, attests others.
    liar(Step::Binding, |_, draft| {
        draft.models[0].manifest_sha256 = Sha256Digest::of(b"another manifest")
    })
    .await;
    liar(Step::Binding, |_, draft| {
        draft.models[0].publisher_sha256 = Sha256Digest::of(b"another publisher")
    })
    .await;
}

#[tokio::test]
async fn a_model_beside_those_of_the_policy_is_refused() {
    for second in ["more", MODEL] {
        let world = World::new();
        let lying = Arc::clone(&world);
        let respond = at_once(move |asked| {
            lying.answer(asked, |draft| {
                let mut more = draft.models[0].clone();
                more.name = second.to_owned();
                draft.models.push(more);
                let mut subject = lying.subject(asked);
                subject.models.clone_from(&draft.models);
                draft.binding.subject = Subject::Session(subject);
            })
        });
        let error = refused(&world, respond).await;
        assert_eq!(error.step(), Some(Step::Models), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_refused() {
    let world = World::new();
    let error = refused(&world, at_once(|_| (StatusCode::FORBIDDEN, json!({})))).await;
    assert!(
        matches!(error, Error::ChallengeRefused { status: 403 }),
        "{error}"
    );
    let error = refused(
        &world,
        at_once(|_| (StatusCode::OK, json!({"evidence": 1}))),
    )
    .await;
    assert_eq!(error.step(), Some(Step::Challenge), "{error}");
    let error = refused(
        &world,
        at_once(|_| (StatusCode::OK, json!("x".repeat(100_000)))),
    )
    .await;
    assert_eq!(error.step(), Some(Step::Challenge), "{error}");
}

#[tokio::test]
async fn another_identity_is_refused_before_anything_is_sent() {
    let world = World::new();
    let svid = world.svid("spiffe://cloister.test/enclave/other", HOUR);
    let enclave = FakeEnclave::start(&world, svid, honest(&world)).await;
    let error = connect(&world.options(&enclave, world.policy()))
        .await
        .err()
        .unwrap();
    assert_eq!(error.step(), Some(Step::ServerIdentity), "{error}");
    assert!(error.to_string().contains("enclave/other"), "{error}");
    assert!(enclave.log.paths().is_empty() && enclave.log.early.lock().unwrap().is_empty());
}

#[tokio::test]
async fn our_own_missing_or_unwelcome_identity_is_told_as_such() {
    let world = World::new();
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let mut options = world.options(&enclave, world.policy());
    options.credentials = Arc::new(Credentials::new());
    let error = connect(&options).await.err().unwrap();
    assert!(matches!(error, Error::NoIdentity), "{error}");
    // An SVID of an authority that the enclave does not know.
    let stranger = World::new();
    options.credentials.install(stranger.svid(CALLER, HOUR));
    let error = connect(&options).await.err().unwrap();
    assert!(matches!(error, Error::CallerRefused { .. }), "{error:?}");
    assert_eq!(
        enclave
            .log
            .connections
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
    assert!(enclave.log.paths().is_empty());
}

#[tokio::test]
async fn tls_1_2_is_neither_offered_nor_taken() {
    let world = World::new();
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let mut options = world.options(&enclave, world.policy());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    options.endpoint = transport::Endpoint::Tcp(listener.local_addr().unwrap().to_string());
    let server = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = [0; 5];
        tcp.read_exact(&mut head).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        tcp.read_exact(&mut hello).await.unwrap();
        // ServerHello of TLS 1.2: legacy version, random, no session, ECDHE-RSA-AES128-GCM, no extension.
        let mut answer = vec![22, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3];
        answer.extend_from_slice(&[9; 32]);
        answer.extend_from_slice(&[0, 0xc0, 0x2f, 0]);
        tcp.write_all(&answer).await.unwrap();
        hello
    };
    let (hello, outcome) = tokio::join!(server, connect(&options));
    let error = outcome.err().unwrap();
    assert!(matches!(error, Error::Tls(_)), "{error}");
    // supported_versions (43): one version of two octets, TLS 1.3.
    let only_tls13 = [0, 43, 0, 3, 2, 3, 4];
    assert!(
        hello
            .windows(only_tls13.len())
            .any(|window| window == only_tls13)
    );
    // Neither early data (42) nor a pre-shared key (41), and no server name (0).
    for extension in extensions(&hello) {
        assert!(![0, 41, 42].contains(&extension), "{extension}");
    }
    assert!(
        !hello
            .windows(DOMAIN.len())
            .any(|window| window == DOMAIN.as_bytes())
    );
}

/// The extension numbers of a ClientHello (RFC 8446 §4.1.2).
fn extensions(hello: &[u8]) -> Vec<u16> {
    let u16_at = |at: usize| u16::from_be_bytes([hello[at], hello[at + 1]]);
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(u16_at(at));
    at += 1 + usize::from(hello[at]);
    at += 2;
    let mut found = Vec::new();
    while at + 4 <= hello.len() {
        found.push(u16_at(at));
        at += 4 + usize::from(u16_at(at + 2));
    }
    found
}
