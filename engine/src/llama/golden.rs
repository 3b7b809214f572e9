//! The demonstration model says what its trainer's own implementation (JAX, `scripts/demo-trainer`) said of the same files.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::{Config, Llama};
use crate::fields::Fields;
use crate::fixtures::Memory;
use crate::weights::Weights;
use crate::{
    ChatEvent, ChatRequest, DirFiles, Engine, EngineOptions, Message, ModelFiles, Role, Text,
};

/// Logits reach 60; both sides compute in f32, in another order.
const TOLERANCE: f32 = 2e-3;

fn golden() -> (Arc<DirFiles>, Vec<Value>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model");
    let text = std::fs::read(directory.join("golden.json")).unwrap();
    let golden: Value = serde_json::from_slice(&text).unwrap();
    let cases = golden["cases"].as_array().unwrap().clone();
    assert!(cases.len() >= 3);
    (Arc::new(DirFiles::new(directory)), cases)
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn the_demonstration_models_logits_are_its_trainers() {
    let (files, cases) = golden();
    let config = Config::read(&Fields::read(files.as_ref(), "config.json").unwrap()).unwrap();
    let files: Arc<dyn ModelFiles> = files;
    let model = Llama::load(&Weights::open(files).unwrap(), config).unwrap();
    for case in &cases {
        let tokens = ids(&case["prompt_ids"]);
        let mut memory = Memory::new(&model, tokens.len());
        let mut seat = memory.seat(tokens.len());
        let logits = memory.step(&model, &mut seat, &tokens);
        for expected in case["top5_at_last_position"].as_array().unwrap() {
            let id = usize::try_from(expected["id"].as_u64().unwrap()).unwrap();
            let expected: f32 = serde_json::from_value(expected["logit"].clone()).unwrap();
            let difference = (logits[id] - expected).abs();
            assert!(difference <= TOLERANCE, "token {id}: {difference}");
        }
    }
}

#[test]
fn the_demonstration_model_answers_as_its_trainer_heard_it() {
    let (files, cases) = golden();
    let engine = Engine::load(files, EngineOptions::default()).unwrap();
    for case in &cases {
        let messages = case["messages"].as_array().unwrap().iter().map(|m| {
            let role = match m["role"].as_str().unwrap() {
                "system" => Role::System,
                "assistant" => Role::Assistant,
                _ => Role::User,
            };
            Message::new(role, Text::new(m["content"].as_str().unwrap().to_owned()))
        });
        let mut request = ChatRequest::new(messages.collect());
        request.temperature = 0.0;
        let mut events = engine.chat(request).unwrap();
        let mut said = String::new();
        let usage = loop {
            match events.blocking_recv().unwrap() {
                ChatEvent::Delta(piece) => said.push_str(piece.text.expose()),
                ChatEvent::Done { usage } => break usage,
                ChatEvent::Failed(error) => panic!("{error}"),
                _ => {}
            }
        };
        assert_eq!(said, case["greedy_text"].as_str().unwrap());
        // The same tokens came out of template and tokenizer.
        assert_eq!(usage.prompt_tokens as usize, ids(&case["prompt_ids"]).len());
    }
}
