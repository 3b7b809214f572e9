use crate::{
    ChatRequest, EngineError, EngineOptions, FinishReason, Text,
    fixtures::{Script, answer, ask, llama_files, options},
};

fn stop_at(stops: &[&str]) -> ChatRequest {
    ChatRequest {
        stop: stops.iter().map(|stop| Text::new((*stop).into())).collect(),
        ..ask("hi")
    }
}

fn at_most(tokens: u32) -> ChatRequest {
    ChatRequest {
        max_tokens: Some(tokens),
        ..ask("hi")
    }
}

#[test]
fn an_answer_ends_with_the_turn() {
    let engine = Script::new("Grüße 😀").engine(options());
    let answer = answer(&engine, ask("hi"));
    assert_eq!(answer.text(), "Grüße 😀");
    assert!(answer.pieces.len() > 5, "it comes in pieces");
    let (reason, usage) = answer.end.unwrap();
    assert_eq!(reason, FinishReason::Stop);
    // <|bos|><|user|>hi<|end|><|assistant|>, and eleven bytes with the end of the turn.
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (6, 13));
}

#[test]
fn max_tokens_ends_an_answer_and_drops_an_unfinished_character() {
    let engine = Script::new("ab😀").engine(options());
    for (tokens, text) in [(1, "a"), (2, "ab"), (3, "ab"), (5, "ab"), (6, "ab😀")] {
        let answer = answer(&engine, at_most(tokens));
        let (reason, usage) = answer.end.as_ref().unwrap();
        assert_eq!(
            (answer.text().as_str(), *reason, usage.completion_tokens),
            (text, FinishReason::Length, tokens)
        );
    }
    assert_eq!(
        answer(&engine, at_most(7)).end.unwrap().0,
        FinishReason::Stop
    );
}

#[test]
fn stop_strings_across_tokens_never_leak() {
    let engine = Script::new("one two, three. STOP here").engine(options());
    for (stops, text) in [
        (&["STOP"][..], "one two, three. "),
        (&["three", "two"], "one "),
        (&["STOPPED"], "one two, three. STOP here"),
        (&["here!"], "one two, three. STOP here"),
    ] {
        let answer = answer(&engine, stop_at(stops));
        assert_eq!(
            (answer.text().as_str(), answer.end.unwrap().0),
            (text, FinishReason::Stop)
        );
    }
    // What was held back is shown when the answer is cut off there.
    let cut = answer(
        &engine,
        ChatRequest {
            max_tokens: Some(18),
            ..stop_at(&["STOP"])
        },
    );
    assert_eq!(
        (cut.text().as_str(), cut.end.unwrap().0),
        ("one two, three. ST", FinishReason::Length)
    );
}

#[test]
fn prompts_are_read_in_chunks() {
    let script = Script::new("a");
    let steps = script.steps.clone();
    let engine = script.engine(EngineOptions {
        prefill_chunk: 16,
        ..options()
    });
    let answer = answer(&engine, ask(&"x".repeat(96)));
    assert_eq!(answer.end.unwrap().1.prompt_tokens, 100);
    // Seven chunks, the last of which gives the first token, and one step for the end of the turn.
    assert_eq!(steps.load(std::sync::atomic::Ordering::SeqCst), 8);
}

#[test]
fn refuses_what_does_not_fit() {
    let options = EngineOptions {
        max_prompt_tokens: 50,
        max_prompt_bytes: 200,
        max_messages: 3,
        ..options()
    };
    let engine = Script::new("a").engine(options);
    let refused = |request: ChatRequest| engine.chat(request).err().unwrap();
    assert_eq!(
        refused(ask(&"x".repeat(60))),
        EngineError::ContextLength {
            limit: 50,
            requested: 64
        }
    );
    let invalid =
        |request: ChatRequest| assert!(matches!(refused(request), EngineError::Invalid(_)));
    invalid(ChatRequest::new(Vec::new()));
    invalid(ChatRequest::new(
        (0..4).flat_map(|_| ask("hi").messages).collect(),
    ));
    invalid(ask(&"x".repeat(201)));
    invalid(at_most(0));
    invalid(stop_at(&[""]));
    invalid(stop_at(&["x"; 17]));
    for temperature in [-0.1, 2.1, f32::NAN, f32::INFINITY] {
        invalid(ChatRequest {
            temperature,
            ..ask("hi")
        });
    }
    for top_p in [-0.1, 1.1, f32::NAN] {
        invalid(ChatRequest { top_p, ..ask("hi") });
    }
    assert!(matches!(
        engine
            .embed(Vec::new(), std::sync::Arc::default())
            .err()
            .unwrap(),
        EngineError::WrongKind
    ));
    assert_eq!(
        engine.stats().queue_depth,
        0,
        "a refused request gives its place back"
    );
}

#[test]
fn max_tokens_is_clipped_to_the_context() {
    // The small model has 512 positions, and no byte it makes is likely to end its turn.
    let engine = llama_files()
        .configured("eos_token_id", serde_json::json!(null))
        .load(options())
        .unwrap();
    assert_eq!(engine.context_length(), 512);
    let answer = answer(
        &engine,
        ChatRequest {
            max_tokens: Some(u32::MAX),
            ..ask(&"x".repeat(490))
        },
    );
    let (reason, usage) = answer.end.unwrap();
    assert_eq!(usage.prompt_tokens, 494);
    assert!(
        usage.completion_tokens == 18 && reason == FinishReason::Length
            || reason == FinishReason::Stop
    );
    let error = engine.chat(ask(&"x".repeat(508))).err().unwrap();
    assert_eq!(
        error,
        EngineError::ContextLength {
            limit: 511,
            requested: 512
        }
    );
}

#[test]
fn a_seed_repeats_its_answer() {
    let engine = llama_files().load(options()).unwrap();
    let drawn = |seed| {
        answer(
            &engine,
            ChatRequest {
                temperature: 1.0,
                top_p: 0.9,
                seed: Some(seed),
                ..at_most(60)
            },
        )
        .text()
    };
    assert_eq!(drawn(11), drawn(11));
    assert_ne!(drawn(11), drawn(12));
    assert_eq!(
        answer(&engine, at_most(60)).text(),
        answer(&engine, at_most(60)).text()
    );
}
