"""Tiny random models of every supported family by transformers, and what transformers says of them.

python3 reference.py DIRECTORY [CASE...]

Makes DIRECTORY/<case>/: config.json and weights as transformers saves them, gguf/model.gguf where llama.cpp has the architecture
(names from llama.cpp's own table, rows and norms changed as its converter does), and reference.safetensors:
  tokens.<n>    the prompts, i32
  logits.<n>    [tokens, vocabulary] after each token of a prompt, in f32
  greedy.<n>    the 64 likeliest tokens after it, one by one, i32
"""

import pathlib
import re
import sys

import gguf
import numpy
import torch
import transformers
from safetensors.torch import save_file

VOCABULARY, NEW = 256, 64
COMMON = dict(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=None, eos_token_id=None, pad_token_id=None,
)
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONG = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0 + i / 8 for i in range(8)],
    "long_factor": [1.5 + i for i in range(8)],
}

# Name, model type, settings, architecture in GGUF.
CASES = {
    "llama2": ("llama", dict(num_key_value_heads=4), "llama"),
    "llama3": ("llama", dict(rope_parameters=LLAMA3, tie_word_embeddings=True), "llama"),
    "llama-biased": (
        "llama",
        dict(attention_bias=True, mlp_bias=True, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
        None,
    ),
    "mistral": ("mistral", dict(sliding_window=9, head_dim=32), None),
    "qwen2": ("qwen2", dict(use_sliding_window=True, sliding_window=7, max_window_layers=2), None),
    "qwen2-whole": ("qwen2", dict(), "qwen2"),
    "qwen3": ("qwen3", dict(head_dim=32, tie_word_embeddings=True), "qwen3"),
    "phi3": ("phi3", dict(sliding_window=11), None),
    "phi3-long": ("phi3", dict(original_max_position_embeddings=100, rope_parameters=LONG), None),
    "phi3-partial": ("phi3", dict(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}), None),
    "gemma": ("gemma", dict(head_dim=32), "gemma"),
    "gemma2": ("gemma2", dict(head_dim=32, query_pre_attn_scalar=32, sliding_window=8), "gemma2"),
    "gemma3": (
        "gemma3_text",
        dict(
            head_dim=32, query_pre_attn_scalar=32, sliding_window=8, num_hidden_layers=7, final_logit_softcapping=20.0,
            rope_parameters={
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        ),
        "gemma3",
    ),
    "smollm3": ("smollm3", dict(num_hidden_layers=5), "smollm3"),
}


def model_of(kind, settings, seed):
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(kind, **{**COMMON, **settings})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            # Norms around what they are when new, biases around none; matrices so large that attention has something to choose.
            around = values.mean() if "norm" in name else 0.0
            values.copy_(around + torch.randn_like(values) * 0.15)
    return model


def answer(model, prompt):
    """Logits after each token, the likeliest tokens that follow, and by how much the closest of those was ahead."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0]
        cache, token, greedy, lead = None, torch.tensor([prompt]), [], float("inf")
        cache = transformers.DynamicCache(config=model.config)
        for _ in range(NEW):
            last = model(token, cache=cache, use_cache=True).logits[0, -1]
            best = last.topk(2).values
            lead = min(lead, (best[0] - best[1]).item())
            greedy.append(last.argmax().item())
            token = torch.tensor([[greedy[-1]]])
    return logits, greedy, lead


def write_gguf(path, architecture, model):
    config, tensors = model.config, model.state_dict()
    path.parent.mkdir(parents=True)
    writer = gguf.GGUFWriter(path, architecture)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if architecture in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if architecture in ("gemma2", "gemma3"):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if rope["rope_type"] == "llama3":
        # `generate_extra_tensors` of the converter: transformers' frequencies over the plain ones.
        plain = 1.0 / rope["rope_theta"] ** (numpy.arange(0, head_dim, 2) / head_dim)
        scaled = model.model.rotary_emb.inv_freq.numpy()
        writer.add_tensor("rope_freqs.weight", (plain / scaled).astype(numpy.float32))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH_NAMES and {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[architecture], config.num_hidden_layers)
    for name, values in tensors.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = values.float().numpy()
        part = re.search(r"\.(q|k)_proj\.", name)
        if part and architecture in ("llama", "smollm3"):
            heads = config.num_attention_heads if part[1] == "q" else config.num_key_value_heads
            rows = values.shape[0] // heads // 2
            values = values.reshape(heads, 2, rows, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), numpy.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(directory, case):
    kind, settings, architecture = CASES[case]
    for seed in range(20):
        model = model_of(kind, settings, seed)
        random = numpy.random.default_rng(seed)
        # Beyond the windows; of the long variant one on each side of the original context.
        prompts = [random.integers(0, VOCABULARY, length).tolist() for length in (3, 21, 120)]
        answers = [answer(model, prompt) for prompt in prompts]
        # Where two tokens are as likely as each other, rounding chooses.
        if min(lead for *_, lead in answers) > 2e-3:
            break
    else:
        sys.exit(f"{case}: no seed without a close choice")
    out = directory / case
    out.mkdir(parents=True)
    model.save_pretrained(out, max_shard_size="60KB" if case == "llama2" else "1GB")
    if architecture:
        write_gguf(out / "gguf/model.gguf", architecture, model)
    reference = {}
    for index, (prompt, (logits, greedy, _)) in enumerate(zip(prompts, answers)):
        reference[f"tokens.{index}"] = torch.tensor(prompt, dtype=torch.int32)
        reference[f"logits.{index}"] = logits.contiguous()
        reference[f"greedy.{index}"] = torch.tensor(greedy, dtype=torch.int32)
    save_file(reference, out / "reference.safetensors")


torch.set_num_threads(1)
for each in sys.argv[2:] or CASES:
    make(pathlib.Path(sys.argv[1]), each)
