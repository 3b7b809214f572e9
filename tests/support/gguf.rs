//! A Llama in safetensors becomes one GGUF file, as llama.cpp's converter lays it out.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value as Raw};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use serde_json::Value;

/// Replaces config.json and model.safetensors of `dir` by model.gguf, its matrices in `format`. The tokenizer stays beside it.
pub fn convert(dir: &Path, format: GgmlDType) {
    let config = dir.join("config.json");
    let weights = dir.join("model.safetensors");
    let settings: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let number = |field: &str| settings[field].as_u64().unwrap();
    let head_dim = usize::try_from(number("hidden_size") / number("num_attention_heads")).unwrap();
    let count = |field: &str| Raw::U32(u32::try_from(number(field)).unwrap());
    let float = |field: &str| Raw::F32(settings[field].as_f64().unwrap() as f32);
    let metadata = [
        ("general.architecture", Raw::String("llama".to_owned())),
        ("general.name", Raw::String("tiny".to_owned())),
        ("llama.vocab_size", count("vocab_size")),
        ("llama.embedding_length", count("hidden_size")),
        ("llama.feed_forward_length", count("intermediate_size")),
        ("llama.block_count", count("num_hidden_layers")),
        ("llama.attention.head_count", count("num_attention_heads")),
        (
            "llama.attention.head_count_kv",
            count("num_key_value_heads"),
        ),
        (
            "llama.attention.layer_norm_rms_epsilon",
            float("rms_norm_eps"),
        ),
        ("llama.rope.freq_base", float("rope_theta")),
        ("llama.context_length", count("max_position_embeddings")),
        ("tokenizer.ggml.eos_token_id", count("eos_token_id")),
    ];
    let tensors: HashMap<String, Tensor> =
        candle_core::safetensors::load(&weights, &Device::Cpu).unwrap();
    let stored: Vec<(String, QTensor)> = tensors
        .into_iter()
        .map(|(name, tensor)| {
            let tensor = match name.contains("q_proj") || name.contains("k_proj") {
                true => interleave(&tensor, head_dim),
                false => tensor,
            };
            let format = if tensor.rank() == 2 {
                format
            } else {
                GgmlDType::F32
            };
            (rename(&name), QTensor::quantize(&tensor, format).unwrap())
        })
        .collect();
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = stored
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let mut file = fs::File::create(dir.join("model.gguf")).unwrap();
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    fs::remove_file(config).unwrap();
    fs::remove_file(weights).unwrap();
}

/// Rotary pairs become neighbours (`LlamaModel.permute` of convert_hf_to_gguf.py).
fn interleave(tensor: &Tensor, head_dim: usize) -> Tensor {
    let (rows, width) = tensor.dims2().unwrap();
    let halves = tensor
        .reshape((rows / head_dim, 2, head_dim / 2, width))
        .unwrap();
    let pairs = halves.transpose(1, 2).unwrap().contiguous().unwrap();
    pairs.reshape((rows, width)).unwrap()
}

fn rename(name: &str) -> String {
    [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ]
    .iter()
    .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}
