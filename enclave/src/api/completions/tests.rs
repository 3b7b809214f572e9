use std::pin::pin;

use engine::{ChatEvent, FinishReason, Input, Piece, Text, TokenChance, TokenLogprob, Usage};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::request::Request;
use super::*;
use crate::api::server_sent::stream;
use crate::config::Limits;

fn parsed(body: &Value) -> Result<Request, ApiError> {
    object::parse::<Fields>(body.to_string().as_bytes())?.check(&Limits::default())
}

fn with(name: &str, value: Value) -> Value {
    let mut body = json!({"model": "m", "prompt": "hi"});
    body[name] = value;
    body
}

#[test]
fn prompts_are_text_or_tokens_one_or_several() {
    let of = |prompt: Value| parsed(&with("prompt", prompt)).ok().unwrap().prompts;
    let text = of(json!("hi"));
    assert!(matches!(&text[0].input, Input::Text(text) if text.expose() == "hi"));
    assert_eq!((text[0].max_tokens, text[0].choices), (Some(16), 1));
    assert_eq!(of(json!(["a", "b", "c"])).len(), 3);
    let tokens = of(json!([5, 6]));
    assert!(matches!(&tokens[0].input, Input::Tokens(tokens) if **tokens == [5, 6]));
    assert_eq!(of(json!([[5], [6, 7]])).len(), 2);
}

#[test]
fn every_prompt_is_asked_about_in_the_same_way() {
    let body = json!({
        "model": "m", "prompt": ["a", "b"], "n": 2, "max_tokens": 5, "temperature": 0.5, "top_p": 0.5, "top_k": 3, "min_p": 0.1,
        "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 2, "logit_bias": {"1": 2}, "seed": 4,
        "stop": "x", "logprobs": 5, "stream": true, "stream_options": {"include_usage": true},
    });
    let request = parsed(&body).ok().unwrap();
    assert!(request.stream && request.include_usage && request.logprobs);
    assert_eq!(request.choices, 2);
    for chat in &request.prompts {
        assert_eq!(
            (chat.choices, chat.max_tokens, chat.seed, chat.logprobs),
            (2, Some(5), Some(4), Some(5))
        );
        assert_eq!(
            (chat.temperature, chat.top_p, chat.top_k, chat.min_p),
            (0.5, 0.5, 3, 0.1)
        );
        assert_eq!(
            (
                chat.presence_penalty,
                chat.frequency_penalty,
                chat.repetition_penalty
            ),
            (1.0, -1.0, 2.0)
        );
        assert_eq!(
            (chat.logit_bias.as_slice(), chat.stop[0].expose()),
            (&[(1, 2.0)][..], "x")
        );
    }
}

#[test]
fn what_is_not_done_or_cannot_be_used_is_refused_by_name() {
    for (name, value) in [
        ("prompt", json!([])),
        ("prompt", json!("")),
        ("prompt", json!(["a", ""])),
        ("prompt", json!([[]])),
        ("prompt", json!(["a", 5])),
        ("prompt", json!(5)),
        ("prompt", json!(vec!["x"; 9])),
        ("n", json!(9)),
        ("logprobs", json!(6)),
        ("logprobs", json!(true)),
        ("max_tokens", json!(0)),
        ("echo", json!(true)),
        ("suffix", json!("x")),
        ("best_of", json!(2)),
        ("response_format", json!({"type": "json_object"})),
        ("stream_options", json!({})),
    ] {
        let error = parsed(&with(name, value)).err().unwrap();
        let (status, _, param) = error.named();
        assert_eq!((status, param), (400, Some(name)));
    }
    let mut many = with("prompt", json!(["a", "b", "c"]));
    many["n"] = json!(3);
    assert_eq!(parsed(&many).err().unwrap().named().2, Some("n"));
    let missing = parsed(&json!({"model": "m"})).err().unwrap();
    assert_eq!(missing.named().1, Some("missing_required_parameter"));
    for (name, value) in [
        ("echo", json!(false)),
        ("suffix", json!(null)),
        ("best_of", json!(1)),
        ("user", json!("x")),
    ] {
        assert!(parsed(&with(name, value)).is_ok());
    }
}

fn head(logprobs: bool) -> Head {
    let mut head = Head::named(
        "cmpl-abc".to_owned(),
        1_800_000_000,
        "demo",
        &"5f".repeat(32),
    );
    head.logprobs = logprobs;
    head
}

/// One answer with a text and the chances of its bytes.
async fn events(text: &str) -> mpsc::Receiver<ChatEvent> {
    let (sender, receiver) = mpsc::channel(8);
    let chance = |bytes: &[u8]| TokenChance {
        bytes: bytes.to_vec().into(),
        logprob: -0.5,
    };
    let logprobs = text.as_bytes().iter().map(|byte| TokenLogprob {
        token: chance(&[*byte]),
        top: vec![chance(b"x")],
    });
    let events = [
        ChatEvent::Delta(Piece {
            choice: 0,
            text: Text::new(text.to_owned()),
            logprobs: logprobs.collect(),
        }),
        ChatEvent::Ended {
            choice: 0,
            finish_reason: FinishReason::Length,
        },
        ChatEvent::Done {
            usage: Usage {
                prompt_tokens: 3,
                completion_tokens: 2,
            },
        },
    ];
    for event in events {
        sender.send(event).await.ok().unwrap();
    }
    receiver
}

fn failed(error: engine::EngineError) -> ApiError {
    ApiError::engine(&error, PARAM)
}

#[tokio::test]
async fn completions_of_several_prompts_are_one_answer() {
    let mut wholes = Vec::new();
    for text in ["ab", "é"] {
        wholes.push(
            Whole::read(1, &mut events(text).await, failed)
                .await
                .ok()
                .unwrap(),
        );
    }
    let head = head(true);
    let answer = serde_json::to_value(Completion::new(&head, &wholes)).unwrap();
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10})
    );
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(
        (&choices[0]["text"], &choices[1]["text"]),
        (&json!("ab"), &json!("é"))
    );
    assert_eq!(
        (&choices[1]["index"], &choices[1]["finish_reason"]),
        (&json!(1), &json!("length"))
    );
    assert_eq!(choices[0]["logprobs"]["text_offset"], json!([0, 1]));
    assert_eq!(
        choices[0]["logprobs"]["top_logprobs"][0],
        json!({"x": -0.5, "a": -0.5})
    );
    assert_eq!(
        choices[1]["logprobs"]["tokens"],
        json!(["bytes:\\xc3", "bytes:\\xa9"])
    );
}

#[tokio::test]
async fn a_stream_of_several_prompts_tells_them_apart_and_ends_once() {
    let mut sources = Sources::new(vec![events("a").await, events("b").await]);
    let first = sources.next().await;
    let chunks = Chunks::new(head(false), 1, true);
    let stream = pin!(stream(chunks, first, sources));
    let bytes: Vec<u8> = stream.map(|chunk| chunk.unwrap().to_vec()).concat().await;
    let text = String::from_utf8(bytes).unwrap();
    let mut said: Vec<_> = text.trim_end().split("\n\n").collect();
    assert_eq!(said.pop(), Some("data: [DONE]"));
    let chunks: Vec<Value> = said
        .iter()
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    let of = |index: usize| {
        let choices = chunks.iter().map(|chunk| &chunk["choices"][0]);
        let of = choices.filter(|choice| choice["index"] == index);
        of.map(|choice| choice["text"].as_str().unwrap())
            .collect::<String>()
    };
    assert_eq!((of(0), of(1)), ("a".to_owned(), "b".to_owned()));
    let last = chunks.last().unwrap();
    assert_eq!(
        (&last["choices"], &last["usage"]["total_tokens"]),
        (&json!([]), &json!(10))
    );
    assert_eq!(chunks[0]["usage"], Value::Null);
}

#[tokio::test]
async fn an_engine_that_is_gone_ends_the_stream_with_an_error() {
    let (sender, receiver) = mpsc::channel(1);
    drop(sender);
    let sources = Sources::new(vec![events("a").await, receiver]);
    let chunks = Chunks::new(head(false), 1, false);
    let first = ChatEvent::Delta(Piece {
        choice: 0,
        text: Text::new("x".to_owned()),
        logprobs: Vec::new(),
    });
    let stream = pin!(stream(chunks, (1, first), sources));
    let bytes: Vec<u8> = stream.map(|chunk| chunk.unwrap().to_vec()).concat().await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("internal_error") && !text.contains("[DONE]"));
}
