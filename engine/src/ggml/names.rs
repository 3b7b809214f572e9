//! Names of tensors: llama.cpp's (`gguf-py/gguf/tensor_mapping.py`) and those of the Hugging Face checkpoints they come from.

/// The name in safetensors of what an architecture calls `name` in GGUF.
pub(super) fn translate(architecture: &str, name: &str) -> Option<String> {
    let whole = match name {
        "token_embd.weight" => Some("model.embed_tokens.weight"),
        "output_norm.weight" => Some("model.norm.weight"),
        "output.weight" => Some("lm_head.weight"),
        // Divisors of the rotary frequencies. Checkpoints have them, if at all, in their configuration, and no name like these.
        "rope_freqs.weight" | "rope_factors_short.weight" | "rope_factors_long.weight" => {
            Some(name)
        }
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
    let post_norms = matches!(architecture, "gemma2" | "gemma3");
    let fused = architecture == "phi3";
    let qk_norm = matches!(architecture, "qwen3" | "gemma3");
    let part = match part {
        "attn_norm" => "input_layernorm",
        "post_attention_norm" if post_norms => "post_attention_layernorm",
        "ffn_norm" if post_norms => "pre_feedforward_layernorm",
        "post_ffw_norm" if post_norms => "post_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_qkv" if fused => "self_attn.qkv_proj",
        "ffn_up" if fused => "mlp.gate_up_proj",
        "attn_q" | "attn_k" | "attn_v" | "ffn_gate" if fused => return None,
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_q_norm" if qk_norm => "self_attn.q_norm",
        "attn_k_norm" if qk_norm => "self_attn.k_norm",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{kind}"))
}

/// One form of a number only, so that no two names become one.
fn is_index(layer: &str) -> bool {
    layer
        .parse::<u16>()
        .is_ok_and(|number| number.to_string() == layer)
}

/// Whether the rows of a tensor lie as ggml's rotation of neighbours needs them. llama.cpp's converter reorders the queries and keys
/// of these architectures so; those of all others rotate halves, as checkpoints do (`LlamaModel.permute`, `LLAMA_ROPE_TYPE_NORM`).
pub(super) fn is_interleaved(architecture: &str, translated: &str) -> bool {
    matches!(architecture, "llama" | "smollm3")
        && (translated.contains("self_attn.q_proj.") || translated.contains("self_attn.k_proj."))
}
