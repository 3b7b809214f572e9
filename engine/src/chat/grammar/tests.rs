use serde_json::{Value, json};

use super::*;
use crate::{
    ChatRequest, FinishReason, Format,
    fixtures::{answer, ask, byte_tokenizer, choices, llama_files, options},
    vocabulary::TokenBytes,
};

fn grammars() -> Grammars {
    let tokenizer = byte_tokenizer().to_string();
    let bytes = TokenBytes::read(&tokenizers::Tokenizer::from_bytes(tokenizer).unwrap()).unwrap();
    Grammars::new(&bytes, &BTreeSet::from([257]), &options()).unwrap()
}

/// How the grammar of a schema takes a text: its length if it takes all of it, and whether it may end there.
fn takes(schema: &Value, text: &str) -> (usize, bool) {
    let mut grammar = grammars()
        .compile("response_format", schema.clone())
        .unwrap();
    for (taken, byte) in text.bytes().enumerate() {
        let mut logits = [0.0; 264];
        grammar.restrict(&mut logits).unwrap();
        if logits[usize::from(byte)] != 0.0 {
            return (taken, false);
        }
        if grammar.advance(byte.into()).unwrap() {
            return (taken + 1, true);
        }
    }
    let mut logits = [0.0; 264];
    grammar.restrict(&mut logits).unwrap();
    (text.len(), logits[257] == 0.0)
}

#[test]
fn a_grammar_takes_what_its_schema_describes_and_nothing_else() {
    let schema = json!({
        "type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
        "required": ["a", "b"], "additionalProperties": false,
    });
    for text in [r#"{"a":1,"b":"x"}"#, "{ \"a\": -20,\n  \"b\": \"y\" }"] {
        assert_eq!(takes(&schema, text), (text.len(), true), "{text}");
    }
    for (text, taken) in [
        (r#"["a"]"#, 0),
        (r#"{"a":"1""#, 5),
        (r#"{"a":1,"b":"z"}"#, 12),
        (r#"{"a":1}"#, 6),
        (r#"{"b":"x"}"#, 2),
        (r#"{"a":1.5"#, 6),
    ] {
        assert_eq!(takes(&schema, text), (taken, false), "{text}");
    }
    // Space is bounded, so that no answer is made of it.
    for (space, taken) in [("{  ", 2), ("{\n\n", 2), ("{\t", 1)] {
        assert_eq!(takes(&schema, space), (taken, false));
    }
    // References inside the document, and recursion.
    let tree = json!({
        "$ref": "#/$defs/node",
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": false}},
    });
    let text = r#"{"next":{"next":{}}}"#;
    assert_eq!(takes(&tree, text), (text.len(), true));
    assert!(!takes(&tree, r#"{"other":1}"#).1);
}

#[test]
fn special_tokens_are_no_text_of_an_answer() {
    let mut grammar = grammars()
        .compile("response_format", json!({"type": "string"}))
        .unwrap();
    for byte in *b"\"a" {
        let mut logits = [0.0; 264];
        grammar.restrict(&mut logits).unwrap();
        assert!(
            logits[256..]
                .iter()
                .all(|logit| *logit == f32::NEG_INFINITY)
        );
        assert!(!grammar.advance(byte.into()).unwrap());
    }
    // Half a character cannot be followed by anything but its rest.
    assert!(!grammar.advance(0xc3).unwrap());
    let mut logits = [0.0; 264];
    grammar.restrict(&mut logits).unwrap();
    let open: Vec<_> = (0..264).filter(|token| logits[*token] == 0.0).collect();
    assert_eq!(open, (0x80..0xc0).collect::<Vec<_>>());
}

#[test]
fn schemas_that_cannot_be_followed_are_refused_quickly_and_in_fixed_words() {
    let grammars = grammars();
    for schema in [
        json!([]),
        json!(true),
        json!({"type": "secret"}),
        json!({"type": 5}),
        json!({"$ref": "https://secret.example/schema"}),
        json!({"$ref": "#/$defs/secret"}),
        json!({"type": "string", "pattern": "(secret"}),
        json!({"not": {"type": "string"}}),
        json!({"type": "object", "unevaluatedProperties": false}),
        json!({"allOf": [{"type": "string"}, {"type": "integer"}]}),
        json!({"anyOf": []}),
        json!({"oneOf": [{"type": "object"}, {"type": "object"}]}),
    ] {
        let begun = tokio::time::Instant::now();
        let error = grammars.compile("response_format", schema.clone()).err();
        let error = error.unwrap_or_else(|| panic!("accepted {schema}"));
        assert!(begun.elapsed().as_secs() < 20, "{schema}");
        assert!(matches!(
            error,
            EngineError::Schema {
                field: "response_format",
                ..
            }
        ));
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

/// Whatever becomes of these, it must not take long, and must not take the program with it.
#[test]
fn hostile_schemas_cost_little() {
    let grammars = grammars();
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")*".repeat(depth));
    let mut optional = serde_json::Map::new();
    let mut wide = serde_json::Map::new();
    for index in 0..500 {
        let pattern = json!({"type": "string", "pattern": "^(a|b)*a(a|b){12}$"});
        wide.insert(format!("p{index}"), pattern);
    }
    for index in 0..200 {
        optional.insert(format!("p{index}"), json!({"type": "integer"}));
    }
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}}),
        json!({"allOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]}),
        json!({"type": "string", "minLength": 1_000_000_000}),
        json!({"type": "string", "maxLength": 1_000_000_000}),
        json!({"type": "array", "minItems": 1_000_000_000}),
        json!({"type": "array", "maxItems": 1_000_000}),
        json!({"type": "object", "minProperties": 1_000_000}),
        json!({"type": "integer", "minimum": -1e300, "maximum": 1e300}),
        json!({"type": "integer", "multipleOf": 1e-300}),
        json!({"type": "integer", "multipleOf": 999_999_937}),
        json!({"type": "number", "multipleOf": 0}),
        json!({"type": "string", "pattern": nested(50)}),
        json!({"type": "string", "pattern": nested(5000)}),
        json!({"type": "string", "pattern": "(((a{1,100}){1,100}){1,100}){1,100}"}),
        json!({"type": "string", "pattern": "(a*)*(a*)*(a*)*b"}),
        json!({"type": "string", "pattern": "^(.*a){20}$"}),
        json!({"type": "object", "patternProperties": {"(.*a){8}": {"type": "string"}, "(.*b){8}": {"type": "string"}}}),
        json!({"type": "object", "properties": optional}),
        json!({"type": "object", "properties": wide}),
        json!({"enum": (0..500).map(|i| format!("{i:0100}")).collect::<Vec<_>>()}),
    ] {
        let begun = tokio::time::Instant::now();
        if let Ok(mut grammar) = grammars.compile("response_format", schema.clone()) {
            for _ in 0..20 {
                let mut logits = [0.0; 264];
                if grammar.restrict(&mut logits).is_err() {
                    break;
                }
                let Some(token) = (0..).zip(&logits).find(|(_, logit)| **logit == 0.0) else {
                    panic!("nothing may come: {schema}");
                };
                if token.0 >= 256 || grammar.advance(token.0).unwrap_or(true) {
                    break;
                }
            }
        }
        let text = schema.to_string();
        assert!(
            begun.elapsed().as_secs() < 20,
            "{} took {:?}",
            &text[..text.len().min(80)],
            begun.elapsed()
        );
    }
}

/// Random weights say nothing sensible; held to a schema they cannot help it.
#[test]
fn a_random_model_writes_json_of_the_schema() {
    let engine = llama_files().load(options()).unwrap();
    let schema = json!({
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "green"]},
            "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 1, "maxItems": 3},
            "deep": {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"], "additionalProperties": false},
        },
        "required": ["colour", "sizes", "deep"], "additionalProperties": false,
    });
    for temperature in [0.0, 1.0, 2.0] {
        let request = ChatRequest {
            temperature,
            seed: Some(9),
            choices: 3,
            max_tokens: Some(400),
            format: Format::JsonSchema(schema.clone()),
            ..ask("hi")
        };
        for choice in choices(&engine, request).choices {
            let text = choice.text();
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(choice.reason, Some(FinishReason::Stop));
            assert!(["red", "green"].contains(&value["colour"].as_str().unwrap()));
            let sizes = value["sizes"].as_array().unwrap();
            assert!((1..=3).contains(&sizes.len()));
            assert!(sizes.iter().all(|size| size.as_u64().unwrap() <= 99));
            assert!(value["deep"]["yes"].is_boolean());
            assert_eq!(value.as_object().unwrap().len(), 3);
        }
    }
}

#[test]
fn an_answer_that_is_cut_ends_with_its_length() {
    let engine = llama_files().load(options()).unwrap();
    let request = ChatRequest {
        max_tokens: Some(5),
        format: Format::JsonSchema(
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 9}),
        ),
        ..ask("hi")
    };
    let cut = answer(&engine, request);
    assert_eq!(cut.end.as_ref().unwrap().0, FinishReason::Length);
    assert!(cut.text().starts_with('['));
    let object = ChatRequest {
        max_tokens: Some(5),
        format: Format::JsonObject,
        ..ask("hi")
    };
    assert!(answer(&engine, object).text().starts_with('{'));
}

#[test]
fn schemas_beyond_the_limits_are_refused_before_they_are_compiled() {
    let engine = llama_files()
        .load(EngineOptions {
            max_schema_bytes: 100,
            max_schema_depth: 3,
            ..options()
        })
        .unwrap();
    let of = |schema: Value| {
        let request = ChatRequest {
            format: Format::JsonSchema(schema),
            max_tokens: Some(1),
            ..ask("hi")
        };
        engine.chat(request).map(drop)
    };
    assert!(of(json!({"properties": {"a": {"type": "null"}}})).is_ok());
    for schema in [
        json!({"properties": {"a": {"enum": [[]]}}}),
        json!({"description": "x".repeat(100)}),
        json!("string"),
    ] {
        let error = of(schema).unwrap_err();
        assert!(matches!(
            error,
            EngineError::Schema {
                field: "response_format",
                ..
            }
        ));
    }
    let costly = llama_files()
        .load(EngineOptions {
            max_grammar_cost: 100,
            ..options()
        })
        .unwrap();
    let request = ChatRequest {
        format: Format::JsonSchema(json!({"type": "string", "pattern": "(abc|def|ghi){1,50}x"})),
        ..ask("hi")
    };
    assert!(matches!(
        costly.chat(request).err(),
        Some(EngineError::Schema { .. })
    ));
}

/// Another sequence's tokens go on while masks are made.
#[test]
fn a_grammar_that_costs_too_much_fails_alone() {
    let engine = llama_files().load(options()).unwrap();
    let schema = json!({"type": "string", "pattern": "^(a|b)*a(a|b){15}$"});
    let costly = ChatRequest {
        format: Format::JsonSchema(schema),
        max_tokens: Some(64),
        ..ask("hi")
    };
    let plain = ChatRequest {
        max_tokens: Some(64),
        ..ask("hi")
    };
    let alone = answer(
        &engine,
        ChatRequest {
            max_tokens: Some(64),
            ..ask("hi")
        },
    )
    .text();
    std::thread::scope(|scope| {
        let costly = scope.spawn(|| match engine.chat(costly) {
            // Whether it is refused, fails on its way or ends: it is its own affair.
            Ok(mut events) => while events.blocking_recv().is_some() {},
            Err(error) => assert!(matches!(error, EngineError::Schema { .. })),
        });
        assert_eq!(answer(&engine, plain).text(), alone);
        costly.join().unwrap();
    });
    assert!(engine.healthy());
}

/// For the figure in docs/engine.md.
#[test]
#[ignore = "a measurement, with a tokenizer of 128,000 tokens or so in CLOISTER_TOKENIZER"]
fn masks_take_a_part_of_a_millisecond() {
    let path = std::env::var("CLOISTER_TOKENIZER").unwrap();
    let tokenizer = tokenizers::Tokenizer::from_file(path).unwrap();
    let begun = tokio::time::Instant::now();
    let bytes = TokenBytes::read(&tokenizer).unwrap();
    let grammars = Grammars::new(&bytes, &BTreeSet::from([0]), &options()).unwrap();
    println!("{} tokens, made in {:?}", bytes.of.len(), begun.elapsed());
    for schema in [
        json!({"type": "object"}),
        json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 40}, "age": {"type": "integer"}}, "required": ["name", "age"]}),
    ] {
        let begun = tokio::time::Instant::now();
        let mut grammar = grammars.compile("response_format", schema).unwrap();
        let compiled = begun.elapsed();
        let mut times = Vec::new();
        for token in tokenizer
            .encode(r#"{"name": "Ada Lovelace", "age": 36}"#, false)
            .unwrap()
            .get_ids()
        {
            let begun = tokio::time::Instant::now();
            grammar.look_ahead();
            times.push(begun.elapsed());
            if grammar.advance(*token).unwrap() {
                break;
            }
        }
        println!("compiled in {compiled:?}, masks in {times:?}");
    }
}
