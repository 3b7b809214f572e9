use engine::Input;
use serde_json::{Value, json};

use super::*;

fn parsed(body: &Value) -> Result<request::Request, ApiError> {
    object::parse::<Fields>(body.to_string().as_bytes())?.check(3)
}

fn refused(body: &Value) -> (u16, String) {
    match parsed(body) {
        Ok(_) => panic!("accepted {body}"),
        Err(error) => {
            let (status, _, param) = error.named();
            (status, param.unwrap_or_default().to_owned())
        }
    }
}

#[test]
fn one_text_or_several_are_taken() {
    let one = parsed(&json!({"model": "m", "input": "hi", "user": "x"}))
        .ok()
        .unwrap();
    assert!(matches!(&one.input[..], [Input::Text(text)] if text.expose() == "hi"));
    assert_eq!(one.encoding, Encoding::Float);
    let body =
        json!({"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 384});
    let two = parsed(&body).ok().unwrap();
    assert_eq!(two.input.len(), 2);
    assert_eq!(
        (two.encoding, two.dimensions),
        (Encoding::Base64, Some(384))
    );
}

#[test]
fn what_cannot_be_embedded_is_refused_by_name() {
    let cases = [
        (json!({"model": "m"}), "input"),
        (json!({"input": "x"}), "model"),
        (json!({"model": "m", "input": ""}), "input"),
        (json!({"model": "m", "input": []}), "input"),
        (json!({"model": "m", "input": ["a", ""]}), "input"),
        (
            json!({"model": "m", "input": ["a", "b", "c", "d"]}),
            "input",
        ),
        (json!({"model": "m", "input": [1, -2]}), "input"),
        (json!({"model": "m", "input": [1, 2.5]}), "input"),
        (json!({"model": "m", "input": [4_294_967_296_u64]}), "input"),
        (json!({"model": "m", "input": [[1], []]}), "input"),
        (json!({"model": "m", "input": [[1], "a"]}), "input"),
        (json!({"model": "m", "input": [[1], 2]}), "input"),
        (json!({"model": "m", "input": [1, [2]]}), "input"),
        (json!({"model": "m", "input": [[[1]]]}), "input"),
        (
            json!({"model": "m", "input": [[1], [2], [3], [4]]}),
            "input",
        ),
        (json!({"model": "m", "input": vec![[1]; 3000]}), "input"),
        (
            json!({"model": "m", "input": "x", "dimensions": 0}),
            "dimensions",
        ),
        (json!({"model": "m", "input": ["a", 1]}), "input"),
        (json!({"model": "m", "input": 5}), "input"),
        (json!({"model": "m", "input": {"a": 1}}), "input"),
        (json!({"model": "m", "input": vec!["x"; 3000]}), "input"),
        (
            json!({"model": "m", "input": "x", "encoding_format": "int8"}),
            "encoding_format",
        ),
        (
            json!({"model": "m", "input": "x", "dimensions": -1}),
            "dimensions",
        ),
    ];
    for (body, param) in cases {
        assert_eq!(refused(&body), (400, param.to_owned()), "{body}");
    }
}

#[test]
fn token_ids_are_one_input_or_several() {
    let of = |input: Value| {
        parsed(&json!({"model": "m", "input": input}))
            .ok()
            .unwrap()
            .input
    };
    let long: Vec<u32> = (0..500).collect();
    for (input, expected) in [
        (json!([7]), vec![vec![7]]),
        (json!(long), vec![long.clone()]),
        (json!([[1, 2], [3]]), vec![vec![1, 2], vec![3]]),
    ] {
        let read = of(input);
        assert_eq!(read.len(), expected.len());
        for (read, expected) in read.iter().zip(&expected) {
            assert!(matches!(read, Input::Tokens(tokens) if **tokens == *expected));
        }
    }
}

#[test]
fn a_shortened_vector_has_unit_length() {
    let of = |vector: &[f32], dimensions| {
        let mut vector = vector.to_vec();
        shorten(&mut vector, dimensions);
        vector
    };
    assert_eq!(of(&[0.6, 0.8], 2), [0.6, 0.8]);
    assert_eq!(of(&[0.3, 0.4, 0.5], 2), [0.6, 0.8]);
    assert_eq!(of(&[0.0, 0.0, 1.0], 2), [0.0, 0.0]);
}

#[test]
fn both_encodings_hold_the_same_numbers() {
    let embeddings = Embeddings {
        vectors: vec![vec![1.0, -0.5], vec![0.25, 0.0]],
        prompt_tokens: 7,
    };
    let float = serde_json::to_value(answer("m", &embeddings, Encoding::Float)).unwrap();
    assert_eq!(
        float["data"][1],
        json!({"object": "embedding", "index": 1, "embedding": [0.25, 0.0]})
    );
    assert_eq!(
        float["usage"],
        json!({"prompt_tokens": 7, "total_tokens": 7})
    );
    let base64 = serde_json::to_value(answer("m", &embeddings, Encoding::Base64)).unwrap();
    let bytes = BASE64_STANDARD
        .decode(base64["data"][0]["embedding"].as_str().unwrap())
        .unwrap();
    assert_eq!(bytes, [0, 0, 0x80, 0x3f, 0, 0, 0, 0xbf]);
}

#[test]
fn answers_that_nobody_reads_fill_a_bounded_memory_and_give_it_back() {
    let answers = Budget::mebibytes(1);
    let embeddings = Embeddings {
        vectors: vec![vec![0.062_5; 384]; 256],
        prompt_tokens: 256,
    };
    let respond = || respond(&answers, "m", &embeddings, Encoding::Float);
    let unread = respond().unwrap();
    assert_eq!(unread.headers()["content-type"], "application/json");
    assert_eq!(
        respond().err().unwrap().named(),
        (503, Some("overloaded"), None)
    );
    drop(unread);
    drop(respond().unwrap());
}
