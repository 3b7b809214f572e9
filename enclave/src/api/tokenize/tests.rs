use serde_json::{Value, json};

use super::*;

fn parsed(body: &Value) -> Result<TextRequest, ApiError> {
    object::parse::<TextFields>(body.to_string().as_bytes())?.check(2)
}

#[test]
fn a_text_or_a_conversation_is_tokenized() {
    let text = parsed(&json!({"model": "m", "prompt": ""})).ok().unwrap();
    assert!(matches!(text.input, Input::Text(_)) && text.special);
    let bare = json!({"model": "m", "prompt": "x", "add_special_tokens": false, "tools": []});
    assert!(!parsed(&bare).ok().unwrap().special);
    let messages = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    assert!(matches!(
        parsed(&messages).ok().unwrap().input,
        Input::Messages(_)
    ));
}

#[test]
fn what_cannot_be_tokenized_is_refused_by_name() {
    let one = json!({"role": "user", "content": "x"});
    for (body, param) in [
        (json!({"prompt": "x"}), "model"),
        (json!({"model": "m"}), "prompt"),
        (json!({"model": "m", "prompt": 5}), "prompt"),
        (
            json!({"model": "m", "prompt": "x", "messages": [one]}),
            "messages",
        ),
        (json!({"model": "m", "messages": []}), "messages"),
        (
            json!({"model": "m", "messages": [one, one, one]}),
            "messages",
        ),
        (json!({"model": "m", "prompt": "x", "tools": [1]}), "tools"),
        (
            json!({"model": "m", "prompt": "x", "return_token_strs": true}),
            "return_token_strs",
        ),
        (
            json!({"model": "m", "prompt": "x", "add_generation_prompt": false}),
            "add_generation_prompt",
        ),
        (
            json!({"model": "m", "prompt": "x", "chat_template": "{{ x }}"}),
            "chat_template",
        ),
    ] {
        let error = parsed(&body).err().unwrap();
        assert_eq!(error.named().2, Some(param), "{body}");
    }
}
