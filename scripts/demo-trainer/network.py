"""A Llama decoder in JAX, for training. Shapes and names of the saved tensors are Hugging Face's."""

import jax
import jax.numpy as jnp
import numpy as np

CONFIG = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
}

# Hugging Face's name of each stacked tensor; matrices are saved as (out, in).
LAYER = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}


def init(seed, c=CONFIG):
    rng = np.random.default_rng(seed)
    d, n, f = c["hidden_size"], c["num_hidden_layers"], c["intermediate_size"]
    kv = d // c["num_attention_heads"] * c["num_key_value_heads"]

    def normal(*shape, scale=0.02):
        return jnp.asarray(rng.normal(0, scale, shape), jnp.float32)

    deep = 0.02 / (2 * n) ** 0.5  # what adds to the residual stream starts smaller
    layers = {
        "q": normal(n, d, d), "k": normal(n, d, kv), "v": normal(n, d, kv), "o": normal(n, d, d, scale=deep),
        "gate": normal(n, d, f), "up": normal(n, d, f), "down": normal(n, f, d, scale=deep),
        "norm1": jnp.ones((n, d)), "norm2": jnp.ones((n, d)),
    }  # fmt: skip
    return {"embed": normal(c["vocab_size"], d), "layers": layers, "norm": jnp.ones(d)}


def rms(x, weight, eps):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps) * weight


def rotate(x, cos, sin):
    a, b = jnp.split(x, 2, -1)
    return x * cos + jnp.concatenate([-b, a], -1) * sin


def forward(params, tokens, c=CONFIG):
    """Logits of (rows, length) tokens. Rows are padded on the right, so causality is all the masking there is."""
    rows, length = tokens.shape
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    dim = c["hidden_size"] // heads
    angle = jnp.arange(length)[:, None] * c["rope_theta"] ** (-jnp.arange(0, dim, 2) / dim)
    angle = jnp.concatenate([angle, angle], -1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    causal = jnp.tril(jnp.ones((length, length), bool))

    def layer(x, w):
        h = rms(x, w["norm1"], c["rms_norm_eps"])
        split = lambda y, n: y.reshape(rows, length, n, dim).transpose(0, 2, 1, 3)
        q = rotate(split(h @ w["q"], heads), cos, sin).reshape(rows, kv, heads // kv, length, dim)
        k, v = rotate(split(h @ w["k"], kv), cos, sin), split(h @ w["v"], kv)
        score = jnp.einsum("bghqd,bgkd->bghqk", q, k) * dim**-0.5
        score = jax.nn.softmax(jnp.where(causal, score, -1e30), -1)
        mixed = jnp.einsum("bghqk,bgkd->bghqd", score, v).reshape(rows, heads, length, dim)
        x = x + mixed.transpose(0, 2, 1, 3).reshape(rows, length, heads * dim) @ w["o"]
        h = rms(x, w["norm2"], c["rms_norm_eps"])
        return x + (jax.nn.silu(h @ w["gate"]) * (h @ w["up"])) @ w["down"], None

    x, _ = jax.lax.scan(layer, params["embed"][tokens], params["layers"])
    return rms(x, params["norm"], c["rms_norm_eps"]) @ params["embed"].T


def to_hugging_face(params):
    """f16 tensors under Hugging Face's names; lm_head is tied to the embedding."""
    f16 = lambda x: np.ascontiguousarray(np.asarray(x, np.float32).astype(np.float16))
    tensors = {"model.embed_tokens.weight": f16(params["embed"]), "model.norm.weight": f16(params["norm"])}
    for key, name in LAYER.items():
        for i, w in enumerate(np.asarray(params["layers"][key])):
            tensors[f"model.layers.{i}.{name}.weight"] = f16(w.T if w.ndim == 2 else w)
    return tensors


def rounded(params):
    """The parameters as they are once stored."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x).astype(np.float16).astype(np.float32)), params)


def count(params):
    return sum(x.size for x in jax.tree.leaves(params))
