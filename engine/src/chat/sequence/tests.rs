use crate::{
    ChatRequest, EngineError, EngineOptions, FinishReason, Input, Message, Role, Text,
    fixtures::{Script, answer, ask, choices, eventually, llama_files, options},
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
        max_choices: 2,
        max_logit_bias: 1,
        max_stop_strings: 2,
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
    let message = || Message::new(Role::User, Text::new("hi".into()));
    invalid(ChatRequest::new((0..4).map(|_| message()).collect()));
    invalid(ask(&"x".repeat(201)));
    invalid(at_most(0));
    invalid(stop_at(&[""]));
    invalid(stop_at(&["x"; 3]));
    for choices in [0, 3] {
        invalid(ChatRequest {
            choices,
            ..ask("hi")
        });
    }
    for logit_bias in [
        vec![(1, 1.0), (2, 1.0)],
        vec![(264, 1.0)],
        vec![(1, 100.5)],
        vec![(1, f32::NAN)],
    ] {
        invalid(ChatRequest {
            logit_bias,
            ..ask("hi")
        });
    }
    for penalty in [-2.1, 2.1, f32::NAN] {
        invalid(ChatRequest {
            presence_penalty: penalty,
            ..ask("hi")
        });
        invalid(ChatRequest {
            frequency_penalty: penalty,
            ..ask("hi")
        });
    }
    for repetition_penalty in [0.0, -1.0, 10.1, f32::NAN] {
        invalid(ChatRequest {
            repetition_penalty,
            ..ask("hi")
        });
    }
    for min_p in [-0.1, 1.1, f32::NAN] {
        invalid(ChatRequest { min_p, ..ask("hi") });
    }
    invalid(ChatRequest {
        logprobs: Some(21),
        ..ask("hi")
    });
    invalid(ChatRequest::of(Input::Tokens(vec![1, 264].into())));
    invalid(ChatRequest::of(Input::Tokens(Vec::new().into())));
    invalid(ChatRequest::of(Input::Text(Text::new(String::new()))));
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

#[test]
fn choices_are_drawn_each_by_itself_and_counted_together() {
    let engine = llama_files().load(options()).unwrap();
    let request = |choices| ChatRequest {
        choices,
        temperature: 1.0,
        seed: Some(3),
        ..at_most(40)
    };
    let alone = answer(&engine, request(1));
    let four = choices(&engine, request(4));
    let texts: Vec<_> = four.choices.iter().map(|choice| choice.text()).collect();
    assert_eq!(texts[0], alone.text(), "the first has the request's seed");
    for (index, text) in texts.iter().enumerate() {
        assert!(!texts[..index].contains(text), "{texts:?}");
    }
    let usage = four.end.unwrap();
    assert_eq!(usage.prompt_tokens, alone.end.unwrap().1.prompt_tokens);
    let again = choices(&engine, request(4));
    for (choice, text) in again.choices.iter().zip(&texts) {
        assert_eq!(&choice.text(), text);
    }
    assert_eq!(again.end.unwrap(), usage);
}

#[test]
fn the_prompt_of_several_choices_is_read_once() {
    let script = Script::new("abc");
    let engine = script.engine(options());
    let request = ChatRequest {
        choices: 4,
        ..ask(&"x".repeat(93))
    };
    let whole = choices(&engine, request);
    assert!(whole.choices.iter().all(|choice| choice.text() == "abc"));
    // Three letters and the end of the turn, four times.
    assert_eq!(
        whole.end.unwrap(),
        crate::Usage {
            prompt_tokens: 97,
            completion_tokens: 16
        }
    );
    // Six full blocks each, for all but the first.
    assert_eq!(engine.stats().cached_prompt_tokens, 3 * 96);
}

#[test]
fn each_choice_takes_a_place_in_the_queue() {
    let engine = Script {
        delay: std::time::Duration::from_millis(20),
        ..Script::new(&"x".repeat(200))
    }
    .engine(EngineOptions {
        queue: 4,
        max_sequences: 1,
        ..options()
    });
    let request = |choices| ChatRequest {
        choices,
        ..ask("hi")
    };
    let _running = engine.chat(request(1)).unwrap();
    eventually(|| engine.stats().queue_depth == 0);
    let waiting = engine.chat(request(3)).unwrap();
    assert_eq!(engine.stats().queue_depth, 3);
    assert_eq!(
        engine.chat(request(2)).err().unwrap(),
        EngineError::Overloaded
    );
    assert_eq!(engine.stats().queue_depth, 3, "none of the two is taken");
    let _last = engine.chat(request(1)).unwrap();
    drop(waiting);
    eventually(|| engine.stats().queue_depth <= 1);
    assert!(engine.chat(request(3)).is_ok());
    assert!(matches!(
        engine.chat(request(5)).err().unwrap(),
        EngineError::Invalid(_)
    ));
}

#[test]
fn a_request_over_its_deadline_is_told_so() {
    let engine = Script {
        delay: std::time::Duration::from_millis(5),
        ..Script::new(&"x".repeat(3000))
    }
    .engine(EngineOptions {
        max_sequences: 1,
        deadline: std::time::Duration::from_millis(200),
        ..options()
    });
    let begun = tokio::time::Instant::now();
    std::thread::scope(|scope| {
        // One runs, the other waits for its place.
        for _ in 0..2 {
            let ended = || answer(&engine, ask("hi")).end.unwrap_err();
            scope.spawn(move || assert_eq!(ended(), EngineError::Deadline));
        }
    });
    assert!(begun.elapsed() < std::time::Duration::from_secs(3));
    assert_eq!(engine.stats().failed, 2);
    // Told before the next report of the numbers.
    eventually(|| engine.stats().kv_blocks_used == 0);
}

#[test]
fn logprobs_are_of_the_tokens_that_are_shown() {
    let engine = Script::new("Grüße").engine(options());
    let request = || ChatRequest {
        logprobs: Some(2),
        ..ask("hi")
    };
    let bytes = |choice: &crate::fixtures::Choice| -> Vec<u8> {
        let tokens = choice.logprobs.iter();
        tokens
            .flat_map(|token| token.token.bytes.to_vec())
            .collect()
    };
    let whole = choices(&engine, request()).choices.remove(0);
    assert_eq!(bytes(&whole), "Grüße".as_bytes());
    for token in &whole.logprobs {
        // The script gives its token e^20 times the weight of another.
        assert!((-1e-5..=0.0).contains(&token.token.logprob));
        assert_eq!(token.top.len(), 2);
        assert_eq!(token.top[0].bytes, token.token.bytes);
        assert!((token.top[1].logprob + 20.0).abs() < 1e-3);
    }
    // What belongs to a stop string is not told.
    let stopped = ChatRequest {
        stop: vec![Text::new("üß".into())],
        ..request()
    };
    assert_eq!(bytes(&choices(&engine, stopped).choices[0]), b"Gr");
    // The bytes of a character that was cut are.
    let cut = ChatRequest {
        max_tokens: Some(3),
        ..request()
    };
    let cut = choices(&engine, cut).choices.remove(0);
    assert_eq!(
        (cut.text().as_str(), bytes(&cut)),
        ("Gr", b"Gr\xc3".to_vec())
    );
    // Of the model itself: a bias decides, and does not count.
    let biased = ChatRequest {
        logit_bias: vec![(u32::from(b'z'), 100.0)],
        max_tokens: Some(1),
        ..request()
    };
    let biased = choices(&engine, biased).choices.remove(0);
    assert_eq!(biased.text(), "z");
    assert!((biased.logprobs[0].token.logprob + 20.0).abs() < 1e-3);
    assert_eq!(biased.logprobs[0].top[0].bytes.as_slice(), b"G");
}

#[test]
fn text_and_tokens_are_read_as_they_are() {
    let engine = Script::new("abc").engine(options());
    // The script answers what ends with the assistant's sign.
    let tokens = vec![104, 105, 259];
    let from_tokens = answer(
        &engine,
        ChatRequest {
            temperature: 0.0,
            ..ChatRequest::of(Input::Tokens(tokens.into()))
        },
    );
    let from_text = answer(
        &engine,
        ChatRequest {
            temperature: 0.0,
            ..ChatRequest::of(Input::Text(Text::new("hi<|assistant|>".into())))
        },
    );
    for answer in [from_tokens, from_text] {
        assert_eq!(answer.text(), "abc");
        assert_eq!(answer.end.unwrap().1.prompt_tokens, 3);
    }
}
