//! Texts per second of MiniLM at 128 tokens, and tokens per second of the demo model.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a benchmark stops at the first surprise, and says what it skips"
)]

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{ChatEvent, ChatRequest, DirFiles, Engine, EngineOptions, Message, Role, Text};

fn load(directory: &Path, hint: &str) -> Option<Engine> {
    if !directory.join("model.safetensors").exists() {
        eprintln!("skipped: {} is missing ({hint})", directory.display());
        return None;
    }
    Some(Engine::load(Arc::new(DirFiles::new(directory)), EngineOptions::default()).unwrap())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn embed(criterion: &mut Criterion) {
    let default = root().join("target/models/all-MiniLM-L6-v2");
    let directory = std::env::var_os("CLOISTER_MINILM").map_or(default, PathBuf::from);
    let Some(engine) = load(&directory, "scripts/fetch-minilm brings it") else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    // "word" is one token; with [CLS] and [SEP] that makes 128.
    let text = vec!["word"; 126].join(" ");
    let mut group = criterion.benchmark_group("minilm_128_tokens");
    for texts in [1, 16] {
        group.throughput(Throughput::Elements(texts));
        group.bench_function(format!("batch_{texts}"), |bencher| {
            bencher.iter(|| {
                let inputs = (0..texts).map(|_| Text::new(text.clone())).collect();
                let embeddings = runtime
                    .block_on(engine.embed(inputs, Arc::default()).unwrap())
                    .unwrap();
                assert_eq!(u64::from(embeddings.prompt_tokens), 128 * texts);
                black_box(embeddings.vectors)
            });
        });
    }
}

fn decode(criterion: &mut Criterion) {
    let default = root().join("demo-model");
    let directory = std::env::var_os("CLOISTER_DEMO_MODEL").map_or(default, PathBuf::from);
    let Some(engine) = load(&directory, "it is part of the repository") else {
        return;
    };
    let request = |max_tokens| ChatRequest {
        max_tokens: Some(max_tokens),
        temperature: 0.0,
        ..ChatRequest::new(vec![Message::new(
            Role::User,
            Text::new("What does the host see?".into()),
        )])
    };
    let tokens = |max_tokens| {
        let mut events = engine.chat(request(max_tokens)).unwrap();
        loop {
            match events.blocking_recv().unwrap() {
                ChatEvent::Done { usage } => return usage.completion_tokens,
                ChatEvent::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
    };
    let mut group = criterion.benchmark_group("demo_model");
    group.bench_function("first_token", |bencher| bencher.iter(|| tokens(1)));
    // The answer may end before: the rate is over what was made.
    let made = tokens(64);
    group.throughput(Throughput::Elements(made.into()));
    group.bench_function("answer", |bencher| bencher.iter(|| tokens(64)));
    // Sixteen callers at once: the same steps, sixteen rows each.
    group.throughput(Throughput::Elements(16 * u64::from(made)));
    group.bench_function("sixteen_answers", |bencher| {
        bencher.iter(|| {
            std::thread::scope(|scope| {
                for _ in 0..16 {
                    scope.spawn(|| black_box(tokens(64)));
                }
            });
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(5));
    targets = embed, decode
}
criterion_main!(benches);
