use crate::{
    EngineError, EngineOptions, Input, Message, Role, Text,
    fixtures::{Script, bert_files, options},
};

fn text(text: &str) -> Input {
    Input::Text(Text::new(text.into()))
}

#[test]
fn tokens_are_those_of_a_request() {
    let engine = Script::new("a").engine(options());
    assert_eq!(
        *engine.tokenize(&text("hi<|end|>"), true).unwrap(),
        [104, 105, 257]
    );
    let message = Message::new(Role::User, Text::new("hi".into()));
    let tokens = engine
        .tokenize(&Input::Messages(vec![message]), true)
        .unwrap();
    assert_eq!(*tokens, [256, 258, 104, 105, 257, 259]);
    // Special ones are no text, and nothing was queued for it.
    assert_eq!(engine.detokenize(&tokens).unwrap().expose(), "hi");
    assert_eq!(engine.stats().prompt_tokens, 0);
    let embedding = bert_files().load(options()).unwrap();
    assert_eq!(*embedding.tokenize(&text("hi"), false).unwrap(), [104, 105]);
    assert_eq!(embedding.detokenize(&[104, 105]).unwrap().expose(), "hi");
}

#[test]
fn what_no_request_may_have_is_refused() {
    let engine = Script::new("a").engine(EngineOptions {
        max_prompt_bytes: 100,
        max_prompt_tokens: 10,
        max_messages: 1,
        ..options()
    });
    let refused = |input: Input| engine.tokenize(&input, true).err().unwrap();
    assert!(matches!(
        refused(text(&"x".repeat(101))),
        EngineError::Invalid(_)
    ));
    let message = || Message::new(Role::User, Text::new("x".into()));
    for messages in [vec![], vec![message(), message()]] {
        assert!(matches!(
            refused(Input::Messages(messages)),
            EngineError::Invalid(_)
        ));
    }
    assert!(matches!(
        engine.detokenize(&[264]).err(),
        Some(EngineError::Invalid(_))
    ));
    let long = engine.detokenize(&[104; 11]).err();
    assert_eq!(
        long,
        Some(EngineError::ContextLength {
            limit: 10,
            requested: 11
        })
    );
    let embedding = bert_files().load(options()).unwrap();
    assert_eq!(
        embedding
            .tokenize(&Input::Messages(vec![message()]), true)
            .err(),
        Some(EngineError::WrongKind)
    );
}
