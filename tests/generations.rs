//! A newer release of a model takes the place of the open one while the service runs; nothing else does.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sim::stack::{self, Layout, Options, Stack};
use tests::{memory, models};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const DIGEST: &str = "x-cloister-model-digest";

/// Where the host asks; the run's own measurement changes with it, so everything that is checked is checked.
fn reloadable(options: &mut Options, pinned: bool) {
    options.reload = true;
    options.before_start = Some(Box::new(move |layout: &Layout| {
        // The owner releases all epochs of these models to this image; the caller takes any release from the first on.
        let policy = layout.path("policy.rego");
        let text = fs::read_to_string(&policy).unwrap();
        let from = text.find("\tconcat(").unwrap();
        fs::write(
            &policy,
            format!(
                "{}\tdata[\"resource-path\"][0] == \"models\"\n}}\n",
                &text[..from]
            ),
        )
        .unwrap();
        if !pinned {
            let policy = layout.path("gateway-policy.toml");
            let text = fs::read_to_string(&policy).unwrap();
            let lines = text
                .lines()
                .filter(|line| !line.starts_with("manifest_sha256"));
            fs::write(&policy, lines.collect::<Vec<_>>().join("\n")).unwrap();
        }
    }));
}

fn question(stream: bool, max_tokens: u32) -> Value {
    json!({
        "model": models::CHAT, "stream": stream, "max_tokens": max_tokens, "temperature": 0,
        "messages": [{"role": "user", "content": "who can see the prompt ?"}],
    })
}

type Answer = http::Response<hyper::body::Incoming>;

async fn send(stack: &Stack, body: &Value) -> Answer {
    send_to(stack.port(), body).await
}

/// Through the gateway, on a connection of its own; the head of the answer, and its body as it comes.
async fn send_to(port: u16, body: &Value) -> Answer {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::post("/v1/chat/completions")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    send.send_request(request).await.unwrap()
}

fn digest(answer: &Answer) -> String {
    answer.headers()[DIGEST].to_str().unwrap().to_owned()
}

async fn whole(answer: Answer) -> String {
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Asks until a session with the present generation stands.
async fn answered(stack: &Stack) -> (u16, Option<String>) {
    let answer = send(stack, &question(false, 4)).await;
    let status = answer.status().as_u16();
    let digest = answer.headers().get(DIGEST);
    (
        status,
        digest.map(|digest| digest.to_str().unwrap().to_owned()),
    )
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !done().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

fn log(stack: &Stack, role: &str) -> String {
    fs::read_to_string(stack.layout.log(role)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_release_takes_over_and_what_is_in_flight_ends_on_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let all = models::both(dir.path());
    let mut options = tests::options(all.clone());
    reloadable(&mut options, false);
    let stack = Stack::start(options).await.unwrap();
    let first = answered(&stack).await.1.unwrap();

    // More long answers than the model can give at once: most still wait for it, or are under way, at the switch.
    let port = stack.port();
    let asked: Vec<_> = (0..48)
        .map(|_| {
            tokio::spawn(async move {
                let answer = send_to(port, &question(true, 450)).await;
                (digest(&answer), whole(answer).await)
            })
        })
        .collect();
    let control = stack.layout.control("enclave");
    until("nothing waits", async || {
        let (_, page) = stack::get(&control, "/metrics").await.unwrap();
        let page = String::from_utf8(page.to_vec()).unwrap();
        let depth = format!("cloister_engine_queue_depth{{model=\"{}\"}} ", models::CHAT);
        let depth = page.lines().find_map(|line| line.strip_prefix(&depth));
        depth.is_some_and(|depth| depth.parse::<f64>().unwrap() > 8.0)
    })
    .await;

    let release = stack.publish(&all[0], 2, true).unwrap();
    let second = release.manifest_sha256.to_string();
    let (status, done) = stack.reload().await.unwrap();
    let done: Value = serde_json::from_slice(&done).unwrap();
    assert_eq!(status, 200, "{done}");
    assert_eq!(done["reloaded"][0]["epoch"], 2);
    assert_eq!(done["reloaded"][0]["manifest_sha256"], second);
    assert_eq!(done["unchanged"][0]["name"], models::EMBED);
    assert!(asked.iter().any(|answer| !answer.is_finished()));

    until("the new release does not answer", async || {
        answered(&stack).await == (200, Some(second.clone()))
    })
    .await;
    // What a caller is shown is what answers.
    let endpoint = format!("tcp://127.0.0.1:{}", stack.port());
    let (_, evidence) = stack::get(&endpoint, "/cloister/evidence").await.unwrap();
    let evidence = String::from_utf8(evidence.to_vec()).unwrap();
    assert!(
        evidence.contains(&second) && !evidence.contains(&first),
        "{evidence}"
    );

    // Its key went through the host, to the enclave alone; and there it is wiped once everything is loaded.
    for program in [&stack.host, &stack.gateway, &stack.enclave] {
        let id = program.id().unwrap();
        let key = release.key.as_ref();
        let (_, searched) = memory::occurrences(id, key).unwrap();
        assert!(searched > 1 << 20);
        // The last thread that read with it may end a moment after the reload's answer.
        until("the data key is in a program's memory", async || {
            memory::occurrences(id, key).unwrap().0 == 0
        })
        .await;
    }

    for answer in asked {
        let (digest, text) = answer.await.unwrap();
        assert_eq!(digest, first);
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let fingerprint = format!("fp_{}", &first[..12]);
        assert!(
            text.contains(&fingerprint) && !text.contains(&second[..12]),
            "{text}"
        );
    }
    until("the first generation is still open", async || {
        log(&stack, "enclave").contains("model generation closed")
    })
    .await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_newer_release_of_this_publisher_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let all = models::both(dir.path());
    let mut options = tests::options(all.clone());
    reloadable(&mut options, false);
    let stack = Stack::start(options).await.unwrap();
    let five = stack.publish(&all[0], 5, true).unwrap();
    let open = (200, Some(five.manifest_sha256.to_string()));
    assert_eq!(stack.reload().await.unwrap().0, 200);
    until("epoch 5 does not answer", async || {
        answered(&stack).await == open
    })
    .await;

    // Older than the open one, though not than the measured floor; and a newer one whose key the broker does not have.
    for (epoch, release, why) in [
        (4, true, "older than the floor 5"),
        (6, false, "released no key"),
    ] {
        stack.publish(&all[0], epoch, release).unwrap();
        let (status, answer) = stack.reload().await.unwrap();
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        assert_eq!(status, 422, "{answer}");
        assert!(answer.contains(why), "{answer}");
        assert_eq!(answered(&stack).await, open, "epoch {epoch}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_pinned_the_release_before_is_told_and_answered_by_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let all = models::both(dir.path());
    let mut options = tests::options(all.clone());
    reloadable(&mut options, true);
    let stack = Stack::start(options).await.unwrap();
    assert_eq!(answered(&stack).await.0, 200);
    let release = stack.publish(&all[0], 2, true).unwrap();
    let second = release.manifest_sha256.to_string();
    assert_eq!(stack.reload().await.unwrap().0, 200);
    until("the gateway goes on", async || {
        let answer = send(&stack, &question(false, 4)).await;
        if answer.status() == 200 {
            assert_ne!(digest(&answer), second);
            return false;
        }
        let text = whole(answer).await;
        text.contains("enclave_unverified") && text.contains("models")
    })
    .await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_measured_permission_the_models_of_the_boot_stay() {
    let dir = tempfile::tempdir().unwrap();
    let all = models::both(dir.path());
    let stack = Stack::start(tests::options(all.clone())).await.unwrap();
    let first = answered(&stack).await;
    stack.publish(&all[0], 2, true).unwrap();
    let (status, answer) = stack.reload().await.unwrap();
    assert_eq!(status, 403, "{answer:?}");
    assert_eq!(answered(&stack).await, first);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_of_the_host_or_of_the_enclave_reloads_too() {
    let dir = tempfile::tempdir().unwrap();
    let all = models::both(dir.path());
    let mut options = tests::options(all.clone());
    reloadable(&mut options, false);
    let stack = Stack::start(options).await.unwrap();
    for (epoch, program) in [(2, &stack.enclave), (3, &stack.host)] {
        let release = stack.publish(&all[0], epoch, true).unwrap();
        let expected = release.manifest_sha256.to_string();
        let pid = program.id().unwrap().to_string();
        // Asked again where the generation before still drains.
        until("the hangup reloads nothing", async || {
            let hangup = std::process::Command::new("kill")
                .args(["-HUP", &pid])
                .status();
            assert!(hangup.unwrap().success());
            sleep(Duration::from_millis(200)).await;
            answered(&stack).await == (200, Some(expected.clone()))
        })
        .await;
    }
    stack.stop().await;
}
