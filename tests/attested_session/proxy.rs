use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use attestation::Sha256Digest;
use bytes::Bytes;
use gateway::Config;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::TokioIo;
use identity::SpiffeId;
use identity::issue::Authority;
use serde_json::{Value, json};
use sim::authority::Entry;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::fake_enclave::{
    CALLER, FakeEnclave, HOUR, MODEL, Respond, SERVER, World, at_once, honest, now,
};

const SOON: Duration = Duration::from_secs(10);
const CANARY: &str = "zq-canary-prompt-7c1f";

/// A gateway with its Workload API, in front of a fake enclave.
struct Run {
    address: SocketAddr,
    enclave: FakeEnclave,
    dir: tempfile::TempDir,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Run {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Run {
    async fn start(world: &Arc<World>, respond: Respond) -> Self {
        Self::start_with(world, respond, |_| {}).await
    }

    async fn start_with(
        world: &Arc<World>,
        respond: Respond,
        edit: impl FnOnce(&mut Value),
    ) -> Self {
        let enclave = FakeEnclave::start(world, world.svid(SERVER, HOUR), respond).await;
        let dir = tempfile::tempdir().unwrap();
        let socket = format!("unix://{}", dir.path().join("workload.sock").display());
        let authority = Authority::from_pem(
            &world.authority.cert_pem(),
            &world.authority.key_pem().unwrap(),
        )
        .unwrap();
        let entries = vec![Entry {
            spiffe_id: SpiffeId::new(CALLER).unwrap(),
        }];
        let endpoint = socket.parse().unwrap();
        let workload = tokio::spawn(async move {
            let clock = Arc::new(now);
            let served = sim::authority::serve(
                authority,
                entries,
                vec![endpoint],
                HOUR,
                clock,
                std::future::pending(),
            );
            served.await.unwrap();
        });

        std::fs::write(dir.path().join("root.pem"), world.pki.root_pem()).unwrap();
        let policy = world.policy();
        let address = free_port().await;
        let mut settings = json!({
            "listen": address.to_string(),
            "enclave": enclave.endpoint().to_string(),
            "workload_api": socket,
            "policy": {
                "format": gateway::policy::FORMAT,
                "serial": 1,
                "server_ids": [SERVER],
                "trust_anchor": "root.pem",
                "images": policy.images,
                "config_digests": [world.config_digest],
                "models": [{"name": MODEL, "min_epoch": 7, "manifest_sha256": world.models[0].manifest_sha256}],
            },
            "policy_history": "history.json",
        });
        edit(&mut settings);
        let policy = std::mem::replace(&mut settings["policy"], "policy.toml".into());
        std::fs::write(
            dir.path().join("policy.toml"),
            toml::to_string(&policy).unwrap(),
        )
        .unwrap();
        let path = dir.path().join("gateway.toml");
        std::fs::write(&path, toml::to_string(&settings).unwrap()).unwrap();
        let config = Config::load(&path).unwrap();
        let gateway = tokio::spawn(async move {
            gateway::run(config, Arc::new(now), std::future::pending())
                .await
                .unwrap();
        });
        let run = Self {
            address,
            enclave,
            dir,
            tasks: vec![workload, gateway],
        };
        timeout(SOON, async {
            while TcpStream::connect(run.address).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        run
    }

    async fn send<B>(&self, request: Request<B>) -> Response<Incoming>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<gateway::BoxError>,
    {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
            .await
            .unwrap();
        tokio::spawn(driver);
        timeout(SOON, sender.send_request(request))
            .await
            .unwrap()
            .unwrap()
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path)
            .header("host", "localhost")
            .body(Full::default());
        read(self.send(request.unwrap()).await).await
    }

    async fn post(&self, path: &str, body: &str) -> (StatusCode, Value) {
        let body = Full::new(Bytes::from(body.to_owned()));
        let request = Request::post(path)
            .header("host", "127.0.0.1:8080")
            .body(body);
        read(self.send(request.unwrap()).await).await
    }
}

async fn read(response: Response<Incoming>) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test]
async fn a_prompt_waits_for_the_verdict_and_then_goes_through() {
    let world = World::new();
    let (slow, released) = (Arc::clone(&world), Arc::new(AtomicBool::new(false)));
    let gate = Arc::clone(&released);
    let respond: Respond = Arc::new(move |asked| {
        let (said, gate) = (slow.answer(&asked, |_| {}), Arc::clone(&gate));
        Box::pin(async move {
            while !gate.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(10)).await;
            }
            said
        })
    });
    let run = Run::start(&world, respond).await;
    let release = async {
        sleep(Duration::from_millis(700)).await;
        assert_eq!(
            run.enclave.log.paths(),
            ["/v1/attestation"],
            "the prompt waits"
        );
        released.store(true, Ordering::SeqCst);
    };
    let (answer, ()) = tokio::join!(run.post("/v1/chat/completions", CANARY), release);
    assert_eq!(answer, (StatusCode::OK, json!({ "echo": CANARY })));
    assert_eq!(
        run.enclave.log.paths(),
        ["/v1/attestation", "/v1/chat/completions"]
    );
    let early = run.enclave.log.early.lock().unwrap().clone();
    assert!(!early.is_empty());
    assert!(
        !early
            .windows(CANARY.len())
            .any(|window| window == CANARY.as_bytes()),
        "no byte of it came early"
    );
}

#[tokio::test]
async fn what_was_verified_can_be_read() {
    let world = World::new();
    let run = Run::start(&world, honest(&world)).await;
    run.get("/v1/models").await;
    let (status, evidence) = run.get("/cloister/evidence").await;
    assert_eq!(status, StatusCode::OK, "{evidence}");
    assert_eq!(evidence["verified"], true);
    assert_eq!(evidence["config_digest"], world.config_digest.to_string());
    assert_eq!(evidence["models"][0]["name"], MODEL);
    assert_eq!(evidence["server"]["spiffe_id"], SERVER);
    assert_eq!(evidence["tls"]["group"], "X25519MLKEM768");
    assert_eq!(
        evidence["trust_anchor"]["sha256"],
        world.policy().trust_anchor.fingerprint().to_string()
    );
    assert!(
        evidence["trust_anchor"]["root"]
            .as_str()
            .unwrap()
            .starts_with("not AWS")
    );
    assert_eq!(evidence["pcrs"]["0"].as_str().unwrap().len(), 96);
    assert!(evidence["verified_until"].as_str().unwrap().ends_with('Z'));
    assert_eq!(run.get("/readyz").await.0, StatusCode::OK);
    assert_eq!(run.get("/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_unverified_enclave_gets_no_prompt_and_the_user_is_told_the_step() {
    let world = World::new();
    let lying = Arc::clone(&world);
    let respond = at_once(move |asked| {
        lying.answer(asked, |draft| {
            draft.document = Box::new(|document| {
                document
                    .pcrs
                    .insert(0, attestation::Pcr::ZERO.extend(b"another image"));
            });
        })
    });
    let run = Run::start(&world, respond).await;
    let (status, body) = run.post("/v1/chat/completions", CANARY).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{body}");
    assert_eq!(body["error"]["type"], "enclave_unverified");
    assert_eq!(body["error"]["code"], "measurements");
    let expected = attestation::Pcr::ZERO.extend(&[0]).to_string();
    assert_eq!(body["error"]["verification"]["expected"], expected);
    assert!(!body.to_string().contains(CANARY));
    assert_eq!(run.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, evidence) = run.get("/cloister/evidence").await;
    assert_eq!(
        (status, &evidence["verified"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!(false))
    );
    assert!(
        run.enclave
            .log
            .paths()
            .iter()
            .all(|path| path == "/v1/attestation")
    );
}

#[tokio::test]
async fn an_absent_enclave_is_answered_at_once_and_found_when_it_comes_back() {
    let world = World::new();
    let mut run = Run::start(&world, honest(&world)).await;
    assert_eq!(run.get("/v1/models").await.0, StatusCode::OK);
    let address = run.enclave.address;
    // A replacement that cannot be reached yet: dropping the enclave cuts its connections and closes its port.
    run.enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    timeout(SOON, async {
        while run.get("/readyz").await.0 == StatusCode::OK {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    let (status, body) = run.post("/v1/chat/completions", CANARY).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert_eq!(body["error"]["type"], "enclave_unavailable");
    // The new one has another key; the gateway attests it afresh.
    let listener = TcpListener::bind(address).await.unwrap();
    run.enclave = FakeEnclave::start_on(&world, world.svid(SERVER, HOUR), honest(&world), listener);
    timeout(2 * SOON, async {
        while run.get("/v1/models").await.0 != StatusCode::OK {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(run.enclave.log.paths()[0], "/v1/attestation");
}

#[tokio::test]
async fn a_stream_passes_piece_by_piece_and_stops_when_the_client_goes() {
    let world = World::new();
    let run = Run::start(&world, honest(&world)).await;
    let pieces = run.enclave.log.stream();
    let request = Request::post("/v1/stream")
        .header("host", "localhost")
        .body(Full::default())
        .unwrap();
    let response = run.send(request).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(!response.headers().contains_key("set-cookie"));
    let mut body = response.into_body();
    for piece in ["data: one\n\n", "data: two\n\n"] {
        // The next piece is not made before this one has arrived.
        pieces.send(Bytes::from(piece)).await.unwrap();
        let frame = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    drop(body);
    timeout(SOON, pieces.closed())
        .await
        .expect("the enclave's stream was reset");
}

#[tokio::test]
async fn a_goodbye_moves_new_requests_to_a_new_session_and_leaves_the_stream() {
    let world = World::new();
    let run = Run::start(&world, honest(&world)).await;
    let pieces = run.enclave.log.stream();
    let request = Request::post("/v1/stream")
        .header("host", "localhost")
        .body(Full::default())
        .unwrap();
    let mut body = run.send(request).await.into_body();
    run.enclave.log.goodbye.notify_waiters();
    for pause in [0, 1, 10, 100] {
        sleep(Duration::from_millis(pause)).await;
        let (status, answer) = run.post("/v1/embeddings", CANARY).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    assert_eq!(run.enclave.log.connections.load(Ordering::SeqCst), 2);
    pieces.send(Bytes::from_static(b"on")).await.unwrap();
    let frame = timeout(SOON, body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.unwrap().into_data().unwrap(), "on");
}

#[tokio::test]
async fn a_request_after_the_end_of_a_verdict_waits_for_the_next_one() {
    let world = World::new();
    let slow = Arc::clone(&world);
    let respond: Respond = Arc::new(move |asked| {
        let said = slow.answer(&asked, |_| {});
        Box::pin(async move {
            match asked.before {
                0 => {}
                1 => sleep(HOUR).await,
                _ => sleep(Duration::from_secs(2)).await,
            }
            said
        })
    });
    let run = Run::start_with(&world, respond, |settings| {
        settings["policy"]["reattest_s"] = json!(6);
    })
    .await;
    assert_eq!(run.get("/v1/models").await.0, StatusCode::OK);
    timeout(SOON, async {
        while run.get("/readyz").await.0 == StatusCode::OK {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    let (status, answer) = run.post("/v1/chat/completions", CANARY).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn only_needed_headers_reach_the_enclave() {
    let world = World::new();
    let run = Run::start(&world, honest(&world)).await;
    let request = Request::post("/v1/embeddings")
        .header("host", "localhost")
        .header("authorization", "Bearer sk-secret")
        .header("cookie", "session=1")
        .header("user-agent", "someone")
        .header("x-forwarded-for", "192.0.2.1")
        .header("content-type", "application/json")
        .header("accept", "*/*")
        .body(Full::new(Bytes::from_static(b"{}")));
    assert_eq!(run.send(request.unwrap()).await.status(), StatusCode::OK);
    let seen = run.enclave.log.seen.lock().unwrap().last().unwrap().clone();
    let mut names: Vec<_> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    names.retain(|name| *name != "content-length");
    assert_eq!(names, ["accept", "content-type"]);
}

#[tokio::test]
async fn trailers_stay_here() {
    let world = World::new();
    let run = Run::start(&world, honest(&world)).await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("authorization", "Bearer sk-secret".parse().unwrap());
    trailers.insert("x-user", "someone".parse().unwrap());
    let frames = [
        Frame::data(Bytes::from_static(b"{}")),
        Frame::trailers(trailers),
    ];
    let frames = frames.map(Ok::<_, std::convert::Infallible>);
    let request = Request::post("/v1/embeddings")
        .header("host", "localhost")
        .header("trailer", "authorization, x-user")
        .body(StreamBody::new(tokio_stream::iter(frames)))
        .unwrap();
    assert_eq!(run.send(request).await.status(), StatusCode::OK);
    let seen = run.enclave.log.seen.lock().unwrap().last().unwrap().clone();
    assert_eq!((&seen.body[..], seen.trailers), (&b"{}"[..], None));
}

#[tokio::test]
async fn as_many_streams_as_there_may_be_leave_room_to_renew_the_verdict() {
    let world = World::new();
    let run = Run::start_with(&world, honest(&world), |settings| {
        settings["policy"]["reattest_s"] = json!(2);
    })
    .await;
    let (mut pieces, mut bodies, mut turned_away) = (Vec::new(), Vec::new(), 0);
    for _ in 0..64 {
        pieces.push(run.enclave.log.stream());
        let request = Request::post("/v1/stream")
            .header("host", "localhost")
            .body(Full::default())
            .unwrap();
        let response = run.send(request).await;
        match response.status() {
            StatusCode::OK => bodies.push(response.into_body()),
            StatusCode::SERVICE_UNAVAILABLE => turned_away += 1,
            other => panic!("{other}"),
        }
    }
    assert!(turned_away < 8, "{turned_away}");
    sleep(Duration::from_secs(4)).await;
    for (pieces, body) in pieces.iter().zip(&mut bodies) {
        pieces.send(Bytes::from_static(b"on")).await.unwrap();
        let frame = timeout(SOON, body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.unwrap().into_data().unwrap(), "on", "it was cut");
    }
}

#[tokio::test]
async fn foreign_pages_other_paths_and_large_bodies_are_refused_here() {
    let world = World::new();
    let run = Run::start_with(&world, honest(&world), |settings| {
        settings["limits"] = json!({"body_bytes": 1000});
    })
    .await;
    assert_eq!(run.get("/v1/models").await.0, StatusCode::OK);
    let before = run.enclave.log.paths().len();
    for (host, origin) in [
        ("evil.example", None),
        ("localhost", Some("https://evil.example")),
    ] {
        let mut request = Request::post("/v1/chat/completions").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let response = run
            .send(request.body(Full::new(Bytes::from(CANARY))).unwrap())
            .await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert!(
            !response
                .headers()
                .contains_key("access-control-allow-origin")
        );
    }
    assert_eq!(
        run.post("/v1/attestation", r#"{"nonce":"x"}"#).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        run.post("/v1/x/../attestation", "{}").await.0,
        StatusCode::NOT_FOUND
    );
    let (status, body) = run.post("/v1/embeddings", &"x".repeat(1001)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{body}");
    // A body that does not say how long it is.
    let pieces = (0..20)
        .map(|_| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![b'x'; 100]))));
    let body = StreamBody::new(tokio_stream::iter(pieces));
    let request = Request::post("/v1/embeddings")
        .header("host", "localhost")
        .body(body)
        .unwrap();
    assert_eq!(
        run.send(request).await.status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let delete = Request::delete("/v1/models/demo")
        .header("host", "localhost")
        .body(Full::default())
        .unwrap();
    assert_eq!(
        run.send(delete).await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(
        run.enclave.log.paths().len(),
        before,
        "none of these reached the enclave"
    );
}

impl Run {
    /// Writes the policy anew and tells the gateway.
    fn change_policy(&self, edit: impl FnOnce(&mut toml::Table)) {
        let path = self.dir.path().join("policy.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut policy: toml::Table = text.parse().unwrap();
        edit(&mut policy);
        std::fs::write(&path, toml::to_string(&policy).unwrap()).unwrap();
        let pid = std::process::id().to_string();
        let told = std::process::Command::new("kill")
            .args(["-HUP", &pid])
            .status();
        assert!(told.unwrap().success());
    }

    /// Waits until `wanted` is true of what the gateway says it has verified.
    async fn evidence_until(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        timeout(SOON, async {
            loop {
                let (_, said) = self.get("/cloister/evidence").await;
                if wanted(&said) {
                    return said;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the gateway came to say so")
    }

    async fn stream(&self) -> Incoming {
        let request = Request::post("/v1/stream").header("host", "localhost");
        let response = self.send(request.body(Full::default()).unwrap()).await;
        response.into_body()
    }
}

#[tokio::test]
async fn a_new_policy_cuts_what_it_does_not_accept_and_lets_no_prompt_through() {
    let world = World::new();
    let run = Run::start(&world, honest(&world)).await;
    let pieces = run.enclave.log.stream();
    let mut body = run.stream().await;
    pieces.send(Bytes::from_static(b"one")).await.unwrap();
    timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();

    run.change_policy(|policy| {
        policy["serial"] = 2.into();
        policy["config_digests"] = vec![Sha256Digest::of(b"the next file").to_string()].into();
    });
    let cut = timeout(SOON, body.frame()).await.unwrap();
    assert!(cut.is_none_or(|frame| frame.is_err()), "the stream was cut");
    run.evidence_until(|said| said["step"] == "config-digest")
        .await;
    let (status, answer) = run.post("/v1/chat/completions", CANARY).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{answer}");
    assert_eq!(answer["error"]["code"], "config-digest");
    assert!(
        !run.enclave
            .log
            .paths()
            .contains(&"/v1/chat/completions".to_owned())
    );

    run.change_policy(|policy| {
        policy["serial"] = 3.into();
        policy["config_digests"] = vec![world.config_digest.to_string()].into();
    });
    run.evidence_until(|said| said["policy"]["serial"] == 3)
        .await;
    assert_eq!(run.post("/v1/embeddings", CANARY).await.0, StatusCode::OK);
}

#[tokio::test]
async fn under_a_new_policy_that_still_fits_answers_finish_and_new_ones_are_verified_by_it() {
    let world = World::new();
    let run = Run::start(&world, honest(&world)).await;
    let pieces = run.enclave.log.stream();
    let mut body = run.stream().await;
    run.change_policy(|policy| {
        policy["serial"] = 2.into();
        let both = vec![
            Sha256Digest::of(b"the next file").to_string(),
            world.config_digest.to_string(),
        ];
        policy["config_digests"] = both.into();
    });
    run.evidence_until(|said| said["policy"]["serial"] == 2)
        .await;
    assert_eq!(run.enclave.log.connections.load(Ordering::SeqCst), 2);
    pieces.send(Bytes::from_static(b"on")).await.unwrap();
    let frame = timeout(SOON, body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.unwrap().into_data().unwrap(), "on");
}

#[tokio::test]
async fn a_policy_that_goes_back_or_is_none_leaves_the_last_one_in_force() {
    let world = World::new();
    let run = Run::start_with(&world, honest(&world), |settings| {
        settings["policy"]["serial"] = json!(5);
    })
    .await;
    run.evidence_until(|said| said["policy"]["serial"] == 5)
        .await;
    for (serial, digests) in [
        (4, vec![world.config_digest.to_string()]),
        // The same serial, other contents.
        (
            5,
            vec![
                Sha256Digest::of(b"a file with a flaw").to_string(),
                world.config_digest.to_string(),
            ],
        ),
        (6, vec![]),
    ] {
        run.change_policy(|policy| {
            policy["serial"] = serial.into();
            policy["config_digests"] = digests.into();
        });
    }
    run.change_policy(|policy| {
        policy["serial"] = 7.into();
        policy["server_ids"] = vec!["spiffe://another.test/enclave/demo"].into();
        policy["config_digests"] = vec![world.config_digest.to_string()].into();
    });
    sleep(Duration::from_millis(500)).await;
    let said = run.evidence_until(|_| true).await;
    assert_eq!(said["policy"]["serial"], 5);
    assert_eq!(run.enclave.log.connections.load(Ordering::SeqCst), 1);
}
