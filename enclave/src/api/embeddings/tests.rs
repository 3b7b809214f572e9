use serde_json::{Value, json};

use super::*;

fn parsed(body: &Value) -> Result<EmbeddingRequest, ApiError> {
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
    assert_eq!(one.input[0].expose(), "hi");
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
        (json!({"model": "m", "input": [1, 2, 3]}), "input"),
        (json!({"model": "m", "input": [[1, 2], [3]]}), "input"),
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
fn only_the_models_own_length_may_be_asked_for() {
    let request = |wanted: Value| {
        parsed(&json!({"model": "m", "input": "x", "dimensions": wanted}))
            .ok()
            .unwrap()
    };
    assert!(dimensions(&request(json!(384)), Some(384)).is_ok());
    assert!(dimensions(&request(json!(null)), Some(384)).is_ok());
    let error = dimensions(&request(json!(256)), Some(384)).unwrap_err();
    assert_eq!(
        error.named(),
        (400, Some("unsupported_parameter"), Some("dimensions"))
    );
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
