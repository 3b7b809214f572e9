use serde_json::{Value, json};

use super::*;

fn parsed(body: &Value) -> Result<RerankRequest, ApiError> {
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
fn documents_are_texts_or_objects_with_one() {
    let body = json!({"model": "m", "query": "q", "documents": ["a", {"id": [1], "text": "b"}], "user": 1});
    let request = parsed(&body).ok().unwrap();
    assert_eq!(request.query.expose(), "q");
    let texts: Vec<_> = request.documents.iter().map(Text::expose).collect();
    assert_eq!(texts, ["a", "b"]);
    assert_eq!(
        (request.top, request.with_text, request.raw),
        (2, false, false)
    );
    let body = json!({"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 9, "return_documents": true,
                      "raw_scores": true, "truncate": false});
    let request = parsed(&body).ok().unwrap();
    assert_eq!(
        (request.top, request.with_text, request.raw),
        (9, true, true)
    );
}

#[test]
fn what_cannot_be_ranked_is_refused_by_name() {
    let with = |field: &str, value: Value| {
        let mut body = json!({"model": "m", "query": "q", "documents": ["a"]});
        body[field] = value;
        body
    };
    let cases = [
        (json!({"query": "q", "documents": ["a"]}), "model"),
        (json!({"model": "m", "documents": ["a"]}), "query"),
        (json!({"model": "m", "query": "q"}), "documents"),
        (with("query", json!("")), "query"),
        (with("query", json!(["q"])), "query"),
        (with("documents", json!([])), "documents"),
        (with("documents", json!("a")), "documents"),
        (with("documents", json!(["a", ""])), "documents"),
        (with("documents", json!([{"text": ""}])), "documents"),
        (with("documents", json!([{"title": "a"}])), "documents"),
        (with("documents", json!([{"text": 1}])), "documents"),
        (with("documents", json!([5])), "documents"),
        (with("documents", json!(["a", "b", "c", "d"])), "documents"),
        (with("documents", json!(vec!["x"; 3000])), "documents"),
        (with("top_n", json!(0)), "top_n"),
        (with("top_n", json!(-1)), "top_n"),
        (with("return_documents", json!("yes")), "return_documents"),
        (with("raw_scores", json!(1)), "raw_scores"),
        (with("truncate", json!(true)), "truncate"),
        (with("max_chunks_per_doc", json!(3)), "max_chunks_per_doc"),
        (with("rank_fields", json!(["title"])), "rank_fields"),
    ];
    for (body, param) in cases {
        assert_eq!(refused(&body), (400, param.to_owned()), "{body}");
    }
}

fn shown(answer: &Answer<'_>) -> Value {
    serde_json::to_value(answer).unwrap()
}

#[test]
fn the_most_relevant_come_first_and_only_as_many_as_wanted() {
    let ranking = Ranking {
        scores: vec![-1.0, 3.0, 0.0, 3.0, 90.0],
        prompt_tokens: 7,
    };
    let answer = shown(&Answer::new("m", &ranking, None, 4, false));
    let results = answer["results"].as_array().unwrap();
    let order: Vec<_> = results
        .iter()
        .map(|result| result["index"].as_u64().unwrap())
        .collect();
    assert_eq!(order, [4, 1, 3, 2], "of equals the first");
    assert_eq!(results[3]["relevance_score"], json!(0.5));
    let high = results[1]["relevance_score"].as_f64().unwrap();
    assert!((high - 0.952_574).abs() < 1e-5);
    assert!(
        results
            .iter()
            .all(|result| result.get("document").is_none())
    );
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 7, "total_tokens": 7})
    );
    let raw = shown(&Answer::new("m", &ranking, None, 1, true));
    assert_eq!(
        raw["results"],
        json!([{"index": 4, "relevance_score": 90.0}])
    );
}

#[test]
fn documents_come_back_if_asked_for_and_the_answer_is_counted() {
    let documents = [Text::new("\u{1}\"a".repeat(1000)), Text::new("b".into())];
    let ranking = Ranking {
        scores: vec![0.0, 1.0],
        prompt_tokens: 7,
    };
    let answer = Answer::new("m", &ranking, Some(&documents), 2, true);
    assert_eq!(
        shown(&answer)["results"][0]["document"],
        json!({"text": "b"})
    );
    let answers = Budget::mebibytes(1);
    let held: Vec<_> = std::iter::from_fn(|| respond(&answers, &answer).ok())
        .take(1000)
        .collect();
    assert!(held.len() < 1000, "the memory for answers has an end");
    drop(held);
    assert!(respond(&answers, &answer).is_ok());
}
