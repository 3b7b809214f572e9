//! Every family says what transformers says of the same random model and the same texts: `tests/encoders.py` makes both on the spot.

use std::{collections::HashMap, path::Path, sync::Arc};

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::{Bert, spans};
use crate::{
    DirFiles, Engine, ModelKind, Text,
    bert::Family,
    embedding::Input,
    fields::Fields,
    fixtures::{block_on, options},
    llama::reference::{python, written_by},
    vocabulary::Vocabulary,
    weights::Weights,
};

/// Between two implementations in f32 that add in another order.
const TOLERANCE: f32 = 2e-4;

struct Case {
    name: String,
    query: Option<String>,
    texts: Vec<String>,
    tensors: HashMap<String, Tensor>,
}

impl Case {
    fn read(directory: &Path) -> Self {
        let texts = std::fs::read(directory.join("texts.json")).unwrap();
        let texts: Value = serde_json::from_slice(&texts).unwrap();
        let strings = texts["texts"].as_array().unwrap().iter();
        Self {
            name: directory
                .file_name()
                .unwrap()
                .to_string_lossy()
                .into_owned(),
            query: texts["query"].as_str().map(str::to_owned),
            texts: strings
                .map(|text| text.as_str().unwrap().to_owned())
                .collect(),
            tensors: candle_core::safetensors::load(
                directory.join("reference.safetensors"),
                &Device::Cpu,
            )
            .unwrap(),
        }
    }

    fn close(&self, what: &str, ours: &Tensor, theirs: &Tensor) {
        assert_eq!(ours.dims(), theirs.dims(), "{} {what}", self.name);
        let off = (ours - theirs).unwrap().abs().unwrap();
        let off: f32 = off
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap()
            .to_scalar()
            .unwrap();
        assert!(off <= TOLERANCE, "{}, {what}: {off}", self.name);
    }

    fn texts(&self) -> Vec<Text> {
        self.texts
            .iter()
            .map(|text| Text::new(text.clone()))
            .collect()
    }
}

fn check(directory: &Path) -> bool {
    let case = Case::read(directory);
    let files = Arc::new(DirFiles::new(directory));
    let fields = Fields::read(files.as_ref(), "config.json").unwrap();
    let family = Family::of(fields.text("model_type").unwrap().unwrap()).unwrap();
    let weights = Weights::open(files.clone()).unwrap();
    let model = Bert::load(family, files.as_ref(), &fields, &weights).unwrap();
    let vocabulary = Vocabulary::read(files.as_ref(), None, model.vocabulary).unwrap();

    let mut inputs = Vec::new();
    for (index, text) in case.texts.iter().enumerate() {
        let (tokens, second) = match &case.query {
            Some(query) => vocabulary.encode_pair(query, text).unwrap(),
            None => (vocabulary.encode(text, true).unwrap(), None),
        };
        let theirs = case.tensors[&format!("tokens.{index}")]
            .to_dtype(DType::U32)
            .unwrap();
        assert_eq!(*tokens, theirs.to_vec1::<u32>().unwrap(), "{}", case.name);
        let second = second.filter(|_| model.marks_pairs);
        inputs.push(Input { tokens, second });
    }
    let all: Vec<&Input> = inputs.iter().collect();
    let packed = spans(&all);
    let together = model.body.forward(&all, &packed).unwrap();
    for (index, (input, span)) in all.iter().zip(&packed).enumerate() {
        let alone = model.body.forward(&[*input], &spans(&[*input])).unwrap();
        let packed = together.narrow(0, span.start, span.tokens).unwrap();
        for theirs in ["alone", "padded"] {
            let theirs = &case.tensors[&format!("{theirs}.{index}")];
            case.close(&format!("text {index} alone"), &alone, theirs);
            case.close(&format!("text {index} among others"), &packed, theirs);
        }
    }

    // Through the engine, from texts to the answer.
    let engine = Engine::load(files, options()).unwrap();
    let ours = match &case.query {
        Some(query) => {
            assert_eq!(engine.kind(), ModelKind::Rerank);
            let query = Text::new(query.clone());
            let ranking = engine
                .rerank(&query, &case.texts(), Arc::default())
                .unwrap();
            let scores = block_on(ranking).unwrap().scores;
            Tensor::from_slice(&scores, scores.len(), &Device::Cpu).unwrap()
        }
        None => {
            assert_eq!(engine.kind(), ModelKind::Embedding);
            let embeddings = engine.embed(case.texts(), Arc::default()).unwrap();
            Tensor::new(block_on(embeddings).unwrap().vectors, &Device::Cpu).unwrap()
        }
    };
    let theirs = case.query.as_ref().map_or("vectors", |_| "scores");
    case.close(theirs, &ours, &case.tensors[theirs]);
    case.query.is_some()
}

#[test]
fn every_family_says_what_transformers_says() {
    let Some(python) = python() else { return };
    let directory = written_by(&python, "encoders.py");
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let ranks: Vec<bool> = entries.map(|entry| check(&entry.unwrap().path())).collect();
    let ranking = ranks.iter().filter(|ranks| **ranks).count();
    assert_eq!((ranks.len(), ranking), (18, 7));
}
