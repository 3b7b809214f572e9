use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama as theirs;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::{Config, Llama};
use crate::{
    LoadError,
    fields::Fields,
    fixtures::{Memory, MemoryFiles, llama_config, llama_files, llama_weights, options},
    weights::Weights,
};

const TOKENS: [u32; 23] = [
    256, 1, 72, 200, 5, 5, 5, 9, 31, 255, 0, 17, 64, 81, 99, 12, 45, 78, 111, 144, 177, 210, 243,
];

fn load(files: &MemoryFiles) -> Result<Llama, LoadError> {
    let config = Config::read(&Fields::read(files, "config.json")?)?;
    Llama::load(Weights::open(Arc::new(files.clone()))?.as_ref(), config)
}

fn assert_close(ours: &[f32], reference: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), reference.len());
    let difference = ours
        .iter()
        .zip(reference)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(
        difference <= tolerance,
        "the largest difference is {difference}"
    );
}

/// candle's logits after every prefix of the tokens, from one full pass each.
fn reference(config: &Value, weights: &[u8]) -> Vec<Vec<f32>> {
    let config: theirs::LlamaConfig = serde_json::from_value(config.clone()).unwrap();
    let config = config.into_config(false);
    let builder = VarBuilder::from_slice_safetensors(weights, DType::F32, &Device::Cpu).unwrap();
    let model = theirs::Llama::load(builder, &config).unwrap();
    let logits = |end: usize| {
        let mut cache = theirs::Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
        let tokens = Tensor::new(&TOKENS[..end], &Device::Cpu)
            .unwrap()
            .unsqueeze(0)
            .unwrap();
        model
            .forward(&tokens, 0, &mut cache)
            .unwrap()
            .squeeze(0)
            .unwrap()
            .to_vec1()
            .unwrap()
    };
    (1..=TOKENS.len()).map(logits).collect()
}

/// Prompt at once, in chunks, and one by one give candle's logits.
fn check(config: Value, dtype: Dtype) {
    let weights = llama_weights(7).safetensors(dtype);
    let reference = reference(&config, &weights);
    let files = llama_files()
        .with("config.json", config.to_string())
        .with("model.safetensors", weights);
    let model = load(&files).unwrap();

    let mut memory = Memory::new(&model, 3 * TOKENS.len());
    let mut seat = memory.seat(TOKENS.len());
    let whole = memory.step(&model, &mut seat, &TOKENS);
    assert_close(&whole, reference.last().unwrap(), 2e-4);

    let mut seat = memory.seat(TOKENS.len());
    let mut read = 0;
    for chunk in TOKENS.chunks(5) {
        read += chunk.len();
        let found = memory.step(&model, &mut seat, chunk);
        assert_close(&found, &reference[read - 1], 2e-4);
    }

    let mut seat = memory.seat(TOKENS.len());
    for (token, reference) in TOKENS.iter().zip(&reference) {
        assert_close(&memory.step(&model, &mut seat, &[*token]), reference, 2e-4);
    }
}

fn config(changes: &[(&str, Value)]) -> Value {
    let mut config = llama_config();
    for (field, value) in changes {
        config[*field] = value.clone();
    }
    config
}

#[test]
fn agrees_with_candle_with_tied_embeddings() {
    check(config(&[]), Dtype::F32);
}

#[test]
fn agrees_with_candle_with_a_head_of_its_own() {
    check(config(&[("tie_word_embeddings", json!(false))]), Dtype::F32);
}

#[test]
fn agrees_with_candle_on_f16_and_bf16() {
    check(config(&[]), Dtype::F16);
    check(config(&[]), Dtype::BF16);
}

#[test]
fn agrees_with_candle_under_llama3_scaling() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 64});
    check(
        config(&[("rope_scaling", scaling), ("rope_theta", json!(500000.0))]),
        Dtype::F32,
    );
}

#[test]
fn reads_rope_settings_in_the_newer_form() {
    let old = config(&[("rope_theta", json!(1234.0))]);
    let mut new = config(&[(
        "rope_parameters",
        json!({"rope_theta": 1234.0, "rope_type": "default"}),
    )]);
    new.as_object_mut().unwrap().remove("rope_theta");
    let read = |config: Value| {
        let files = MemoryFiles::default().with("config.json", config.to_string());
        Config::read(&Fields::read(&files, "config.json").unwrap()).unwrap()
    };
    assert_eq!(
        read(old).rotations[0].theta.to_bits(),
        read(new).rotations[0].theta.to_bits()
    );
}

#[test]
fn rows_of_different_length_and_position_share_a_pass() {
    let model = load(&llama_files()).unwrap();
    let mut memory = Memory::new(&model, 1024);
    let (mut a, mut b, mut c) = (memory.seat(64), memory.seat(64), memory.seat(64));
    // One row is in the middle of its answer, one starts its prompt, one goes on with its prompt and wants nothing yet.
    memory.step(&model, &mut a, &TOKENS[..7]);
    memory.step(&model, &mut c, &TOKENS[..3]);
    let mut rows = [
        (&mut a, &TOKENS[7..8], true),
        (&mut b, &TOKENS[..11], true),
        (&mut c, &TOKENS[3..9], false),
    ];
    let together = memory.pass(&model, &mut rows).unwrap();
    let mut alone = |tokens: &[u32]| {
        let mut seat = memory.seat(64);
        memory.step(&model, &mut seat, tokens)
    };
    assert_close(together[0].as_ref().unwrap(), &alone(&TOKENS[..8]), 1e-5);
    assert_close(together[1].as_ref().unwrap(), &alone(&TOKENS[..11]), 1e-5);
    assert!(together[2].is_none());
    let expected = alone(&TOKENS[..10]);
    assert_close(
        &memory.step(&model, &mut c, &TOKENS[9..10]),
        &expected,
        1e-5,
    );
}

#[test]
fn a_long_sequence_in_chunks_is_the_same_as_at_once() {
    let model = load(&llama_files()).unwrap();
    let tokens: Vec<u32> = (0..400).map(|index| index * 7 % 256).collect();
    let mut memory = Memory::new(&model, 800);
    let (mut stepped, mut whole) = (memory.seat(400), memory.seat(400));
    let mut last = Vec::new();
    for chunk in tokens.chunks(37) {
        last = memory.step(&model, &mut stepped, chunk);
    }
    assert_close(&last, &memory.step(&model, &mut whole, &tokens), 2e-4);
    // 400 tokens fill their blocks.
    let mut rows = [(&mut stepped, &[1][..], true)];
    assert!(
        memory.pass(&model, &mut rows).is_err(),
        "there is no block for more"
    );
}

fn refusal(field: &str, value: Value) -> String {
    llama_files()
        .configured(field, value)
        .load(options())
        .err()
        .unwrap()
        .to_string()
}

#[test]
fn refuses_hostile_dimensions_by_file_and_field() {
    for (field, value) in [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(u64::MAX)),
        ("hidden_size", json!("64")),
        ("intermediate_size", json!(1u64 << 40)),
        ("num_hidden_layers", json!(1_000_000)),
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(5)),
        ("num_key_value_heads", json!(3)),
        ("num_key_value_heads", json!(0)),
        ("head_dim", json!(15)),
        ("vocab_size", json!(-1)),
        ("vocab_size", json!(1u64 << 40)),
        ("max_position_embeddings", json!(0)),
        ("rms_norm_eps", json!(-1e-5)),
        ("rope_theta", json!(0)),
        ("hidden_act", json!("gelu")),
        ("tie_word_embeddings", json!("yes")),
        ("quantization_config", json!({"bits": 4})),
        ("eos_token_id", json!(5000)),
    ] {
        let error = refusal(field, value.clone());
        let named = error.starts_with(&format!("config.json: field {field}: "))
            || field == "num_attention_heads" && error.starts_with("config.json: field num_");
        assert!(named, "{field} = {value}: {error}");
    }
    assert!(
        refusal("rope_scaling", json!({"rope_type": "yarn"}))
            .starts_with("config.json: field rope_scaling.rope_type")
    );
    assert!(refusal("model_type", json!("gpt_x")).starts_with("config.json: field model_type"));
}

#[test]
fn refuses_weights_that_do_not_fit_the_configuration() {
    let error = refusal("num_hidden_layers", json!(4));
    assert_eq!(
        error,
        "tensor model.layers.3.input_layernorm.weight: missing from the weights"
    );
    let error = refusal("intermediate_size", json!(128));
    assert!(
        error.starts_with(
            "model.safetensors: tensor model.layers.0.mlp.gate_proj.weight: shape is [96, 64]"
        ),
        "{error}"
    );
}

#[test]
fn refuses_weights_that_do_not_compute() {
    let mut weights = llama_weights(1);
    weights.add("model.extra", &[1], 0.0);
    let mut bytes = weights.safetensors(Dtype::F32);
    let start = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    for value in bytes[start..].as_chunks_mut::<4>().0 {
        *value = f32::NAN.to_le_bytes();
    }
    let error = llama_files()
        .with("model.safetensors", bytes)
        .load(options())
        .err()
        .unwrap();
    assert!(matches!(error, LoadError::NotFinite));
}
