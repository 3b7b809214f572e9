"""The model as a user of the saved files computes it: numpy only, one token at a time, sharing no code with the trainer."""

import json
from pathlib import Path

import numpy as np
from jinja2 import Environment
from safetensors.numpy import load_file
from tokenizers import Tokenizer


def refuse(message):
    raise ValueError(message)


class Model:
    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        environment = Environment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = refuse
        self.template = environment.from_string(settings["chat_template"])
        self.special = {name: settings[name] for name in ("bos_token", "eos_token")}
        self.tensors = {n: t.astype(np.float32) for n, t in load_file(folder / "model.safetensors").items()}
        self.layers = range(self.config["num_hidden_layers"])

    def prompt(self, messages):
        text = self.template.render(messages=messages, add_generation_prompt=True, **self.special)
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def start(self):
        return [([], []) for _ in self.layers]

    def next_logits(self, token, cache):
        c, t = self.config, self.tensors
        dim, heads, kv = c["head_dim"], c["num_attention_heads"], c["num_key_value_heads"]
        position = len(cache[0][0])
        angle = position / c["rope_theta"] ** (np.arange(dim // 2, dtype=np.float32) * 2 / dim)
        cos, sin = np.cos(angle), np.sin(angle)

        def norm(x, name):
            return x / np.sqrt(np.mean(x * x) + c["rms_norm_eps"]) * t[name]

        def turned(x):
            first, second = x[:, : dim // 2], x[:, dim // 2 :]
            return np.concatenate([first * cos - second * sin, second * cos + first * sin], 1)

        x = t["model.embed_tokens.weight"][token]
        for i in self.layers:
            name = f"model.layers.{i}."
            h = norm(x, name + "input_layernorm.weight")
            q, k, v = (t[f"{name}self_attn.{p}_proj.weight"] @ h for p in "qkv")
            keys, values = cache[i]
            keys.append(turned(k.reshape(kv, dim)))
            values.append(v.reshape(kv, dim))
            q, k, v = turned(q.reshape(heads, dim)), np.stack(keys, 1), np.stack(values, 1)
            mixed = []
            for head in range(heads):
                group = head // (heads // kv)
                score = k[group] @ q[head] / np.sqrt(dim)
                score = np.exp(score - score.max())
                mixed.append(score @ v[group] / score.sum())
            x = x + t[name + "self_attn.o_proj.weight"] @ np.concatenate(mixed)
            h = norm(x, name + "post_attention_layernorm.weight")
            gate = t[name + "mlp.gate_proj.weight"] @ h
            x = x + t[name + "mlp.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * (t[name + "mlp.up_proj.weight"] @ h))
        return t["model.embed_tokens.weight"] @ norm(x, "model.norm.weight")

    def answer(self, messages, temperature=0.0, rng=None, most=200):
        cache, out = self.start(), []
        for token in self.prompt(messages):
            logits = self.next_logits(token, cache)
        while len(out) < most:
            if temperature:  # Gumbel's trick draws from the softmax
                logits = logits / temperature + rng.gumbel(size=logits.shape)
            if (token := int(logits.argmax())) == self.config["eos_token_id"]:
                break
            out.append(token)
            logits = self.next_logits(token, cache)
        return self.tokenizer.decode(out)
