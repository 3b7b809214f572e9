use super::*;

fn tool(name: &str) -> Tool {
    Tool {
        name: name.into(),
        parameters: json!({"type": "object"}),
        strict: false,
        definition: json!({}),
    }
}

/// Text and calls, of an answer that comes in pieces of `size` bytes.
fn read(format: CallFormat, single: bool, answer: &str, size: usize) -> (String, Vec<String>) {
    let tools = [tool("weather"), tool("time")];
    let mut filter = CallFilter::new(format, &tools, single, false);
    let (mut text, mut calls) = (String::new(), Vec::new());
    let mut take = |passed: Vec<Passed>| {
        for passed in passed {
            match passed {
                Passed::Text(piece) => text.push_str(&piece),
                Passed::Call(call) => {
                    calls.push(format!("{} {}", call.name, call.arguments.expose()));
                }
            }
        }
    };
    let letters: Vec<char> = answer.chars().collect();
    for piece in letters.chunks(size) {
        take(filter.push(&piece.iter().collect::<String>()));
    }
    take(filter.finish());
    assert_eq!(filter.has_called(), !calls.is_empty());
    (text, calls)
}

#[test]
fn calls_are_taken_out_of_the_text() {
    use CallFormat::{Bare, Listed, Tagged};
    let paris = r#"weather {"city":"Paris"}"#;
    for (format, answer, text, calls) in [
        (
            Tagged,
            "just <text> </tool_call>",
            "just <text> </tool_call>",
            &[][..],
        ),
        (
            Tagged,
            "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
            "Let me see.\n",
            &[paris],
        ),
        (
            Tagged,
            "<tool_call>{\"name\": \"time\"}</tool_call>\n<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}",
            "",
            &["time {}", paris],
        ),
        (
            Bare,
            "  I cannot say {\"name\": \"time\"}",
            "  I cannot say {\"name\": \"time\"}",
            &[],
        ),
        (
            Bare,
            "\n{\"name\": \"weather\", \"parameters\": {\"city\": \"Paris\"}}; {\"name\": \"time\", \"parameters\": {}}",
            "",
            &[paris, "time {}"],
        ),
        (
            Listed,
            "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}, {\"name\": \"time\", \"arguments\": \"{}\"}]",
            "",
            &[paris, "time {}"],
        ),
        (Listed, "a [TOOL", "a [TOOL", &[]),
    ] {
        for size in [1, 2, 3, 7, 1000] {
            let (said, called) = read(format, false, answer, size);
            assert_eq!(
                (said.as_str(), called.as_slice()),
                (
                    text,
                    calls
                        .iter()
                        .map(|call| (*call).to_owned())
                        .collect::<Vec<_>>()
                        .as_slice()
                ),
                "{answer}"
            );
        }
    }
}

#[test]
fn what_is_no_call_is_text() {
    use CallFormat::{Bare, Listed, Tagged};
    for (format, answer) in [
        (
            Tagged,
            "<tool_call>{\"name\": \"delete\", \"arguments\": {}}</tool_call>",
        ),
        (
            Tagged,
            "<tool_call>{\"name\": \"time\", \"arguments\": [1]}</tool_call>",
        ),
        (Tagged, "<tool_call>{\"name\": \"time\"</tool_call>"),
        (Tagged, "<tool_call>{\"name\": \"time\"} {}</tool_call>"),
        (Tagged, "<tool_call>{\"name\": 5}</tool_call> and on"),
        (Tagged, "<tool_call>not JSON"),
        (Bare, "{\"name\": \"delete\", \"parameters\": {}}"),
        (Bare, "{\"answer\": 42}"),
        (Bare, "{\"name\": \"time\", \"parameters\": {}} {\"x\": 1}"),
        (Bare, "{ an open brace"),
        (Listed, "[TOOL_CALLS]"),
        (Listed, "[TOOL_CALLS][]"),
        (
            Listed,
            "[TOOL_CALLS][{\"name\": \"time\"}, {\"name\": \"delete\"}]",
        ),
    ] {
        for size in [1, 5, 1000] {
            assert_eq!(
                read(format, false, answer, size),
                (answer.to_owned(), vec![])
            );
        }
    }
}

#[test]
fn one_call_is_all_if_they_are_not_to_be_parallel() {
    let two = "<tool_call>{\"name\": \"time\"}</tool_call><tool_call>{\"name\": \"time\"}</tool_call> text";
    assert_eq!(read(CallFormat::Tagged, true, two, 3).1.len(), 1);
    assert_eq!(read(CallFormat::Tagged, true, two, 3).0, "");
    let list = "[TOOL_CALLS][{\"name\": \"time\"}, {\"name\": \"time\"}]";
    assert_eq!(read(CallFormat::Listed, true, list, 3).1.len(), 1);
}

#[test]
fn the_template_says_how_calls_are_written() {
    for (template, format) in [
        (
            "{% if tools %}<tool_call>{% endif %}",
            Some(CallFormat::Tagged),
        ),
        (
            "{% if tools %}[TOOL_CALLS]{% endif %}",
            Some(CallFormat::Listed),
        ),
        (
            "{% if tools is not none %}{{ '{\"name\": \"' + name + '\", ' }}{{ '\"parameters\": ' }}{% endif %}",
            Some(CallFormat::Bare),
        ),
        ("{% for message in messages %}{% endfor %}", None),
        ("<tool_call>", None),
        (
            "{% if tools %}[TOOL_CALLS]{{ name }}[ARGS]{{ arguments }}{% endif %}",
            None,
        ),
        ("{% if tools %}in words of its own{% endif %}", None),
    ] {
        assert_eq!(CallFormat::of(template), format, "{template}");
    }
}

#[test]
fn references_inside_a_tools_schema_stay_inside() {
    let mut with_reference = tool("weather");
    with_reference.parameters = json!({
        "type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "self": {"$ref": "#"}},
        "$defs": {"node": {"type": "string"}},
    });
    let schema = CallFormat::Tagged.schema(&[&tool("time"), &with_reference], true);
    let loose = CallFormat::Tagged.schema(&[&with_reference], false);
    assert_eq!(loose["$defs"]["tool0"], json!({"type": "object"}));
    let properties = &schema["$defs"]["tool1"]["properties"];
    assert_eq!(properties["next"]["$ref"], "#/$defs/tool1/$defs/node");
    assert_eq!(properties["self"]["$ref"], "#/$defs/tool1");
    assert_eq!(
        schema["anyOf"][1]["properties"]["arguments"]["$ref"],
        "#/$defs/tool1"
    );
}
