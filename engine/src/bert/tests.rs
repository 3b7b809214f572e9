use std::{path::PathBuf, sync::Arc};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert as theirs;
use safetensors::tensor::Dtype;
use serde_json::json;

use crate::{
    DirFiles, Embeddings, Engine, EngineError, EngineOptions, ModelKind, Text,
    fixtures::{MemoryFiles, ask, bert_config, bert_files, bert_weights, block_on, options},
};

fn texts(texts: &[&str]) -> Vec<Text> {
    texts.iter().map(|text| Text::new((*text).into())).collect()
}

fn embed(engine: &Engine, inputs: &[&str]) -> Embeddings {
    block_on(engine.embed(texts(inputs), Arc::default()).unwrap()).unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// candle's encoder on one text without padding, averaged and scaled by hand.
fn reference(text: &str) -> Vec<f32> {
    let mut config = bert_config();
    config["hidden_dropout_prob"] = json!(0.0);
    config["initializer_range"] = json!(0.02);
    let weights = bert_weights().safetensors(Dtype::F32);
    let builder = VarBuilder::from_slice_safetensors(&weights, DType::F32, &Device::Cpu).unwrap();
    let model = theirs::BertModel::load(builder, &serde_json::from_value(config).unwrap()).unwrap();
    let ids: Vec<u32> = text.bytes().map(u32::from).collect();
    let ids = Tensor::new(ids, &Device::Cpu)
        .unwrap()
        .unsqueeze(0)
        .unwrap();
    let hidden = model
        .forward(&ids, &ids.zeros_like().unwrap(), None)
        .unwrap();
    let mean = hidden
        .mean(1)
        .unwrap()
        .squeeze(0)
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    let length = mean.iter().map(|value| value * value).sum::<f32>().sqrt();
    mean.iter().map(|value| value / length).collect()
}

#[test]
fn agrees_with_candle_and_a_batch_equals_single_texts() {
    let options = EngineOptions {
        batch_tokens: 64,
        ..options()
    };
    let engine = bert_files().load(options).unwrap();
    assert_eq!(
        (engine.kind(), engine.dimensions(), engine.context_length()),
        (ModelKind::Embedding, Some(32), 64)
    );
    let inputs = [
        "a much longer text than the others, in the middle",
        "b",
        "three words here",
        "",
        "b",
    ];
    let inputs: Vec<&str> = inputs
        .into_iter()
        .filter(|input| !input.is_empty())
        .collect();
    let batch = embed(&engine, &inputs);
    assert_eq!(batch.vectors.len(), inputs.len());
    assert_eq!(
        batch.prompt_tokens as usize,
        inputs.iter().map(|input| input.len()).sum::<usize>()
    );
    for (vector, input) in batch.vectors.iter().zip(&inputs) {
        assert!(largest_difference(vector, &embed(&engine, &[input]).vectors[0]) < 1e-5);
        assert!(largest_difference(vector, &reference(input)) < 1e-5);
    }
    assert_eq!(engine.stats().embedded_inputs, 8);
}

#[test]
fn reads_half_precision_and_prefixed_weights() {
    let full = embed(&bert_files().load(options()).unwrap(), &["some text"]);
    for dtype in [Dtype::F16, Dtype::BF16] {
        let files = bert_files().with("model.safetensors", bert_weights().safetensors(dtype));
        let half = embed(&files.load(options()).unwrap(), &["some text"]);
        assert!(largest_difference(&full.vectors[0], &half.vectors[0]) < 0.02);
    }
    let prefixed = bert_weights().prefixed("bert.").safetensors(Dtype::F32);
    let prefixed = bert_files()
        .with("model.safetensors", prefixed)
        .load(options())
        .unwrap();
    assert_eq!(embed(&prefixed, &["some text"]).vectors, full.vectors);
}

#[test]
fn quantized_weights_give_nearly_the_same_vectors() {
    let full = embed(&bert_files().load(options()).unwrap(), &["some text"]);
    let quantized = EngineOptions {
        quantize: Some(crate::Quantize::Q8_0),
        ..options()
    };
    let quantized = bert_files().load(quantized).unwrap();
    let found = embed(&quantized, &["some text"]);
    assert_ne!(full.vectors, found.vectors);
    let pairs = full.vectors[0].iter().zip(&found.vectors[0]);
    let cosine: f32 = pairs.map(|(a, b)| a * b).sum();
    assert!(cosine > 0.999, "{cosine}");
}

#[test]
fn a_head_with_more_than_one_label_is_refused() {
    let head = |labels: serde_json::Value| {
        let files = bert_files()
            .configured("architectures", json!(["BertForSequenceClassification"]))
            .configured("id2label", labels);
        files.load(options()).err().unwrap().to_string()
    };
    for labels in [json!({"0": "A", "1": "B"}), json!({}), json!(null)] {
        let error = head(labels);
        assert!(
            error.starts_with("config.json: field id2label: "),
            "{error}"
        );
    }
    // One label, and no head beside the encoder.
    let error = head(json!({"0": "A"}));
    assert_eq!(
        error,
        "tensor bert.pooler.dense.bias: missing from the weights"
    );
}

#[test]
fn a_model_that_embeds_does_not_rank() {
    let engine = bert_files().load(options()).unwrap();
    let ranked = engine.rerank(&Text::new("a".into()), &texts(&["b"]), Arc::default());
    assert_eq!(ranked.err().unwrap(), EngineError::WrongKind);
}

#[test]
fn pooling_follows_its_file_or_is_refused() {
    let load = |pooling: serde_json::Value| {
        bert_files()
            .with("1_Pooling/config.json", pooling.to_string())
            .load(options())
    };
    let mean = embed(&bert_files().load(options()).unwrap(), &["some text"]);
    let written = json!({"word_embedding_dimension": 32, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true,
                         "pooling_mode_max_tokens": false, "pooling_mode_mean_sqrt_len_tokens": false});
    assert_eq!(
        mean.vectors,
        embed(&load(written).unwrap(), &["some text"]).vectors
    );
    let first =
        load(json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false})).unwrap();
    assert!(largest_difference(&mean.vectors[0], &embed(&first, &["some text"]).vectors[0]) > 1e-3);

    let refused = |pooling| load(pooling).err().unwrap().to_string();
    for both in ["pooling_mode_mean_tokens", "pooling_mode_max_tokens"] {
        assert!(
            refused(json!({"pooling_mode_cls_token": true, both: true})).contains("exactly one")
        );
    }
    assert!(refused(json!({"pooling_mode_mean_tokens": false})).contains("exactly one"));
    assert!(refused(json!({"word_embedding_dimension": 64})).contains("hidden_size is 32"));
    assert!(refused(json!({"pooling_mode": "colbert"})).contains("pooling_mode"));
    let dense = json!([{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Dense"}]);
    let error = bert_files()
        .with("modules.json", dense.to_string())
        .load(options())
        .err()
        .unwrap()
        .to_string();
    assert!(error.starts_with("modules.json: only Transformer"));
    let elsewhere = json!([{"type": "sentence_transformers.models.Pooling", "path": "2_Pooling"}]);
    let error = bert_files()
        .with("modules.json", elsewhere.to_string())
        .load(options())
        .err()
        .unwrap()
        .to_string();
    assert!(error.starts_with("modules.json: only Transformer"));
}

#[test]
fn refuses_what_does_not_fit() {
    let files = bert_files().with(
        "sentence_bert_config.json",
        json!({"max_seq_length": 16}).to_string(),
    );
    let options = EngineOptions {
        max_batch_inputs: 3,
        max_prompt_tokens: 20,
        ..options()
    };
    let engine = files.load(options).unwrap();
    let refused = |inputs: &[&str]| engine.embed(texts(inputs), Arc::default()).err().unwrap();
    assert_eq!(engine.context_length(), 16);
    assert_eq!(
        refused(&["seventeen letters"]),
        EngineError::ContextLength {
            limit: 16,
            requested: 17
        }
    );
    assert_eq!(
        refused(&["eleven char", "eleven char"]),
        EngineError::ContextLength {
            limit: 20,
            requested: 22
        }
    );
    assert_eq!(
        refused(&["a"; 4]),
        EngineError::TooManyInputs {
            limit: 3,
            requested: 4
        }
    );
    assert!(matches!(refused(&[]), EngineError::Invalid(_)));
    assert!(matches!(refused(&[""]), EngineError::Invalid(_)));
    assert_eq!(
        engine.chat(ask("hi")).err().unwrap(),
        EngineError::WrongKind
    );
    assert_eq!(
        engine.stats().queue_depth,
        0,
        "a refused request gives its place back"
    );
}

#[test]
fn refuses_hostile_configurations_by_field() {
    for (field, value) in [
        ("num_attention_heads", json!(5)),
        ("hidden_size", json!(0)),
        ("vocab_size", json!(1u64 << 50)),
        ("num_hidden_layers", json!(100_000)),
        ("type_vocab_size", json!(0)),
        ("hidden_act", json!("quick_gelu")),
        ("position_embedding_type", json!("relative_key")),
        ("pad_token_id", json!(264)),
    ] {
        let error = bert_files()
            .configured(field, value)
            .load(options())
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.starts_with(&format!("config.json: field {field}: ")),
            "{error}"
        );
    }
    let error = bert_files()
        .configured("num_hidden_layers", json!(3))
        .load(options())
        .err()
        .unwrap()
        .to_string();
    assert_eq!(
        error,
        "tensor encoder.layer.2.attention.output.LayerNorm.weight: missing from the weights"
    );
}

#[test]
fn refuses_a_tokenizer_with_more_ids_than_the_model() {
    let mut tokenizer = crate::fixtures::byte_tokenizer();
    tokenizer["added_tokens"][4]["id"] = json!(300);
    tokenizer["model"]["vocab"]["extra"] = json!(300);
    let error = bert_files()
        .with("tokenizer.json", tokenizer.to_string())
        .load(options())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with(
            "config.json: field vocab_size: 264, but tokenizer.json has token ids up to 3"
        ),
        "{error}"
    );
    let error = bert_files()
        .with("tokenizer.json", "{}")
        .load(options())
        .err()
        .unwrap()
        .to_string();
    assert!(error.starts_with("tokenizer.json: "), "{error}");
    let mut files: MemoryFiles = bert_files();
    files.0.remove("tokenizer.json");
    assert_eq!(
        files.load(options()).err().unwrap().to_string(),
        "tokenizer.json: missing from the model"
    );
}

/// Real weights against values from another implementation; `scripts/fetch-minilm` brings them.
#[test]
fn minilm_gives_the_published_vectors() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let default = root.join("target/models/all-MiniLM-L6-v2");
    let directory = std::env::var_os("CLOISTER_MINILM").map_or(default, PathBuf::from);
    if !directory.join("model.safetensors").exists() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "all-MiniLM-L6-v2 is missing: run scripts/fetch-minilm"
        );
        println!("skipped: all-MiniLM-L6-v2 is missing (scripts/fetch-minilm brings it)");
        return;
    }
    let engine = Engine::load(Arc::new(DirFiles::new(directory)), options()).unwrap();
    assert_eq!(
        (engine.context_length(), engine.dimensions()),
        (256, Some(384))
    );
    let inputs = [
        "A man is eating food.",
        "Someone eats a meal.",
        "The stock market fell sharply today.",
    ];
    let Embeddings { vectors, .. } = embed(&engine, &inputs);
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert!((cosine(&vectors[0], &vectors[1]) - 0.7614).abs() < 0.002);
    assert!((cosine(&vectors[0], &vectors[2]) - 0.0037).abs() < 0.002);
    assert!(
        largest_difference(
            &vectors[0][..4],
            &[0.033_241_548, 0.004_406_076, -0.006_276_969, 0.048_378_62]
        ) < 1e-4
    );
    assert!(largest_difference(&vectors[1], &embed(&engine, &inputs[1..2]).vectors[0]) < 1e-5);
}
