//! Names of tensors: llama.cpp's (`gguf-py/gguf/tensor_mapping.py`) and those of the Hugging Face checkpoints they come from.

/// The name in safetensors of what an architecture calls `name` in GGUF.
pub(super) fn translate(architecture: &str, name: &str) -> Option<String> {
    let whole = match name {
        "token_embd.weight" => Some("model.embed_tokens.weight"),
        "output_norm.weight" => Some("model.norm.weight"),
        "output.weight" => Some("lm_head.weight"),
        // Divisors of the rotary frequencies; no checkpoint has them, and no name of one is like it.
        "rope_freqs.weight" => Some("rope_freqs.weight"),
        _ => None,
    };
    if let Some(whole) = whole {
        return Some(whole.into());
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = part.rsplit_once('.')?;
    if !is_index(layer) || !matches!(kind, "weight" | "bias") {
        return None;
    }
    let part = match part {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    let known = architecture == "llama";
    known.then(|| format!("model.layers.{layer}.{part}.{kind}"))
}

/// One form of a number only, so that no two names become one.
fn is_index(layer: &str) -> bool {
    layer
        .parse::<u16>()
        .is_ok_and(|number| number.to_string() == layer)
}

/// Whether the rows of a tensor lie as ggml's rotation of neighbours needs them. llama.cpp's converter reorders the queries and keys
/// of this architecture so; those of all others rotate halves, as checkpoints do (`LlamaModel.permute`, `LLAMA_ROPE_TYPE_NORM`).
pub(super) fn is_interleaved(architecture: &str, translated: &str) -> bool {
    architecture == "llama"
        && (translated.contains("self_attn.q_proj.") || translated.contains("self_attn.k_proj."))
}
