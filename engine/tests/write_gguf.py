"""Writes one tiny random Llama per format: with llama.cpp's own package as GGUF, and what that stands for as safetensors.

python3 write_gguf.py DIRECTORY     # makes DIRECTORY/<format>/{gguf,plain}
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy

HIDDEN, INNER, HEADS, KV_HEADS, LAYERS, VOCABULARY = 256, 512, 4, 2, 2, 264
HEAD_DIM = HIDDEN // HEADS
SPECIALS = ["<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
random = numpy.random.default_rng(5)
F32 = gguf.GGMLQuantizationType.F32


def permute(weights, heads):
    """As `LlamaModel.permute` of convert_hf_to_gguf.py does."""
    shape = weights.shape
    return weights.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def unpermute(weights, heads):
    shape = weights.shape
    return weights.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def blocks(kind, rows, width):
    """Random blocks whose scales are of the size that weights have; the package quantizes to none of the K formats."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = random.integers(0, 256, (rows * width // block, size), dtype=numpy.uint8)
    scale = lambda around: (around * random.uniform(0.5, 1.5, (len(data), 1))).astype(numpy.float16).view(numpy.uint8)
    if kind == gguf.GGMLQuantizationType.Q4_K:
        data[:, 0:2] = scale(0.0003)
        data[:, 2:4] = scale(0.002)
    else:
        data[:, 208:210] = scale(0.00005)
    return data.reshape(rows, -1)


def quantized(kind, rows, width):
    """Bytes for the file, and the numbers they stand for."""
    if kind in (gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q6_K):
        data = blocks(kind, rows, width)
    else:
        data = gguf.quants.quantize(random.uniform(-0.1, 0.1, (rows, width)).astype(numpy.float32), kind)
    return data, gguf.quants.dequantize(data, kind).astype(numpy.float32).reshape(rows, width)


def save_safetensors(path, tensors):
    header, data = {}, b""
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), len(data) + values.nbytes]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def byte_tokens():
    shown, extra = [], 256
    for byte in range(256):
        printable = 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255
        shown.append(chr(byte if printable else extra))
        extra += not printable
    return shown + SPECIALS + ["he"] + ["[unused %d]" % i for i in range(VOCABULARY - 257 - len(SPECIALS))]


def write(directory, kind):
    (directory / "gguf").mkdir(parents=True)
    (directory / "plain").mkdir()
    writer = gguf.GGUFWriter(directory / "gguf/model.gguf", "llama")
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(byte_tokens())
    writer.add_token_types([3 if 256 <= i < 256 + len(SPECIALS) else 1 for i in range(VOCABULARY)])
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_chat_template(TEMPLATE)
    plain = {}

    def matrix(name, theirs, rows, width, heads=None):
        data, values = quantized(kind, rows, width)
        writer.add_tensor(name, data, raw_dtype=kind)
        plain[theirs] = numpy.ascontiguousarray(values if heads is None else unpermute(values, heads))
        if heads is not None:
            assert (permute(plain[theirs], heads) == values).all()

    def norm(name, theirs):
        values = (1 + random.uniform(-0.2, 0.2, HIDDEN)).astype(numpy.float32)
        writer.add_tensor(name, values, raw_dtype=F32)
        plain[theirs] = values

    matrix("token_embd.weight", "model.embed_tokens.weight", VOCABULARY, HIDDEN)
    matrix("output.weight", "lm_head.weight", VOCABULARY, HIDDEN)
    norm("output_norm.weight", "model.norm.weight")
    # What Llama 3.1's scaling of long wavelengths becomes.
    divisors = numpy.linspace(1, 8, HEAD_DIM // 2).astype(numpy.float32)
    writer.add_tensor("rope_freqs.weight", divisors, raw_dtype=F32)
    plain["rope_freqs.weight"] = divisors
    for layer in range(LAYERS):
        ours, theirs = f"blk.{layer}.", f"model.layers.{layer}."
        norm(ours + "attn_norm.weight", theirs + "input_layernorm.weight")
        norm(ours + "ffn_norm.weight", theirs + "post_attention_layernorm.weight")
        kv = KV_HEADS * HEAD_DIM
        matrix(ours + "attn_q.weight", theirs + "self_attn.q_proj.weight", HIDDEN, HIDDEN, HEADS)
        matrix(ours + "attn_k.weight", theirs + "self_attn.k_proj.weight", kv, HIDDEN, KV_HEADS)
        matrix(ours + "attn_v.weight", theirs + "self_attn.v_proj.weight", kv, HIDDEN)
        matrix(ours + "attn_output.weight", theirs + "self_attn.o_proj.weight", HIDDEN, HIDDEN)
        matrix(ours + "ffn_gate.weight", theirs + "mlp.gate_proj.weight", INNER, HIDDEN)
        matrix(ours + "ffn_up.weight", theirs + "mlp.up_proj.weight", INNER, HIDDEN)
        matrix(ours + "ffn_down.weight", theirs + "mlp.down_proj.weight", HIDDEN, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_safetensors(directory / "plain/model.safetensors", plain)
    config = {
        "model_type": "llama", "hidden_act": "silu", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    }
    (directory / "plain/config.json").write_text(json.dumps(config))


for name in ["F32", "F16", "BF16", "Q8_0", "Q4_K", "Q6_K"]:
    write(pathlib.Path(sys.argv[1]) / name.lower(), gguf.GGMLQuantizationType[name])
