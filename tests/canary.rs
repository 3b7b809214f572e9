//! A unique prompt and its answer, looked for everywhere they must not be.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use sim::stack::{self, Stack};
use tests::tap::Tap;
use tests::{memory, models};

fn files_below(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files_below(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_and_its_answer_are_nowhere_but_at_the_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = tests::options(models::both(dir.path()));
    // One observer on each side of the relay. The relay's port is known only inside, so the outer one is told later.
    let socket = tempfile::tempdir().unwrap();
    let link = socket.path().join("enclave.sock");
    let (behind, behind_uri) = Tap::listen(format!("unix://{}", link.display())).await;
    options.relay_dials = Some(behind_uri);
    let relay = socket.path().join("relay.sock");
    let (before, before_uri) = Tap::listen(format!("unix://{}", relay.display())).await;
    options.gateway_dials = Some(before_uri);
    let target = link.clone();
    options.before_start = Some(Box::new(move |layout: &stack::Layout| {
        std::os::unix::fs::symlink(layout.path("enclave.sock"), &target).unwrap();
        tests::tap::forward(&relay, layout.relay);
    }));
    let stack = Stack::start(options).await.unwrap();

    let canary = "cipher stone vow quiet sea mail canary-7f3e91c2b8d04a65";
    let endpoint = format!("tcp://127.0.0.1:{}", stack.port());
    let mut answers = Vec::new();
    for stream in [false, true] {
        let body = json!({
            "model": models::CHAT, "stream": stream, "max_tokens": 40, "temperature": 1.0, "seed": 7,
            "messages": [{"role": "user", "content": canary}],
        });
        let (status, body) = stack::post_json(
            &endpoint,
            "/v1/chat/completions",
            Bytes::from(body.to_string()),
        )
        .await
        .unwrap();
        assert_eq!(status, 200);
        if !stream {
            let answer: Value = serde_json::from_slice(&body).unwrap();
            let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
            assert!(text.len() > 40);
            answers.push(text.to_owned());
        }
    }
    let body = json!({"model": models::EMBED, "input": canary});
    let (status, _) = stack::post_json(&endpoint, "/v1/embeddings", Bytes::from(body.to_string()))
        .await
        .unwrap();
    assert_eq!(status, 200);
    // A request that fails must not say what it was given either.
    for broken in [
        format!(r#"{{"model": "{}", "messages": "{canary}"}}"#, models::CHAT),
        format!(
            r#"{{"model": "{}", "messages": [{{"role": "{canary}"#,
            models::CHAT
        ),
        format!(r#"{{"model": "{canary}", "messages": []}}"#),
    ] {
        let (status, body) =
            stack::post_json(&endpoint, "/v1/chat/completions", Bytes::from(broken))
                .await
                .unwrap();
        assert!((400..500).contains(&status), "{status}");
        assert!(!contains(&body, "canary-7f3e91c2b8d04a65"));
    }

    // The answer's middle: words of a random model in an order that nothing else has.
    let answer = &answers[0];
    let needles = [
        "canary-7f3e91c2b8d04a65".to_owned(),
        answer.chars().skip(4).take(30).collect(),
    ];
    for needle in &needles {
        for (where_, tap) in [("before the relay", &before), ("behind the relay", &behind)] {
            let bytes = tap.bytes();
            assert!(bytes.len() > 4096, "the observer {where_} saw nothing");
            assert!(!contains(&bytes, needle), "seen {where_}");
        }
        let mut files = Vec::new();
        files_below(stack.layout.dir(), &mut files);
        assert!(files.len() > 10);
        for file in files {
            assert!(
                !contains(&fs::read(&file).unwrap(), needle),
                "in {}",
                file.display()
            );
        }
        for role in ["host", "kbs"] {
            let (status, metrics) = stack::get(&stack.layout.control(role), "/metrics")
                .await
                .unwrap();
            assert_eq!(status, 200);
            assert!(!contains(&metrics, needle), "in the metrics of {role}");
        }
        let (_, metrics) = stack::get(&stack.layout.control("enclave"), "/metrics")
            .await
            .unwrap();
        assert!(!contains(&metrics, needle), "in the metrics of the enclave");
        for (role, child) in [("host", &stack.host), ("kbs", &stack.kbs)] {
            let (found, searched) = memory::occurrences(child.id().unwrap(), needle.as_bytes())
                .expect("this test reads other processes' memory: run it as their user, with ptrace allowed");
            assert!(searched > 1 << 20);
            assert_eq!(found, 0, "in the memory of {role}");
        }
    }
    // The search itself finds what is there: the enclave's memory holds its SPIFFE ID.
    let (found, _) =
        memory::occurrences(stack.enclave.id().unwrap(), stack::ENCLAVE_ID.as_bytes()).unwrap();
    assert!(found > 0);
    stack.stop().await;
}
