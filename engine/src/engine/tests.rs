use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use safetensors::tensor::Dtype;
use tokio::time::{Instant, timeout};

use super::{Engine, ModelKind, Side};
use crate::{
    ChatEvent, DirFiles, EngineError, EngineOptions, Health, LoadError, ModelFiles,
    fixtures::{
        Script, answer, ask, bert_files, block_on, eventually, llama_files, llama_weights, options,
    },
    turns::Turns,
};

const STEP: Duration = Duration::from_millis(5);

fn slow(answer: &str) -> Script {
    Script {
        delay: STEP,
        ..Script::new(answer)
    }
}

#[test]
fn a_chat_model_answers_from_a_directory_in_every_precision() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in llama_files()
            .with("model.safetensors", llama_weights(1).safetensors(dtype))
            .0
        {
            std::fs::write(directory.path().join(name), bytes).unwrap();
        }
        let engine = Engine::load(Arc::new(DirFiles::new(directory.path())), options()).unwrap();
        assert_eq!(
            (engine.kind(), engine.dimensions(), engine.healthy()),
            (ModelKind::Chat, None, true)
        );
        let answer = answer(
            &engine,
            crate::ChatRequest {
                max_tokens: Some(20),
                ..ask("hello")
            },
        );
        assert!(answer.end.is_ok());
        assert_eq!(engine.stats().completed, 1);
    }
}

#[test]
fn directory_files_stay_inside_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("model/1_Pooling")).unwrap();
    std::fs::write(directory.path().join("secret"), "x").unwrap();
    std::fs::write(directory.path().join("model/a"), "abc").unwrap();
    std::fs::write(directory.path().join("model/1_Pooling/config.json"), "{}").unwrap();
    let files = DirFiles::new(directory.path().join("model"));
    assert_eq!(files.names(), ["1_Pooling/config.json", "a"]);
    assert_eq!(files.len("a"), Some(3));
    for name in [
        "../secret",
        "/etc/hostname",
        "",
        "1_Pooling",
        "./a",
        "a/../a",
    ] {
        assert_eq!(files.len(name), None, "{name}");
        assert!(files.read_at(name, 0, &mut [0]).is_err(), "{name}");
    }
    assert!(files.read_at("a", 2, &mut [0; 2]).is_err());
}

#[test]
fn a_full_queue_is_answered_at_once() {
    let engine = slow(&"x".repeat(200)).engine(EngineOptions {
        queue: 2,
        max_sequences: 1,
        ..options()
    });
    let mut running = engine.chat(ask("first")).unwrap();
    assert!(matches!(running.blocking_recv(), Some(ChatEvent::Delta(_))));
    let _waiting = [
        engine.chat(ask("second")).unwrap(),
        engine.chat(ask("third")).unwrap(),
    ];
    assert_eq!(
        engine.chat(ask("fourth")).err().unwrap(),
        EngineError::Overloaded
    );
    let stats = engine.stats();
    assert_eq!((stats.queue_depth, stats.running), (2, 1));
}

#[test]
fn callers_who_have_gone_do_not_keep_their_places_behind_a_long_answer() {
    let engine = slow(&"x".repeat(3000)).engine(EngineOptions {
        queue: 2,
        max_sequences: 1,
        ..options()
    });
    let mut running = engine.chat(ask("first")).unwrap();
    assert!(matches!(running.blocking_recv(), Some(ChatEvent::Delta(_))));
    let gone = [
        engine.chat(ask("second")).unwrap(),
        engine.chat(ask("third")).unwrap(),
    ];
    assert_eq!(
        engine.chat(ask("fourth")).err().unwrap(),
        EngineError::Overloaded
    );
    drop(gone);
    eventually(|| engine.stats().cancelled == 2);
    let _fifth = engine.chat(ask("fifth")).unwrap();
    let stats = engine.stats();
    assert_eq!((stats.cancelled, stats.running), (2, 1));
    assert!(matches!(running.blocking_recv(), Some(ChatEvent::Delta(_))));
}

#[test]
fn a_dropped_receiver_frees_the_thread_within_a_step() {
    let script = slow(&"x".repeat(3000));
    let steps = Arc::clone(&script.steps);
    let engine = script.engine(EngineOptions {
        prefill_chunk: 1,
        ..options()
    });
    block_on(async {
        let mut events = engine.chat(ask("hi")).unwrap();
        assert!(matches!(events.recv().await, Some(ChatEvent::Delta(_))));
        let before = steps.load(Ordering::SeqCst);
        let dropped = Instant::now();
        drop(events);
        // The next request gets its first token after its own six prompt steps and at most two of the old request.
        let mut events = engine.chat(ask("hi")).unwrap();
        assert!(matches!(events.recv().await, Some(ChatEvent::Delta(_))));
        assert!(steps.load(Ordering::SeqCst) - before <= 6 + 2 + 2);
        assert!(dropped.elapsed() < Duration::from_secs(2));
        assert_eq!(engine.stats().cancelled, 1);

        // In the middle of a long prompt as well.
        drop(events);
        drop(engine.chat(ask(&"x".repeat(3000))).unwrap());
        let mut events = engine.chat(ask("hi")).unwrap();
        assert!(matches!(
            timeout(Duration::from_secs(2), events.recv()).await,
            Ok(Some(ChatEvent::Delta(_)))
        ));
    });
}

#[test]
fn a_reader_that_does_not_read_holds_nobody_up() {
    let engine = Script::new(&"x".repeat(500)).engine(options());
    let idle = engine.chat(ask("hi")).unwrap();
    assert_eq!(answer(&engine, ask("hi")).text().len(), 500);
    // Both may end in the same step, and the other is told first.
    eventually(|| idle.len() == 502);
}

#[test]
fn a_panic_costs_its_request_and_the_good_health() {
    let script = Script {
        panic_at: Some(2),
        ..Script::new("abcdef")
    };
    let engine = script.engine(options());
    assert_eq!(
        answer(&engine, ask("hi")).end.unwrap_err(),
        EngineError::Internal
    );
    assert!(!engine.healthy());
    assert_eq!(*engine.health().borrow(), Health::Failed);
    assert_eq!(
        answer(&engine, ask("hi")).text(),
        "abcdef",
        "the thread still runs"
    );
    assert_eq!(
        (
            engine.stats().failed,
            engine.stats().completed,
            engine.healthy()
        ),
        (1, 1, false)
    );
}

#[test]
fn stop_finishes_what_was_accepted() {
    let engine = slow("abc").engine(options());
    block_on(async {
        let mut accepted = [
            engine.chat(ask("one")).unwrap(),
            engine.chat(ask("two")).unwrap(),
        ];
        engine.stop();
        assert_eq!(
            engine.chat(ask("three")).err().unwrap(),
            EngineError::Stopped
        );
        for events in &mut accepted {
            let mut last = None;
            while let Some(event) = events.recv().await {
                last = Some(event);
            }
            assert!(matches!(last, Some(ChatEvent::Done { .. })));
        }
        timeout(Duration::from_secs(5), engine.stopped())
            .await
            .unwrap();
        assert!(!engine.healthy());
    });
}

#[test]
fn abort_ends_what_was_accepted_within_a_step() {
    let engine = slow(&"x".repeat(3000)).engine(EngineOptions {
        max_sequences: 1,
        ..options()
    });
    block_on(async {
        let mut running = engine.chat(ask("one")).unwrap();
        let mut waiting = engine.chat(ask("two")).unwrap();
        assert!(matches!(running.recv().await, Some(ChatEvent::Delta(_))));
        engine.abort();
        timeout(Duration::from_secs(5), engine.stopped())
            .await
            .unwrap();
        assert!(matches!(
            waiting.recv().await,
            Some(ChatEvent::Failed(EngineError::Stopped))
        ));
    });
}

#[test]
fn the_thread_ends_with_the_last_handle() {
    let engine = Script::new("a").engine(options());
    let mut health = engine.health();
    drop(engine.clone());
    assert!(engine.healthy());
    drop(engine);
    block_on(async {
        timeout(
            Duration::from_secs(5),
            health.wait_for(|health| *health == Health::Stopped),
        )
        .await
        .unwrap()
        .unwrap();
    });
}

#[test]
fn a_dropped_embedding_request_is_not_computed() {
    let engine = bert_files().load(options()).unwrap();
    let text = || crate::Text::new("some text".into());
    for _ in 0..20 {
        drop(engine.embed(vec![text()], Arc::default()).unwrap());
    }
    block_on(engine.embed(vec![text()], Arc::default()).unwrap()).unwrap();
    let stats = engine.stats();
    assert_eq!(stats.completed + stats.cancelled, 21);
    assert!(stats.cancelled > 0);
    engine.stop();
    assert_eq!(
        engine.embed(vec![text()], Arc::default()).err().unwrap(),
        EngineError::Stopped
    );
    block_on(engine.stopped());
}

/// The tokenizer's memory grows with the number of texts that it reads at once.
#[test]
fn only_as_many_callers_as_there_are_threads_tokenize_at_once() {
    let chat = Script::new("a").engine(options());
    let embedding = bert_files().load(options()).unwrap();
    let waits = |turns: &Turns, request: &(dyn Fn() + Sync)| {
        let all: Vec<_> = (0..options().threads).map(|_| turns.take()).collect();
        std::thread::scope(|scope| {
            let (done, finished) = std::sync::mpsc::channel();
            scope.spawn(move || {
                request();
                done.send(()).unwrap();
            });
            assert!(finished.recv_timeout(Duration::from_millis(100)).is_err());
            drop(all);
            finished.recv_timeout(Duration::from_secs(5)).unwrap();
        });
    };
    let (Side::Chat(chats), Side::Embedding(texts)) = (&chat.0.side, &embedding.0.side) else {
        panic!("one of each");
    };
    waits(&chats.turns, &|| drop(chat.chat(ask("hi")).unwrap()));
    waits(&texts.turns, &|| {
        drop(
            embedding
                .embed(vec![crate::Text::new("hi".into())], Arc::default())
                .unwrap(),
        );
    });
}

#[test]
fn a_text_far_beyond_the_limit_is_refused_without_being_tokenized() {
    let chat = Script::new("a").engine(options());
    let embedding = bert_files().load(options()).unwrap();
    let (Side::Chat(chats), Side::Embedding(texts)) = (&chat.0.side, &embedding.0.side) else {
        panic!("one of each");
    };
    // Whoever tokenized would wait for ever.
    let _turns: Vec<_> = (0..options().threads)
        .flat_map(|_| [chats.turns.take(), texts.turns.take()])
        .collect();
    let limit = options().max_prompt_tokens.min(chat.context_length() - 1);
    assert_eq!(
        chat.chat(ask(&"x".repeat(limit * 64 + 1))).err().unwrap(),
        EngineError::TextTooLong { limit }
    );
    let limit = embedding.context_length();
    let text = crate::Text::new("x".repeat(limit * 64 + 1));
    assert_eq!(
        embedding.embed(vec![text], Arc::default()).err().unwrap(),
        EngineError::TextTooLong { limit }
    );
}

#[test]
fn options_are_checked_by_name() {
    let refused = |options: EngineOptions| llama_files().load(options).err().unwrap();
    let error = refused(EngineOptions {
        threads: 0,
        ..options()
    });
    assert_eq!(
        error.to_string(),
        "engine option threads: must be at least 1"
    );
    assert!(matches!(
        refused(EngineOptions {
            queue: 0,
            ..options()
        }),
        LoadError::Option { field: "queue", .. }
    ));
    assert!(matches!(
        refused(EngineOptions {
            max_new_tokens: usize::MAX,
            ..options()
        }),
        LoadError::Option {
            field: "max_new_tokens",
            ..
        }
    ));
}

/// The model in the repository, as a newcomer runs it.
#[test]
fn the_demo_model_answers() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model");
    if !directory.join("model.safetensors").exists() {
        println!("skipped: demo-model is not there");
        return;
    }
    let engine = Engine::load(Arc::new(DirFiles::new(directory)), options()).unwrap();
    let answer = answer(
        &engine,
        crate::ChatRequest {
            max_tokens: Some(64),
            ..ask("What does the host see?")
        },
    );
    println!("{}", answer.text());
    assert!(answer.text().split_whitespace().count() >= 3);
    assert!(answer.end.is_ok());
}
