use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    ChatEvent, ChatRequest, Engine, EngineError, EngineOptions, FinishReason,
    decoder::Decoder as _,
    fixtures::{Answer, Script, answer, ask, block_on, eventually, llama_files, options},
    kv::BLOCK,
};

const STEP: Duration = Duration::from_millis(4);

fn slow(answer: &str) -> Script {
    Script {
        delay: STEP,
        ..Script::new(answer)
    }
}

fn from(caller: &str, text: &str) -> ChatRequest {
    ChatRequest {
        caller: caller.into(),
        ..ask(text)
    }
}

/// All at once, each on a thread of its own.
fn together(engine: &Engine, requests: Vec<ChatRequest>) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = requests
            .into_iter()
            .map(|request| scope.spawn(|| answer(engine, request)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

#[test]
fn many_answers_go_on_in_each_step() {
    let script = slow(&"x".repeat(50));
    let (steps, widest) = (Arc::clone(&script.steps), Arc::clone(&script.widest));
    let engine = script.engine(options());
    let answers = together(&engine, (0..16).map(|_| ask("hi")).collect());
    assert!(answers.iter().all(|answer| answer.text() == "x".repeat(50)));
    assert_eq!(widest.load(Ordering::SeqCst), 16);
    // Alone each takes 52.
    assert!(steps.load(Ordering::SeqCst) < 3 * 52, "{steps:?}");
    assert_eq!(engine.stats().completed, 16);
}

#[test]
fn no_more_than_so_many_are_answered_at_once() {
    let script = slow("abcdef");
    let widest = Arc::clone(&script.widest);
    let engine = script.engine(EngineOptions {
        max_sequences: 3,
        ..options()
    });
    let answers = together(&engine, (0..10).map(|_| ask("hi")).collect());
    assert!(answers.iter().all(|answer| answer.text() == "abcdef"));
    assert_eq!(widest.load(Ordering::SeqCst), 3);
}

/// Blocks of the script's memory.
fn with_blocks(blocks: u64, more: EngineOptions) -> EngineOptions {
    EngineOptions {
        kv_cache_bytes: blocks * Script::new("").shape().block_bytes(),
        ..more
    }
}

#[test]
fn where_memory_runs_out_a_request_waits_and_ends_all_the_same() {
    // Ten answers of up to 5 blocks each, in 8.
    let text = "y".repeat(4 * BLOCK);
    let engine = slow(&text).engine(with_blocks(8, options()));
    let answers = together(
        &engine,
        (0..10)
            .map(|index| from(&index.to_string(), "hi"))
            .collect(),
    );
    for answer in answers {
        assert_eq!(answer.text(), text);
        assert_eq!(answer.end.unwrap().0, FinishReason::Stop);
    }
    let stats = engine.stats();
    assert!(stats.preempted > 0, "{stats:?}");
    assert_eq!((stats.completed, stats.failed), (10, 0));
    // Known beginnings are not in use.
    eventually(|| engine.stats().kv_blocks_used == 0);
}

#[test]
fn what_no_memory_could_hold_is_refused_before_it_waits() {
    let engine = Script::new("a").engine(with_blocks(3, options()));
    assert_eq!(engine.context_length(), 3 * BLOCK);
    let long = engine.chat(ask(&"x".repeat(3 * BLOCK))).err().unwrap();
    assert!(matches!(long, EngineError::ContextLength { limit, .. } if limit == 3 * BLOCK - 1));
    // And an answer ends where the memory does.
    let text = "z".repeat(1000);
    let engine = Script::new(&text).engine(with_blocks(3, options()));
    let (reason, usage) = answer(&engine, ask("hi")).end.unwrap();
    assert_eq!(reason, FinishReason::Length);
    assert_eq!(
        (usage.prompt_tokens + usage.completion_tokens) as usize,
        3 * BLOCK
    );
}

#[test]
fn a_request_that_is_given_up_frees_its_memory_within_a_step() {
    let script = slow(&"x".repeat(3000));
    let steps = Arc::clone(&script.steps);
    let engine = script.engine(options());
    block_on(async {
        let mut events = Vec::new();
        for _ in 0..4 {
            events.push(engine.chat(ask("hi")).unwrap());
        }
        for events in &mut events {
            assert!(matches!(events.recv().await, Some(ChatEvent::Delta(_))));
        }
        assert!(engine.stats().kv_blocks_used >= 1);
        let before = steps.load(Ordering::SeqCst);
        drop(events);
        eventually(|| engine.stats().kv_blocks_used == 0);
        assert!(steps.load(Ordering::SeqCst) - before <= 2);
        assert_eq!((engine.stats().cancelled, engine.stats().running), (4, 0));
    });
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let script = slow("ok");
    let engine = script.engine(EngineOptions {
        prefill_chunk: 16,
        ..options()
    });
    block_on(async {
        // Two hundred steps, alone.
        let mut long = engine.chat(from("a", &"x".repeat(3200))).unwrap();
        tokio::time::sleep(5 * STEP).await;
        let mut short = engine.chat(from("b", "hi")).unwrap();
        assert!(matches!(short.recv().await, Some(ChatEvent::Delta(_))));
        assert!(long.try_recv().is_err(), "the long one is still being read");
        assert!(matches!(long.recv().await, Some(ChatEvent::Delta(_))));
    });
}

#[test]
fn a_caller_with_many_requests_does_not_hold_up_another() {
    let engine = slow(&"x".repeat(40)).engine(EngineOptions {
        max_sequences: 2,
        ..options()
    });
    let crowd: Vec<_> = (0..20)
        .map(|_| engine.chat(from("crowd", "hi")).unwrap())
        .collect();
    let alone = answer(&engine, from("alone", "hi"));
    assert!(alone.end.is_ok());
    // Two were running when it came; it was next.
    assert!(engine.stats().completed <= 5, "{:?}", engine.stats());
    drop(crowd);
}

#[test]
fn a_beginning_is_read_once_for_each_caller_and_for_no_other() {
    let engine = Script::new("ok").engine(options());
    let text = "x".repeat(5 * BLOCK);
    let mut cached = 0;
    let mut hit = |caller: &str, text: &str| {
        assert_eq!(answer(&engine, from(caller, text)).text(), "ok");
        let now = engine.stats().cached_prompt_tokens;
        now - std::mem::replace(&mut cached, now)
    };
    assert_eq!(hit("a", &text), 0);
    assert_eq!(hit("a", &text), 5 * BLOCK as u64);
    assert_eq!(hit("b", &text), 0, "another caller");
    assert_eq!(hit("a", &format!("y{text}")), 0, "another beginning");
    assert_eq!(hit("a", &format!("{text}{text}")), 5 * BLOCK as u64);
    // With the answer that was made, as the next turn has it.
    assert!(hit("a", &format!("{text}{text}")) >= 10 * BLOCK as u64);
}

#[test]
fn an_answer_does_not_depend_on_who_else_is_answered() {
    let engine = llama_files().load(options()).unwrap();
    let request = |text: &str, caller: &str| ChatRequest {
        max_tokens: Some(40),
        ..from(caller, text)
    };
    let alone = answer(&engine, request("what is in here?", "me"));
    let mut crowd: Vec<_> = (0..15)
        .map(|index| request(&"abc ".repeat(1 + 5 * index), &index.to_string()))
        .collect();
    crowd.insert(7, request("what is in here?", "me too"));
    let answers = together(&engine, crowd);
    assert_eq!(answers[7].text(), alone.text());
    assert_eq!(answers[7].end, alone.end);

    // Nor on whether its memory was taken away in between.
    let tight = EngineOptions {
        kv_cache_bytes: 12 * 3 * 2 * 2 * 16 * BLOCK as u64 * 4,
        ..options()
    };
    let engine = llama_files().load(tight).unwrap();
    let answers = together(
        &engine,
        (0..6)
            .map(|index| request("what is in here?", &index.to_string()))
            .collect(),
    );
    assert!(engine.stats().preempted > 0);
    for each in answers {
        assert_eq!(each.text(), alone.text());
    }
}

#[test]
fn who_is_turned_away_is_told_when_to_come_back() {
    let engine = slow(&"x".repeat(400)).engine(EngineOptions {
        queue: 3,
        max_sequences: 1,
        ..options()
    });
    // Nothing is known yet.
    assert_eq!(engine.retry_after(), Duration::from_secs(1));
    answer(&engine, ask("hi")).end.unwrap();
    let mut running = engine.chat(ask("hi")).unwrap();
    assert!(matches!(running.blocking_recv(), Some(ChatEvent::Delta(_))));
    let waiting: Vec<_> = (0..3).map(|_| engine.chat(ask("hi")).unwrap()).collect();
    assert_eq!(engine.chat(ask("hi")).err(), Some(EngineError::Overloaded));
    // Four answers of 401 steps.
    let expected = 4 * 401 * STEP;
    let after = engine.retry_after();
    assert!(
        after > expected / 2 && after < 3 * expected,
        "{after:?} for {expected:?}"
    );
    drop(waiting);
}
