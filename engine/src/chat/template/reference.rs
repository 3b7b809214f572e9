//! Conversations become the ids that transformers makes of them: `tests/templates.py` asks it on the spot.

use std::sync::Arc;

use serde_json::Value;

use super::ChatTemplate;
use crate::{
    DirFiles, Message, ModelFiles, Role, Text,
    chat::TOKENIZER_CONFIG,
    fields::Fields,
    llama::reference::{python, written_by},
    vocabulary::Vocabulary,
};

fn messages(case: &Value) -> Vec<Message> {
    let message = |value: &Value| {
        let role = match value["role"].as_str().unwrap() {
            "system" => Role::System,
            "assistant" => Role::Assistant,
            _ => Role::User,
        };
        Message::new(role, Text::new(value["content"].as_str().unwrap().into()))
    };
    case["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(message)
        .collect()
}

#[test]
fn every_conversation_becomes_the_ids_that_transformers_makes_of_it() {
    let Some(python) = python() else { return };
    let directory = written_by(&python, "templates.py");
    let mut seen = 0;
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        let files: Arc<dyn ModelFiles> = Arc::new(DirFiles::new(&path));
        let vocabulary = Vocabulary::read(files.as_ref(), None, 1 << 20).unwrap();
        let config = Fields::read_optional(files.as_ref(), TOKENIZER_CONFIG).unwrap();
        let template = ChatTemplate::read(files.as_ref(), config.as_ref(), None).unwrap();
        let cases = std::fs::read(path.join("conversations.json")).unwrap();
        let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
        assert_eq!(cases.len(), 50);
        for (number, case) in cases.iter().enumerate() {
            let text = template.render(&messages(case), &[], 1 << 20).ok().unwrap();
            let ids = vocabulary.encode(text.expose(), false).unwrap();
            let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(
                *ids,
                expected,
                "{}, conversation {number}: {:?}",
                path.display(),
                text.expose()
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 8 * 50);
}
