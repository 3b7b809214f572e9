use std::pin::pin;

use engine::{
    ChatEvent, EngineError, FinishReason, Input, Message, Piece, Role, Text, TokenChance,
    TokenLogprob, Usage,
};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::*;
use crate::api::generation::Request;
use crate::api::server_sent::stream;
use crate::config::Limits;

fn parsed(body: &Value) -> Result<Request, ApiError> {
    object::parse::<Fields>(body.to_string().as_bytes())?.check(&Limits::default())
}

fn messages(request: &Request) -> &[Message] {
    match &request.chat.input {
        Input::Messages(messages) => messages,
        _ => panic!("a chat request is made of messages"),
    }
}

/// A complete request with one more field.
fn with(name: &str, value: Value) -> Value {
    let mut body = json!({"model": "demo", "messages": [{"role": "user", "content": "hi"}]});
    body[name] = value;
    body
}

fn ok(body: Value) -> Request {
    match parsed(&body) {
        Ok(request) => request,
        Err(error) => panic!("{body}: {error:?}"),
    }
}

fn refused(body: &Value) -> (u16, Option<&'static str>, String) {
    match parsed(body) {
        Ok(_) => panic!("accepted {body}"),
        Err(error) => {
            let (status, code, param) = error.named();
            (status, code, param.unwrap_or_default().to_owned())
        }
    }
}

#[test]
fn defaults_are_those_of_openai() {
    let request = ok(json!({"model": "demo", "messages": [{"role": "user", "content": "hi"}]}));
    assert_eq!(request.model, "demo");
    assert_eq!((request.chat.temperature, request.chat.top_p), (1.0, 1.0));
    assert_eq!((request.chat.max_tokens, request.chat.seed), (None, None));
    assert!(request.chat.stop.is_empty() && !request.stream && !request.include_usage);
}

#[test]
fn honoured_fields_reach_the_engine() {
    assert_eq!(ok(with("max_tokens", json!(7))).chat.max_tokens, Some(7));
    assert_eq!(
        ok(with("max_completion_tokens", json!(8))).chat.max_tokens,
        Some(8)
    );
    assert_eq!(ok(with("temperature", json!(0))).chat.temperature, 0.0);
    assert_eq!(ok(with("temperature", json!(2.0))).chat.temperature, 2.0);
    assert_eq!(ok(with("top_p", json!(0.5))).chat.top_p, 0.5);
    assert_eq!(ok(with("seed", json!(42))).chat.seed, Some(42));
    assert_eq!(ok(with("seed", json!(-1))).chat.seed, Some(u64::MAX));
    assert_eq!(ok(with("stop", json!("END"))).chat.stop[0].expose(), "END");
    assert_eq!(
        ok(with("stop", json!(["a", "b", "c", "d"])))
            .chat
            .stop
            .len(),
        4
    );
    assert_eq!(ok(with("n", json!(8))).chat.choices, 8);
    assert_eq!(ok(with("top_k", json!(40))).chat.top_k, 40);
    assert_eq!(ok(with("top_k", json!(-1))).chat.top_k, 0);
    assert_eq!(ok(with("min_p", json!(0.25))).chat.min_p, 0.25);
    let penalized = ok(with("presence_penalty", json!(-2))).chat;
    assert_eq!(penalized.presence_penalty, -2.0);
    let penalized = ok(with("frequency_penalty", json!(1.5))).chat;
    assert_eq!(penalized.frequency_penalty, 1.5);
    let penalized = ok(with("repetition_penalty", json!(1.25))).chat;
    assert_eq!(penalized.repetition_penalty, 1.25);
    let biased = ok(with("logit_bias", json!({"5": -100, "70000": 1.5}))).chat;
    assert_eq!(biased.logit_bias, [(5, -100.0), (70_000, 1.5)]);
    assert_eq!(ok(with("logprobs", json!(true))).chat.logprobs, Some(0));
    let mut body = with("logprobs", json!(true));
    body["top_logprobs"] = json!(20);
    assert_eq!(ok(body).chat.logprobs, Some(20));
    assert!(ok(with("stream", json!(true))).stream);
    let mut body = with("stream", json!(true));
    body["stream_options"] = json!({"include_usage": true, "later": 1});
    assert!(ok(body).include_usage);
}

#[test]
fn messages_become_the_engines_messages() {
    let request = ok(json!({"model": "demo", "messages": [
        {"role": "developer", "content": "be brief"},
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "é\n\"", "name": "ignored"},
        {"role": "assistant", "content": "", "tool_calls": [], "refusal": null},
    ]}));
    let messages: Vec<_> = messages(&request)
        .iter()
        .map(|message| (message.role, message.content.expose()))
        .collect();
    let expected = [
        (Role::System, "be brief"),
        (Role::System, "ab"),
        (Role::User, "é\n\""),
        (Role::Assistant, ""),
    ];
    assert_eq!(messages, expected);
}

#[test]
fn what_would_change_the_answer_is_refused_by_name() {
    let cases = [
        ("best_of", json!(3)),
        ("tool_choice", json!({"type": "function"})),
        ("functions", json!([{}])),
        ("function_call", json!({"name": "f"})),
        ("response_format", json!({"type": "grammar"})),
        ("response_format", json!({})),
        ("response_format", json!("text")),
        ("tool_choice", json!("any")),
        ("tool_choice", json!({"type": "allowed_tools"})),
        ("modalities", json!(["text", "audio"])),
        ("audio", json!({"voice": "x"})),
        ("reasoning_effort", json!("high")),
        ("verbosity", json!("low")),
        ("web_search_options", json!({"a": 1})),
        ("min_tokens", json!(5)),
        ("ignore_eos", json!(true)),
        ("guided_json", json!({"type": "object"})),
        ("guided_regex", json!("a+")),
        ("structured_outputs", json!({"json": {}})),
        ("echo", json!(true)),
    ];
    for (name, value) in cases {
        let body = with(name, value);
        assert_eq!(
            refused(&body),
            (400, Some("unsupported_parameter"), name.to_owned()),
            "{body}"
        );
    }
}

#[test]
fn what_asks_for_nothing_or_is_unknown_is_ignored() {
    let cases = [
        ("n", json!(1)),
        ("n", json!(null)),
        ("tools", json!([])),
        ("tools", json!(null)),
        ("tool_choice", json!("none")),
        ("tool_choice", json!("auto")),
        ("response_format", json!({"type": "text"})),
        ("response_format", json!(null)),
        ("logprobs", json!(false)),
        ("top_logprobs", json!(0)),
        ("logit_bias", json!({})),
        ("presence_penalty", json!(0.0)),
        ("frequency_penalty", json!(0)),
        ("modalities", json!(["text"])),
        ("reasoning_effort", json!(null)),
        ("verbosity", json!("medium")),
        ("top_k", json!(-1)),
        ("repetition_penalty", json!(1)),
        ("temperature", json!(null)),
        ("stop", json!(null)),
        ("seed", json!(null)),
        ("stream", json!(null)),
        ("user", json!("someone")),
        ("metadata", json!({"a": "b"})),
        ("service_tier", json!("auto")),
        ("store", json!(true)),
        ("parallel_tool_calls", json!(true)),
        ("prompt_cache_key", json!("k")),
        ("a_field_of_tomorrow", json!({"deep": [1, 2, {"x": null}]})),
    ];
    for (name, value) in cases {
        ok(with(name, value));
    }
}

#[test]
fn a_value_that_cannot_be_used_is_named() {
    let cases = [
        ("temperature", json!(2.1), "temperature"),
        ("temperature", json!(-0.1), "temperature"),
        ("temperature", json!("warm"), "temperature"),
        ("top_p", json!(1.5), "top_p"),
        ("max_tokens", json!(0), "max_tokens"),
        ("max_tokens", json!(-1), "max_tokens"),
        ("max_tokens", json!(1.5), "max_tokens"),
        ("max_tokens", json!(5_000_000_000_u64), "max_tokens"),
        ("max_completion_tokens", json!(0), "max_completion_tokens"),
        ("seed", json!(1.5), "seed"),
        ("seed", json!("x"), "seed"),
        ("stop", json!(["a", "b", "c", "d", "e"]), "stop"),
        ("stop", json!(""), "stop"),
        ("stop", json!("x".repeat(257)), "stop"),
        ("stop", json!([1]), "stop"),
        ("stream", json!("yes"), "stream"),
        (
            "stream_options",
            json!({"include_usage": true}),
            "stream_options",
        ),
        ("n", json!("two"), "n"),
        ("n", json!(0), "n"),
        ("n", json!(9), "n"),
        ("n", json!(-1), "n"),
        ("top_k", json!(-2), "top_k"),
        ("top_k", json!(1.5), "top_k"),
        ("min_p", json!(1.1), "min_p"),
        ("min_p", json!(-0.1), "min_p"),
        ("presence_penalty", json!(2.1), "presence_penalty"),
        ("frequency_penalty", json!(-2.1), "frequency_penalty"),
        ("repetition_penalty", json!(0), "repetition_penalty"),
        ("repetition_penalty", json!(11), "repetition_penalty"),
        ("logit_bias", json!({"5": 101}), "logit_bias"),
        ("logit_bias", json!({"five": 1}), "logit_bias"),
        ("logit_bias", json!({"-5": 1}), "logit_bias"),
        ("logit_bias", json!({"5": "1"}), "logit_bias"),
        ("logit_bias", json!([5]), "logit_bias"),
        ("logprobs", json!(2), "logprobs"),
        ("top_logprobs", json!(21), "top_logprobs"),
        ("top_logprobs", json!(-1), "top_logprobs"),
        ("top_logprobs", json!(3), "top_logprobs"),
        ("messages", json!([]), "messages"),
        ("messages", json!("hi"), "messages"),
        ("messages", json!([{"content": "hi"}]), "messages"),
        ("messages", json!([{"role": "user"}]), "messages[0].content"),
        (
            "messages",
            json!([{"role": "user", "content": null}]),
            "messages[0].content",
        ),
        (
            "messages",
            json!([{"role": "user", "content": []}]),
            "messages[0].content",
        ),
        (
            "messages",
            json!([{"role": "user", "content": 5}]),
            "messages",
        ),
        ("model", json!(5), "model"),
        ("tools", json!({"type": "function"}), "tools"),
        ("parallel_tool_calls", json!("no"), "parallel_tool_calls"),
        (
            "messages",
            json!([{"role": "tool", "content": "x"}]),
            "messages[0].tool_call_id",
        ),
        (
            "messages",
            json!([{"role": "tool", "content": "x", "tool_call_id": "unknown"}]),
            "messages[0].tool_call_id",
        ),
        (
            "messages",
            json!([{"role": "assistant", "content": null, "tool_calls": []}]),
            "messages[0].content",
        ),
        (
            "messages",
            json!([{"role": "assistant", "tool_calls": [{"id": "a"}]}]),
            "messages",
        ),
    ];
    for (name, value, param) in cases {
        let body = with(name, value);
        assert_eq!(
            refused(&body),
            (400, Some("invalid_value"), param.to_owned()),
            "{body}"
        );
    }
    let mut both = with("max_tokens", json!(5));
    both["max_completion_tokens"] = json!(6);
    assert_eq!(refused(&both).2, "max_completion_tokens");
    both["max_completion_tokens"] = json!(5);
    assert_eq!(ok(both).chat.max_tokens, Some(5));
}

#[test]
fn a_message_that_is_not_text_is_refused_by_its_place() {
    let image = json!([{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:"}}]);
    let cases = [
        (
            json!([{"role": "user", "content": image}]),
            "messages[0].content[1].type",
        ),
        (
            json!([{"role": "user", "content": "x", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}]),
            "messages[0].tool_calls",
        ),
        (
            json!([{"role": "assistant", "tool_calls": [{"id": "a", "type": "custom", "function": {"name": "f", "arguments": "{}"}}]}]),
            "messages[0].tool_calls[0].type",
        ),
        (
            json!([{"role": "user", "content": "x"}, {"role": "function", "content": "x"}]),
            "messages[1].role",
        ),
    ];
    for (messages, param) in cases {
        let body = with("messages", messages);
        assert_eq!(
            refused(&body),
            (400, Some("unsupported_parameter"), param.to_owned()),
            "{body}"
        );
    }
}

#[test]
fn what_is_missing_is_named() {
    let no_model = json!({"messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(
        refused(&no_model),
        (400, Some("missing_required_parameter"), "model".to_owned())
    );
    assert_eq!(refused(&json!({"model": "demo"})).2, "messages");
}

#[test]
fn each_limit_of_the_configuration_refuses_by_name() {
    let limits = Limits {
        max_messages: 2,
        max_choices: 2,
        max_logit_bias: 1,
        max_stop_strings: 1,
        ..Limits::default()
    };
    let one = json!({"role": "user", "content": "x"});
    for (name, fits, too_much) in [
        ("messages", json!([one, one]), json!([one, one, one])),
        ("n", json!(2), json!(3)),
        ("logit_bias", json!({"1": 1}), json!({"1": 1, "2": 1})),
        ("stop", json!(["a"]), json!(["a", "b"])),
    ] {
        let of = |value: Value| {
            let body = with(name, value).to_string();
            let fields = object::parse::<Fields>(body.as_bytes()).ok().unwrap();
            fields.check(&limits)
        };
        assert!(of(fits).is_ok(), "{name}");
        let error = of(too_much).err().unwrap();
        assert_eq!(error.named(), (400, Some("invalid_value"), Some(name)));
    }
    let entries: serde_json::Map<_, _> = (0..10_000)
        .map(|token| (token.to_string(), json!(1)))
        .collect();
    assert_eq!(refused(&with("logit_bias", entries.into())).2, "logit_bias");
}

#[test]
fn the_policy_sees_what_all_choices_may_make() {
    let limits = Limits::default();
    let of = |body: Value| limits.tokens(&ok(body).chat);
    assert_eq!(of(with("max_tokens", json!(100))), 100);
    assert_eq!(of(with("max_tokens", json!(1_000_000))), 4096);
    assert_eq!(of(with("n", json!(3))), 3 * 4096);
    let mut body = with("n", json!(3));
    body["max_tokens"] = json!(10);
    assert_eq!(of(body), 30);
}

const USAGE: Usage = Usage {
    prompt_tokens: 3,
    completion_tokens: 2,
};

fn head() -> Head {
    Head::named(
        "chatcmpl-abc".to_owned(),
        1_800_000_000,
        "demo",
        &"5f".repeat(32),
    )
}

async fn streamed(events: Vec<ChatEvent>, with_usage: bool) -> Vec<String> {
    streamed_as(head(), 1, events, with_usage).await
}

async fn streamed_as(
    head: Head,
    choices: u32,
    events: Vec<ChatEvent>,
    with_usage: bool,
) -> Vec<String> {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let mut events = events.into_iter();
    let first = events.next().unwrap();
    for event in events {
        sender.send(event).await.ok().unwrap();
    }
    drop(sender);
    let chunks = Chunks::new(head, choices, with_usage);
    let sources = Sources::new(vec![receiver]);
    let stream = pin!(stream(chunks, (0, first), sources));
    let bytes: Vec<u8> = stream.map(|chunk| chunk.unwrap().to_vec()).concat().await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.ends_with("\n\n"));
    text.trim_end()
        .split("\n\n")
        .map(|event| event.strip_prefix("data: ").unwrap().to_owned())
        .collect()
}

fn delta(text: &str) -> ChatEvent {
    delta_of(0, text)
}

fn delta_of(choice: u32, text: &str) -> ChatEvent {
    ChatEvent::Delta(Piece {
        choice,
        text: Text::new(text.to_owned()),
        logprobs: Vec::new(),
    })
}

fn ended(choice: u32) -> ChatEvent {
    ChatEvent::Ended {
        choice,
        finish_reason: FinishReason::Stop,
    }
}

fn done() -> ChatEvent {
    ChatEvent::Done { usage: USAGE }
}

fn logprob() -> TokenLogprob {
    let chance = |bytes: &[u8], logprob| TokenChance {
        bytes: bytes.to_vec().into(),
        logprob,
    };
    TokenLogprob {
        token: chance(b"\xc3", -0.5),
        top: vec![chance(b"H", -0.25), chance(b"\xc3", -0.5)],
    }
}

#[tokio::test]
async fn a_stream_is_role_text_reason_done() {
    let events = streamed(vec![delta("Hel\n"), delta("lo"), ended(0), done()], false).await;
    assert_eq!(events.len(), 5);
    assert_eq!(events[4], "[DONE]");
    let chunks: Vec<Value> = events[..4]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(
            (&chunk["id"], &chunk["model"]),
            (&json!("chatcmpl-abc"), &json!("demo"))
        );
        assert_eq!(chunk["system_fingerprint"], "fp_5f5f5f5f5f5f");
        assert!(chunk.get("usage").is_none());
    }
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    assert_eq!(
        chunks[1]["choices"][0]["delta"],
        json!({"content": "Hel\n"})
    );
    assert_eq!(chunks[2]["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(chunks[3]["choices"][0]["delta"], json!({}));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_stream_that_was_asked_to_count_ends_with_the_counts() {
    let events = streamed(vec![delta("x"), ended(0), done()], true).await;
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    assert_eq!(chunks[0]["usage"], Value::Null);
    assert!(chunks[0].as_object().unwrap().contains_key("usage"));
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(
        last["usage"],
        json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
    );
}

#[tokio::test]
async fn an_answer_without_text_is_still_whole() {
    let events = streamed(vec![ended(0), done()], false).await;
    assert_eq!(events.len(), 3);
    assert_eq!(events[2], "[DONE]");
}

#[tokio::test]
async fn a_stream_that_fails_says_so_and_is_not_done() {
    for events in [
        vec![delta("x"), ChatEvent::Failed(EngineError::Internal)],
        vec![delta("x")],
    ] {
        let events = streamed(events, false).await;
        let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], "internal_error");
        assert!(!events.contains(&"[DONE]".to_owned()));
    }
}

#[tokio::test]
async fn dropping_a_stream_drops_the_engines_receiver() {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let chunks = Chunks::new(head(), 1, false);
    let stream = stream(chunks, (0, delta("x")), Sources::new(vec![receiver]));
    assert!(!sender.is_closed());
    drop(stream);
    assert!(sender.is_closed());
}

#[tokio::test]
async fn a_whole_answer_is_all_its_parts() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    for event in [delta("Hel"), delta("lo"), ended(0), done()] {
        sender.send(event).await.ok().unwrap();
    }
    let failed = |error: EngineError| ApiError::engine(&error, "messages");
    let whole = Whole::read(1, &mut receiver, failed).await.ok().unwrap();
    let head = head();
    let answer = serde_json::to_value(Completion::new(&head, &whole)).unwrap();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(
        answer["choices"][0]["message"],
        json!({"role": "assistant", "content": "Hello", "refusal": null})
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["total_tokens"], 5);
    drop(sender);
    let cut = Whole::read(1, &mut receiver, failed).await;
    assert_eq!(cut.err().unwrap().named().0, 500);
}

#[tokio::test]
async fn choices_are_told_apart_by_their_index() {
    let events = || {
        vec![
            delta_of(1, "b"),
            delta_of(0, "a"),
            ended(1),
            delta_of(0, "A"),
            ended(0),
            done(),
        ]
    };
    let said = streamed_as(head(), 2, events(), true).await;
    let chunks: Vec<Value> = said[..said.len() - 2]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let told: Vec<_> = chunks
        .iter()
        .map(|chunk| {
            let choice = &chunk["choices"][0];
            let text = choice["delta"]["content"].as_str().unwrap_or("-");
            (choice["index"].as_u64().unwrap(), text.to_owned())
        })
        .collect();
    let expected = [
        (0, ""),
        (1, ""),
        (1, "b"),
        (0, "a"),
        (1, "-"),
        (0, "A"),
        (0, "-"),
    ];
    assert_eq!(told, expected.map(|(index, text)| (index, text.to_owned())));

    let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    for event in events() {
        sender.send(event).await.ok().unwrap();
    }
    let failed = |error: EngineError| ApiError::engine(&error, "messages");
    let whole = Whole::read(2, &mut receiver, failed).await.ok().unwrap();
    let head = head();
    let answer = serde_json::to_value(Completion::new(&head, &whole)).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "aA");
    assert_eq!(answer["choices"][1]["message"]["content"], "b");
    assert_eq!(answer["choices"][1]["index"], 1);
    assert_eq!(answer["usage"]["total_tokens"], 5);
}

#[tokio::test]
async fn logprobs_have_openais_shape_if_they_were_asked_for() {
    let events = || {
        let mut piece = delta("x");
        if let ChatEvent::Delta(piece) = &mut piece {
            piece.logprobs.push(logprob());
        }
        vec![piece, ended(0), done()]
    };
    let mut asked = head();
    asked.logprobs = true;
    let said = streamed_as(asked, 1, events(), false).await;
    let chunk: Value = serde_json::from_str(&said[1]).unwrap();
    assert_eq!(
        chunk["choices"][0]["logprobs"],
        json!({"refusal": null, "content": [{"token": "\u{fffd}", "logprob": -0.5, "bytes": [195], "top_logprobs": [
            {"token": "H", "logprob": -0.25, "bytes": [72]},
            {"token": "\u{fffd}", "logprob": -0.5, "bytes": [195]},
        ]}]})
    );
    let silent = streamed(events(), false).await;
    let chunk: Value = serde_json::from_str(&silent[1]).unwrap();
    assert_eq!(chunk["choices"][0]["logprobs"], Value::Null);
}

#[test]
fn a_format_reaches_the_engine() {
    use engine::Format;
    let of = |value: Value| ok(with("response_format", value)).chat.format;
    assert!(matches!(of(json!({"type": "text"})), Format::Text));
    assert!(matches!(
        of(json!({"type": "json_object"})),
        Format::JsonObject
    ));
    let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
    let given = json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}});
    let Format::JsonSchema(read) = of(given) else {
        panic!("a schema");
    };
    // In the order in which it was written.
    assert_eq!(read.to_string(), schema.to_string());
    for given in [json!({}), json!(null), json!({"name": "x"})] {
        let body = with(
            "response_format",
            json!({"type": "json_schema", "json_schema": given}),
        );
        assert_eq!(
            refused(&body),
            (
                400,
                Some("missing_required_parameter"),
                "response_format.json_schema.schema".to_owned()
            )
        );
    }
}

fn function(function: Value) -> Value {
    json!({"type": "function", "function": function})
}

#[test]
fn tools_and_calls_reach_the_engine() {
    use engine::ToolChoice;
    let mut body = json!({"model": "demo", "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "a1", "type": "function", "function": {"name": "now", "arguments": " {\"zone\": 1}"}},
        ]},
        {"role": "tool", "tool_call_id": "a1", "content": [{"type": "text", "text": "noon"}]},
    ]});
    body["tools"] = json!([
        function(json!({"name": "now"})),
        function(json!({"name": "later", "parameters": {"type": "object"}}))
    ]);
    let request = ok(body.clone());
    let [_, assistant, tool] = messages(&request) else {
        panic!("three messages");
    };
    assert_eq!(
        (assistant.role, assistant.content.expose()),
        (Role::Assistant, "")
    );
    assert_eq!(assistant.tool_calls[0].id, "a1");
    assert_eq!(assistant.tool_calls[0].arguments.expose(), " {\"zone\": 1}");
    assert_eq!((tool.role, tool.content.expose()), (Role::Tool, "noon"));
    assert_eq!(tool.tool_call_id.as_ref().map(Text::expose), Some("a1"));
    let tools = &request.chat.tools.0;
    assert_eq!(
        (tools[0].name.as_str(), tools[1].name.as_str()),
        ("now", "later")
    );
    assert_eq!(
        tools[0].parameters["additionalProperties"], false,
        "none are none"
    );
    assert_eq!(tools[1].definition, body["tools"][1]);
    assert!(
        request.chat.parallel_tool_calls && matches!(request.chat.tool_choice, ToolChoice::Auto)
    );
    for (choice, expected) in [
        (json!("none"), "none"),
        (json!("required"), "required"),
        (function(json!({"name": "later"})), "later"),
    ] {
        body["tool_choice"] = choice;
        let read = match ok(body.clone()).chat.tool_choice {
            ToolChoice::None => "none".to_owned(),
            ToolChoice::Auto => "auto".to_owned(),
            ToolChoice::Required => "required".to_owned(),
            ToolChoice::Named(name) => name,
        };
        assert_eq!(read, expected);
    }
}

#[test]
fn what_is_wrong_with_a_tool_is_named() {
    for (tool, param) in [
        (json!(5), "tools[0].type"),
        (json!({"type": "custom"}), "tools[0].type"),
        (json!({"type": "function"}), "tools[0].function.name"),
        (function(json!({"name": ""})), "tools[0].function.name"),
        (function(json!({"name": "a b"})), "tools[0].function.name"),
        (
            function(json!({"name": "x".repeat(65)})),
            "tools[0].function.name",
        ),
        (
            function(json!({"name": "a", "strict": "yes"})),
            "tools[0].function.strict",
        ),
    ] {
        assert_eq!(refused(&with("tools", json!([tool]))).2, param);
    }
    let two = json!([
        function(json!({"name": "a"})),
        function(json!({"name": "a"}))
    ]);
    assert_eq!(refused(&with("tools", two)).2, "tools[1].function.name");
    let strict = ok(with(
        "tools",
        json!([
            function(json!({"name": "a", "strict": true})),
            function(json!({"name": "b"}))
        ]),
    ));
    let strict: Vec<_> = strict.chat.tools.0.iter().map(|tool| tool.strict).collect();
    assert_eq!(strict, [true, false]);
    for arguments in ["", "[]", "{", "5", "{} {}"] {
        let messages = json!([{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": arguments}}]}]);
        assert_eq!(
            refused(&with("messages", messages)).2,
            "messages[0].tool_calls[0].function.arguments"
        );
    }
}

#[tokio::test]
async fn calls_are_told_whole_with_ids_of_their_own() {
    let call = |name: &str| ChatEvent::ToolCall {
        choice: 0,
        call: engine::ToolCall {
            id: String::new(),
            name: name.to_owned(),
            arguments: Text::new("{}".to_owned()),
        },
    };
    let events = || {
        let ended = ChatEvent::Ended {
            choice: 0,
            finish_reason: FinishReason::ToolCalls,
        };
        vec![call("a"), call("b"), ended, done()]
    };
    let said = streamed(events(), false).await;
    let chunks: Vec<Value> = said[1..4]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let calls: Vec<_> = chunks[..2]
        .iter()
        .map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0].clone())
        .collect();
    assert_eq!(
        (calls[0]["index"].as_u64(), calls[1]["index"].as_u64()),
        (Some(0), Some(1))
    );
    assert_eq!(
        calls[1]["function"],
        json!({"name": "b", "arguments": "{}"})
    );
    assert_eq!(calls[0]["type"], "function");
    assert_eq!(calls[0]["id"].as_str().unwrap().len(), 9);
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    assert_eq!(chunks[2]["choices"][0]["finish_reason"], "tool_calls");

    let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    for event in events() {
        sender.send(event).await.ok().unwrap();
    }
    let failed = |error: EngineError| ApiError::engine(&error, "messages");
    let whole = Whole::read(1, &mut receiver, failed).await.ok().unwrap();
    let head = head();
    let answer = serde_json::to_value(Completion::new(&head, &whole)).unwrap();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], Value::Null);
    assert_eq!(message["tool_calls"][1]["function"]["name"], "b");
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
}
