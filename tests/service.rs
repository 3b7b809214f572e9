//! The whole service: every program in a process of its own, prompts through all of them.

use std::path::Path;

use bytes::Bytes;
use candle_core::quantized::GgmlDType;
use serde_json::{Value, json};
use sim::stack::{self, Model, Stack};
use tests::models;

async fn post(stack: &Stack, path: &str, body: &Value) -> (u16, Bytes) {
    let endpoint = format!("tcp://127.0.0.1:{}", stack.port());
    stack::post_json(&endpoint, path, Bytes::from(body.to_string()))
        .await
        .unwrap()
}

async fn json_of(stack: &Stack, path: &str, body: &Value) -> (u16, Value) {
    let (status, body) = post(stack, path, body).await;
    (status, serde_json::from_slice(&body).unwrap())
}

fn events(body: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(body).unwrap();
    let data: Vec<&str> = text
        .split("\n\n")
        .filter_map(|e| e.strip_prefix("data: "))
        .collect();
    assert_eq!(data.last(), Some(&"[DONE]"));
    data[..data.len() - 1]
        .iter()
        .map(|d| serde_json::from_str(d).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_goes_from_the_gateway_to_the_model_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::start(tests::options(models::both(dir.path())))
        .await
        .unwrap();
    let endpoint = format!("tcp://127.0.0.1:{}", stack.port());

    // What was verified is what was measured before it ran.
    let (status, body) = stack::get(&endpoint, "/cloister/evidence").await.unwrap();
    assert_eq!(status, 200);
    let evidence = String::from_utf8(body.to_vec()).unwrap();
    for index in 0..=2 {
        assert!(evidence.contains(&stack.pcrs[&index].to_string()));
    }
    assert!(evidence.contains(&stack.config_digest.to_string()));

    let (status, body) = stack::get(&endpoint, "/v1/models").await.unwrap();
    assert_eq!(status, 200);
    let list: Value = serde_json::from_slice(&body).unwrap();
    let names: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&models::CHAT) && names.contains(&models::EMBED));

    // Chat, whole and streamed: the same text.
    let mut request = json!({
        "model": models::CHAT,
        "messages": [{"role": "user", "content": "who can see the prompt ?"}],
        "max_tokens": 24,
        "temperature": 0,
    });
    let (status, whole) = json_of(&stack, "/v1/chat/completions", &request).await;
    assert_eq!(status, 200, "{whole}");
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!text.is_empty());
    assert_eq!(whole["object"], "chat.completion");
    assert!(whole["usage"]["prompt_tokens"].as_u64().unwrap() > 5);
    assert_eq!(
        whole["usage"]["total_tokens"].as_u64().unwrap(),
        whole["usage"]["prompt_tokens"].as_u64().unwrap()
            + whole["usage"]["completion_tokens"].as_u64().unwrap()
    );

    request["stream"] = json!(true);
    request["stream_options"] = json!({"include_usage": true});
    let (status, body) = post(&stack, "/v1/chat/completions", &request).await;
    assert_eq!(status, 200);
    let events = events(&body);
    let streamed: String = events
        .iter()
        .filter_map(|e| e["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(streamed, text);
    assert!(events.len() > 4, "it was not streamed in pieces");
    assert_eq!(events.last().unwrap()["usage"], whole["usage"]);

    // Embeddings: unit vectors, order kept, single equals batch.
    let batch = json!({"model": models::EMBED, "input": ["a man is eating", "sun and moon"]});
    let (status, batch) = json_of(&stack, "/v1/embeddings", &batch).await;
    assert_eq!(status, 200, "{batch}");
    let vector = |v: &Value, i: usize| -> Vec<f32> {
        serde_json::from_value(v["data"][i]["embedding"].clone()).unwrap()
    };
    let single = json!({"model": models::EMBED, "input": "sun and moon"});
    let (_, single) = json_of(&stack, "/v1/embeddings", &single).await;
    for (a, b) in vector(&batch, 1).iter().zip(vector(&single, 0)) {
        assert!((a - b).abs() < 1e-5);
    }
    let norm: f32 = vector(&batch, 0).iter().map(|x| x * x).sum();
    assert!((norm - 1.0).abs() < 1e-4);

    // What cannot be served is refused by name, as an OpenAI client expects it.
    let (status, refused) = json_of(
        &stack,
        "/v1/chat/completions",
        &json!({"model": "nobody", "messages": [{"role": "user", "content": "a"}]}),
    )
    .await;
    assert_eq!(status, 404);
    assert_eq!(refused["error"]["code"], "model_not_found");

    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_ranked_by_the_model_made_for_it_and_by_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = models::both(dir.path());
    let name = "tiny-cross-encoder";
    all.push(Model {
        name: name.to_owned(),
        dir: models::cross_encoder(&dir.path().join(name)),
    });
    let stack = Stack::start(tests::options(all)).await.unwrap();
    let documents = [
        "a man is eating",
        "sun and moon",
        "who can see the prompt ?",
    ];
    let mut request = json!({"model": name, "query": "the sun", "documents": documents});
    let (status, whole) = json_of(&stack, "/v1/rerank", &request).await;
    assert_eq!(status, 200, "{whole}");
    let results = whole["results"].as_array().unwrap();
    let score = |result: &Value| result["relevance_score"].as_f64().unwrap();
    assert_eq!(results.len(), 3);
    assert!(
        results
            .windows(2)
            .all(|pair| score(&pair[0]) > score(&pair[1])),
        "{whole}"
    );
    assert!(
        results
            .iter()
            .all(|each| (0.0..=1.0).contains(&score(each)))
    );

    // The same pair alone, and what the model itself says of it.
    let best = usize::try_from(results[0]["index"].as_u64().unwrap()).unwrap();
    request["documents"] = json!([{"text": documents[best]}]);
    request["raw_scores"] = json!(true);
    request["return_documents"] = json!(true);
    let (_, alone) = json_of(&stack, "/v1/rerank", &request).await;
    let raw = score(&alone["results"][0]);
    assert!(
        (1.0 / (1.0 + (-raw).exp()) - score(&results[0])).abs() < 1e-5,
        "{alone}"
    );
    assert_eq!(alone["results"][0]["document"]["text"], documents[best]);

    let wrong = [
        (
            "/v1/rerank",
            json!({"model": models::EMBED, "query": "a", "documents": ["b"]}),
        ),
        (
            "/v1/rerank",
            json!({"model": models::CHAT, "query": "a", "documents": ["b"]}),
        ),
        ("/v1/embeddings", json!({"model": name, "input": "a"})),
        (
            "/v1/chat/completions",
            json!({"model": name, "messages": [{"role": "user", "content": "a"}]}),
        ),
    ];
    for (path, body) in wrong {
        let (status, refused) = json_of(&stack, path, &body).await;
        assert_eq!(
            (status, &refused["error"]["param"]),
            (400, &json!("model")),
            "{path} {body}"
        );
    }
    stack.stop().await;
}

/// Greedy tokens of the same weights, sealed as safetensors and as one GGUF file.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_gguf_file_says_what_its_safetensors_say() {
    let dir = tempfile::tempdir().unwrap();
    let plain = models::llama(&dir.path().join("plain"));
    let converted = models::llama(&dir.path().join("converted"));
    tests::gguf::convert(&converted, GgmlDType::F32);
    let quantized = models::llama(&dir.path().join("quantized"));
    tests::gguf::convert(&quantized, GgmlDType::Q8_0);
    assert!(!converted.join("config.json").exists());
    let model = |name: &str, dir: &Path| Model {
        name: name.to_owned(),
        dir: dir.to_owned(),
    };
    let stack = Stack::start(tests::options(vec![
        model("plain", &plain),
        model("converted", &converted),
        model("quantized", &quantized),
    ]))
    .await
    .unwrap();
    let mut said = Vec::new();
    for name in ["plain", "converted", "quantized"] {
        let request = json!({
            "model": name,
            "messages": [{"role": "user", "content": "who can see the prompt ?"}],
            "max_tokens": 16,
            "temperature": 0,
        });
        let (status, answer) = json_of(&stack, "/v1/chat/completions", &request).await;
        assert_eq!(status, 200, "{answer}");
        assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 0);
        said.push(answer["choices"][0]["message"]["content"].clone());
    }
    assert_eq!(said[0], said[1]);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_were_released_outlive_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::start(tests::options(models::both(dir.path())))
        .await
        .unwrap();
    stack.kbs.stop().await;
    assert_eq!(stack.kbs.id(), None);
    let broker = format!("tcp://127.0.0.1:{}", stack.layout.broker);
    stack::get(&broker, "/healthz").await.unwrap_err();

    let asked = json!({"model": models::EMBED, "input": "still here"});
    let (status, answer) = json_of(&stack, "/v1/embeddings", &asked).await;
    assert_eq!(status, 200, "{answer}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::start(tests::options(models::both(dir.path())))
        .await
        .unwrap();
    let run = stack.layout.dir().to_owned();
    let children: Vec<u32> = [&stack.gateway, &stack.enclave, &stack.host, &stack.kbs]
        .iter()
        .filter_map(|c| c.id())
        .collect();
    assert_eq!(children.len(), 4);
    assert!(run.is_dir());
    stack.stop().await;
    assert!(!run.exists());
    for pid in children {
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn minilm_says_what_it_says_elsewhere() {
    let Some(model) = models::minilm() else {
        tests::skip("all-MiniLM-L6-v2");
        return;
    };
    let name = model.name.clone();
    let stack = Stack::start(tests::options(vec![model])).await.unwrap();
    let input = ["A man is eating food.", "Someone eats a meal."];
    let (status, answer) = json_of(
        &stack,
        "/v1/embeddings",
        &json!({"model": name, "input": input}),
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    let vector = |i: usize| -> Vec<f32> {
        serde_json::from_value(answer["data"][i]["embedding"].clone()).unwrap()
    };
    let cosine: f32 = vector(0).iter().zip(vector(1)).map(|(a, b)| a * b).sum();
    assert!((cosine - 0.761).abs() < 0.002, "{cosine}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demonstration_model_answers_with_a_true_sentence() {
    let model = models::demo();
    let name = model.name.clone();
    let stack = Stack::start(tests::options(vec![model])).await.unwrap();
    let (status, answer) = json_of(
        &stack,
        "/v1/chat/completions",
        &json!({
            "model": name,
            "messages": [{"role": "user", "content": "What does the host see?"}],
            "temperature": 0,
        }),
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("ciphertext"), "{text}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    stack.stop().await;
}
