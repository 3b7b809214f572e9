use serde_json::{Value, json};

use crate::{
    ChatRequest, EngineError, EngineOptions, FinishReason, Format, Input, Message, Role, Text,
    Tool, ToolCall, ToolChoice, Tools,
    fixtures::{Choice, Script, ask, choices, llama_files, options},
};

const TAGGED: &str = "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}\
    {% for message in messages %}<|{{ 'user' if message.role == 'tool' else message.role }}|>{{ message.content }}\
    {% for call in message.tool_calls %}<tool_call>{{ call.function.arguments | tojson }}</tool_call>{% endfor %}\
    {% endfor %}<|assistant|>";

fn weather() -> Tool {
    let parameters = json!({
        "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"$ref": "#/$defs/days"}},
        "required": ["city", "days"], "additionalProperties": false,
        "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 9}},
    });
    Tool {
        name: "weather".into(),
        definition: json!({"type": "function", "function": {"name": "weather", "parameters": parameters}}),
        parameters,
        strict: false,
    }
}

fn time() -> Tool {
    Tool {
        name: "time".into(),
        parameters: json!({"type": "object", "properties": {}, "additionalProperties": false}),
        strict: false,
        definition: json!({"type": "function", "function": {"name": "time"}}),
    }
}

fn with_tools(tool_choice: ToolChoice) -> ChatRequest {
    ChatRequest {
        tools: Tools(vec![time(), weather()]),
        tool_choice,
        max_tokens: Some(400),
        ..ask("hi")
    }
}

fn says(answer: &str, request: ChatRequest) -> Choice {
    let script = Script {
        template: TAGGED,
        ..Script::new(answer)
    };
    choices(&script.engine(options()), request)
        .choices
        .remove(0)
}

#[test]
fn a_call_that_the_model_writes_is_a_call() {
    let answer =
        r#"I look.<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>"#;
    let choice = says(answer, with_tools(ToolChoice::Auto));
    assert_eq!(choice.text(), "I look.");
    assert_eq!(
        choice.calls,
        [("weather".into(), r#"{"city":"Rome"}"#.into())]
    );
    assert_eq!(choice.reason, Some(FinishReason::ToolCalls));
    // Nobody is told of the tokens of a call, but of those before it.
    let told = says(
        answer,
        ChatRequest {
            logprobs: Some(0),
            ..with_tools(ToolChoice::Auto)
        },
    );
    let bytes = told
        .logprobs
        .iter()
        .flat_map(|token| token.token.bytes.to_vec());
    assert_eq!(bytes.collect::<Vec<_>>(), b"I look.");
    // Without tools it is text.
    let plain = says(answer, with_tools(ToolChoice::None));
    assert_eq!(
        (plain.text().as_str(), plain.reason),
        (answer, Some(FinishReason::Stop))
    );
    assert!(plain.calls.is_empty());
}

#[test]
fn a_call_that_is_cut_is_text_and_ends_with_its_length() {
    let request = ChatRequest {
        max_tokens: Some(20),
        ..with_tools(ToolChoice::Auto)
    };
    let choice = says(r#"<tool_call>{"name": "weather"}"#, request);
    assert_eq!(choice.text(), r#"<tool_call>{"name": "#);
    assert_eq!(choice.reason, Some(FinishReason::Length));
}

#[test]
fn the_first_call_ends_an_answer_that_may_have_one() {
    let answer =
        r#"<tool_call>{"name": "time"}</tool_call><tool_call>{"name": "time"}</tool_call>"#;
    assert_eq!(says(answer, with_tools(ToolChoice::Auto)).calls.len(), 2);
    let single = ChatRequest {
        parallel_tool_calls: false,
        ..with_tools(ToolChoice::Auto)
    };
    let choice = says(answer, single);
    assert_eq!(choice.calls.len(), 1);
    assert_eq!(choice.reason, Some(FinishReason::ToolCalls));
}

/// Random weights again: what they must call, they call with arguments that fit.
#[test]
fn a_forced_call_fits_the_tools_schema() {
    let bare = "{% if tools %}{{ '{\"name\": ' }}{{ '\"parameters\": ' }}{% endif %}<|assistant|>";
    let listed = "{% if tools %}[TOOL_CALLS]{% endif %}<|assistant|>";
    for template in [TAGGED, bare, listed] {
        let engine = llama_files()
            .with("chat_template.jinja", template)
            .load(options())
            .unwrap();
        for named in [true, false] {
            let request = ChatRequest {
                temperature: 1.5,
                seed: Some(4),
                choices: 4,
                ..with_tools(match named {
                    true => ToolChoice::Named("weather".into()),
                    false => ToolChoice::Required,
                })
            };
            for choice in choices(&engine, request).choices {
                assert_eq!(
                    choice.reason,
                    Some(FinishReason::ToolCalls),
                    "{}",
                    choice.text()
                );
                assert_eq!((choice.text().as_str(), choice.calls.len()), ("", 1));
                let (name, arguments) = &choice.calls[0];
                let arguments: Value = serde_json::from_str(arguments).unwrap();
                if name == "weather" {
                    assert!(["Paris", "Rome"].contains(&arguments["city"].as_str().unwrap()));
                    assert!((1..=9).contains(&arguments["days"].as_u64().unwrap()));
                    assert_eq!(arguments.as_object().unwrap().len(), 2);
                } else {
                    assert!(!named && name == "time" && arguments == json!({}));
                }
            }
        }
    }
}

#[test]
fn calls_and_their_results_are_part_of_a_conversation() {
    let call = |arguments: &str| ToolCall {
        id: "abc123def".into(),
        name: "weather".into(),
        arguments: Text::new(arguments.into()),
    };
    let conversation = |arguments: &str| {
        let mut assistant = Message::new(Role::Assistant, Text::new(String::new()));
        assistant.tool_calls.push(call(arguments));
        let mut result = Message::new(Role::Tool, Text::new("sunny".into()));
        result.tool_call_id = Some(Text::new("abc123def".into()));
        ChatRequest {
            input: Input::Messages(vec![
                Message::new(Role::User, Text::new("hi".into())),
                assistant,
                result,
            ]),
            ..with_tools(ToolChoice::Auto)
        }
    };
    assert_eq!(
        says("fine", conversation(r#"{"city": "Rome"}"#)).text(),
        "fine"
    );
    let engine = Script {
        template: TAGGED,
        ..Script::new("fine")
    }
    .engine(options());
    for arguments in ["", "[]", "{", "\"text\""] {
        let refused = engine.chat(conversation(arguments)).err();
        assert!(
            matches!(refused, Some(EngineError::Invalid(_))),
            "{arguments}"
        );
    }
}

#[test]
fn tools_that_cannot_be_had_are_refused_by_name() {
    let engine = Script {
        template: TAGGED,
        ..Script::new("fine")
    }
    .engine(EngineOptions {
        max_tools: 2,
        max_schema_depth: 4,
        ..options()
    });
    let refused = |request: ChatRequest| engine.chat(request).err().unwrap();
    let schema = |field: &'static str, request: ChatRequest| match refused(request) {
        EngineError::Schema { field: named, .. } => assert_eq!(named, field),
        error => panic!("{error}"),
    };
    assert!(engine.chat(with_tools(ToolChoice::Auto)).is_ok());
    schema(
        "tool_choice",
        with_tools(ToolChoice::Named("delete".into())),
    );
    let none = ChatRequest {
        tools: Tools::default(),
        ..with_tools(ToolChoice::Required)
    };
    schema("tool_choice", none);
    let many = ChatRequest {
        tools: Tools(vec![time(), time(), time()]),
        ..with_tools(ToolChoice::Auto)
    };
    schema("tools", many);
    let deep = Tool {
        parameters: json!({"a": {"b": {"c": {"d": {}}}}}),
        ..time()
    };
    let deep = ChatRequest {
        tools: Tools(vec![deep]),
        ..with_tools(ToolChoice::Auto)
    };
    schema("tools", deep);
    let wrong = Tool {
        parameters: json!({"type": "secret"}),
        ..time()
    };
    let wrong = ChatRequest {
        tools: Tools(vec![wrong]),
        ..with_tools(ToolChoice::Required)
    };
    schema("tools", wrong);
    let both = ChatRequest {
        format: Format::JsonObject,
        ..with_tools(ToolChoice::Auto)
    };
    assert_eq!(refused(both), EngineError::Unsupported("response_format"));
    // A model whose template shows it no tools.
    let engine = Script::new("fine").engine(options());
    assert_eq!(
        engine.chat(with_tools(ToolChoice::Auto)).err().unwrap(),
        EngineError::Unsupported("tools")
    );
    assert!(engine.chat(with_tools(ToolChoice::None)).is_ok());
}

/// What the script wants to say is not what the schema allows: the sampler goes by the schema.
#[test]
fn a_strict_tool_is_called_with_arguments_that_fit() {
    let strict = || {
        let mut request = with_tools(ToolChoice::Auto);
        request.tools.0[1].strict = true;
        request
    };
    let wanted = r#"I look.<tool_call>{"name": "weather", "arguments": {"city": "Oslo", "days": 77}}</tool_call>"#;
    let loose = says(wanted, with_tools(ToolChoice::Auto));
    assert_eq!(loose.calls[0].1, r#"{"city":"Oslo","days":77}"#);
    let held = says(wanted, strict());
    assert!(held.text().starts_with("I look."), "{}", held.text());
    assert_eq!(held.calls.len(), 1);
    for (name, arguments) in &held.calls {
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        assert_eq!(name, "weather");
        assert_ne!(arguments["city"], "Oslo");
    }
    assert!(!held.text().contains("Oslo"));
    // Text that calls nobody is as free as before.
    let text = says("just text, and {braces}", strict());
    assert_eq!(text.text(), "just text, and {braces}");
    // Several calls, each held by itself.
    let two = r#"<tool_call>{"name": "time", "arguments": {}}</tool_call><tool_call>{"name": "weather", "arguments": {"city": "Rome", "days": 3}}</tool_call>"#;
    let calls = says(two, strict()).calls;
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[1].1, r#"{"city":"Rome","days":3}"#);
}
