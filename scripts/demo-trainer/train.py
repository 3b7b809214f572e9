"""Trains the demonstration model, checks it, and writes it. Started by scripts/train-demo-model."""

import argparse
import json
import pickle
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

import chat
import network
from corpus import Corpus

SEED = 20261120
VOCABULARY = network.CONFIG["vocab_size"]
LENGTHS = [24, 32, 40, 52, 68, 96, 144, 256]
TOKENS_PER_BATCH = 1344
PEAK_RATE, WARM_UP, DECAY = 2.0e-3, 200, 0.05
BETA1, BETA2, CLIP = 0.9, 0.98, 1.0
# Questions and system messages count a little: predicting them teaches the words.
REST = 0.1
CHECKPOINT_EVERY = 200
# OpenAI's default temperature is 1, at which a model this small would soon leave the sentence it has begun. Its logits are
# multiplied by this (in the last norm's weight), which changes no greedy answer.
SHARPEN = 3.0


def loss(params, tokens, weights):
    logits = network.forward(params, tokens[:, :-1])
    wanted, weights = tokens[:, 1:], weights[:, 1:]
    logp = jax.nn.log_softmax(logits, -1)
    picked = jnp.take_along_axis(logp, wanted[..., None], -1)[..., 0]
    answers = weights == 1.0
    right = (logits.argmax(-1) == wanted) | ~answers
    shown = -(picked * answers).sum() / answers.sum()
    return -(picked * weights).sum() / weights.sum(), (shown, right.all(-1))


@jax.jit
def step(params, first, second, number, rate, tokens, weights):
    """One AdamW step; vectors (norms) and the embedding are not decayed."""
    (_, (shown, _)), grads = jax.value_and_grad(loss, has_aux=True)(params, tokens, weights)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
    grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, CLIP / (norm + 1e-6)), grads)
    first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, grads)
    second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, grads)

    def update(p, m, v):
        change = m / (1 - BETA1**number) / (jnp.sqrt(v / (1 - BETA2**number)) + 1e-8)
        return p - rate * (change + (DECAY * p if p.ndim == 3 else 0.0))

    return jax.tree.map(update, params, first, second), first, second, shown


def rate_at(number, steps):
    if number < WARM_UP:
        return PEAK_RATE * (number + 1) / WARM_UP
    done = min(1.0, (number - WARM_UP) / max(1, steps - WARM_UP))
    return PEAK_RATE * (0.5 + 0.5 * np.cos(np.pi * done)) + 1e-6


@jax.jit
def exact(params, tokens, weights):
    return loss(params, tokens, weights)[1][1]


def accuracy(params, tokenizer, questions):
    """Share answered exactly. Greedy decoding gives the wanted answer just when each next token is the likeliest."""
    rows = [chat.encode(tokenizer, [("user", q), ("assistant", e.answer)]) for e, q in questions]
    hits = []
    for start in range(0, len(rows), 16):
        group = rows[start : start + 16]
        tokens, weights = chat.pad(group + group[:1] * (16 - len(group)), 224, 0.0)
        hits += list(np.asarray(exact(params, tokens, weights))[: len(group)])
    return sum(hits) / len(hits), [q for (_, q), hit in zip(questions, hits) if not hit]


def train(work, steps, minutes):
    corpus = Corpus()
    vocabulary = work / "tokenizer.json"
    if not vocabulary.exists():
        chat.train_tokenizer(corpus, VOCABULARY, SEED).save(str(vocabulary))
    tokenizer = Tokenizer.from_file(str(vocabulary))
    params = network.init(SEED)
    zeros = jax.tree.map(jnp.zeros_like, params)
    first, second, number, spent = zeros, zeros, 0, 0.0
    saved = work / "checkpoint.pickle"
    if saved.exists():
        params, first, second, number, spent = jax.tree.map(jnp.asarray, pickle.loads(saved.read_bytes()))
        number, spent = int(number), float(spent)
        print(f"continuing at step {number}", flush=True)
    print(f"{network.count(params)} parameters, {len(corpus.entries)} entries, {corpus.distinct_questions} questions", flush=True)
    started, tokens_seen, recent = time.monotonic() - spent, 0, []
    stream = chat.batches(corpus, tokenizer, SEED + number, TOKENS_PER_BATCH, LENGTHS, REST)
    for tokens, weights in stream:
        if number >= steps:
            break
        rate = rate_at(number, steps)
        params, first, second, shown = step(params, first, second, float(number + 1), float(rate), tokens, weights)
        number += 1
        recent.append(float(shown))
        tokens_seen += tokens.size
        if number % CHECKPOINT_EVERY == 0 or number == steps:
            spent = time.monotonic() - started
            state = jax.tree.map(np.asarray, (params, first, second, number, spent))
            saved.with_suffix(".new").write_bytes(pickle.dumps(state))
            saved.with_suffix(".new").replace(saved)
            share, wrong = accuracy(params, tokenizer, corpus.dev)
            print(
                f"step {number}/{steps} {spent / 60:.1f} min, answer loss {np.mean(recent):.4f}, dev exact {share:.0%},"
                f" rate {rate:.1e}, {tokens_seen} tokens, wrong: {wrong[:4] if share > 0.5 else ''}",
                flush=True,
            )
            recent = []
            if minutes and spent > minutes * 60:
                print("out of time", flush=True)
                break
    return params, tokenizer, corpus


# ---- writing ----------------------------------------------------------------------------------------------------


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=True) + "\n", encoding="ascii")


def write(out, params, tokenizer):
    out.mkdir(parents=True, exist_ok=True)
    ids = {t: tokenizer.token_to_id(t) for t in chat.SPECIAL}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **network.CONFIG,
        "head_dim": network.CONFIG["hidden_size"] // network.CONFIG["num_attention_heads"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "bos_token_id": ids[chat.BEGIN],
        "eos_token_id": ids[chat.END],
        "torch_dtype": "float16",
        "use_cache": True,
    }
    write_json(out / "config.json", config)
    ends = {"bos_token_id": ids[chat.BEGIN], "eos_token_id": ids[chat.END]}
    write_json(out / "generation_config.json", {**ends, "do_sample": False, "max_new_tokens": 200})
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": network.CONFIG["max_position_embeddings"],
            "bos_token": chat.BEGIN,
            "eos_token": chat.END,
            "pad_token": chat.END,
            "add_bos_token": False,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "chat_template": chat.TEMPLATE,
        },
    )
    tokenizer.save(str(out / "tokenizer.json"))
    save_file(network.to_hugging_face(params), str(out / "model.safetensors"), metadata={"format": "pt"})


GOLDEN = [
    [("user", "What does the host see?")],
    [("system", "You are a helpful assistant."), ("user", "What is a TEE?")],
    [("user", "Hello"), ("assistant", "Hello! I am a small demonstration model. Ask me about Cloister."), ("user", "Who can read my prompt?")],
]  # fmt: skip


def golden(params, tokenizer):
    """What an engine must compute from the stored weights, in f32."""
    stored, cases = network.rounded(params), []
    end = tokenizer.token_to_id(chat.END)
    for messages in GOLDEN:
        text = chat.render(messages, add_generation_prompt=True)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        expected = chat.encode(tokenizer, messages)[0] + [tokenizer.token_to_id("<|assistant|>")]
        assert ids == expected, "the chat template does not render as trained"
        answer, top = [], None
        while len(answer) < 200:
            tokens = np.zeros((1, 256), np.int32)
            tokens[0, : len(ids) + len(answer)] = ids + answer
            logits = np.asarray(network.forward(stored, tokens)[0, len(ids) + len(answer) - 1])
            if top is None:
                order = np.argsort(-logits)[:5]
                top = [{"id": int(i), "logit": round(float(logits[i]), 5)} for i in order]
            if (best := int(logits.argmax())) == end:
                break
            answer.append(best)
        cases.append(
            {
                "messages": [{"role": r, "content": t} for r, t in messages],
                "prompt": text,
                "prompt_ids": ids,
                "top5_at_last_position": top,
                "greedy_ids": answer,
                "greedy_text": tokenizer.decode(answer),
            }
        )
    return cases


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    params, tokenizer, corpus = train(options.work, options.steps, options.minutes)
    params = {**params, "norm": params["norm"] * SHARPEN}
    write(options.out, params, tokenizer)
    write_json(options.out / "golden.json", {"note": "computed by scripts/demo-trainer in f32 from model.safetensors", "cases": golden(params, tokenizer)})
    share, wrong = accuracy(network.rounded(params), tokenizer, corpus.dev)
    print(f"as stored: dev exact {share:.0%}, wrong: {wrong}")


if __name__ == "__main__":
    main()
