"""The tokenizer, and conversations as token ids."""

import random

import numpy as np
from jinja2 import Environment
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BEGIN, END = "<|begin|>", "<|end|>"
SPECIAL = [BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>"]

# Any role but the three is an error, as with larger models.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('role ' + message['role'] + ' is not supported') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + (message['content'] | trim) + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(corpus, vocab_size, seed):
    rng = random.Random(seed)

    def texts():
        for entry in corpus.entries.values():
            for _ in range(6):
                yield from corpus.question(rng, entry)
        for _ in range(20000):
            yield corpus.conversation(rng)[-2][1]
        yield from corpus.system

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def render(messages, add_generation_prompt):
    """What the chat template makes of (role, text) pairs."""
    environment = Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE).render(
        messages=[{"role": r, "content": t} for r, t in messages],
        bos_token=BEGIN,
        add_generation_prompt=add_generation_prompt,
    )


def encode(tokenizer, messages):
    """Token ids of a conversation, and per token whether the model is to produce it."""
    ids, produced = [tokenizer.token_to_id(BEGIN)], [False]
    end = tokenizer.token_to_id(END)
    for role, text in messages:
        own = role == "assistant"
        tokens = tokenizer.encode(text.strip(), add_special_tokens=False).ids
        ids += [tokenizer.token_to_id(f"<|{role}|>"), *tokens, end]
        produced += [False] + [own] * (len(tokens) + 1)
    return ids, produced


def batches(corpus, tokenizer, seed, tokens_per_batch, lengths, rest):
    """Endless (tokens, weights): rows of like length together, padded to one of `lengths`; `rest` weighs what is not an answer."""
    rng = random.Random(seed)
    while True:
        drawn = [encode(tokenizer, corpus.conversation(rng)) for _ in range(4096)]
        ready = []
        for low, high in zip([0, *lengths], lengths):
            group = [d for d in drawn if low < len(d[0]) <= high]
            size = max(1, tokens_per_batch // high)
            rng.shuffle(group)
            ready += [(group[i : i + size], high, size) for i in range(0, len(group) - size + 1, size)]
        rng.shuffle(ready)
        for group, length, size in ready:
            yield pad(group, length, rest)


def pad(group, length, rest):
    tokens = np.zeros((len(group), length), np.int32)
    weights = np.zeros((len(group), length), np.float32)
    for row, (ids, produced) in enumerate(group):
        tokens[row, : len(ids)] = ids
        weights[row, : len(ids)] = np.where(produced, 1.0, rest)
    return tokens, weights
