"""Tokenizers and chat templates as transformers reads them, and the ids that it makes of conversations.

python3 templates.py DIRECTORY

Makes DIRECTORY/<template>/: tokenizer.json, tokenizer_config.json and chat_template.jinja as transformers saves them, and
conversations.json: messages, and what `apply_chat_template` makes of them.
"""

import json
import pathlib
import random
import sys

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CONVERSATIONS = 50
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
# In the ways of the families that are supported: name, kind of tokenizer, special tokens, whether a system message is allowed.
TEMPLATES = {
    "llama2": (
        "pieces", ["<s>", "</s>"], True,
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
        "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
        + ALTERNATE +
        "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    ),
    "llama3": (
        "bytes", ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"], True,
        "{% set loop_messages = messages %}{% for message in loop_messages %}"
        "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
        "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    ),
    "mistral": (
        "pieces", ["<s>", "</s>"], False,
        "{{ bos_token }}{% for message in messages %}" + ALTERNATE +
        "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
    ),
    "qwen2": (
        "bytes", ["<|endoftext|>", "<|im_end|>", "<|im_start|>"], True,
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    ),
    "qwen3": (
        "bytes", ["<|endoftext|>", "<|im_end|>", "<|im_start|>"], True,
        "{%- if tools %}\n    {{- 'tools' }}\n{%- endif %}\n"
        "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n"
        "{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n"
        "    {%- if ns.multi_step_tool and message.role == \"user\" and message.content is string %}\n"
        "        {%- set ns.multi_step_tool = false %}\n        {%- set ns.last_query_index = index %}\n    {%- endif %}\n{%- endfor %}\n"
        "{%- for message in messages %}\n    {%- set content = message.content %}\n"
        "    {%- if '</think>' in content %}\n        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n    {%- endif %}\n"
        "    {%- if loop.index0 > ns.last_query_index %}\n        {{- '<|im_start|>' + message.role + '\\n<think>\\n\\n</think>\\n\\n' + content.lstrip('\\n') }}\n"
        "    {%- else %}\n        {{- '<|im_start|>' + message.role + '\\n' + content }}\n    {%- endif %}\n    {{- '<|im_end|>\\n' }}\n{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n"
        "        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}",
    ),
    "phi3": (
        "pieces", ["<s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"], True,
        "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    ),
    "gemma": (
        "pieces", ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], False,
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}" + ALTERNATE +
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    ),
    "json": (
        "bytes", ["<|endoftext|>", "<|im_end|>"], True,
        "{% for message in messages %}\n    {% if not loop.first %}\n{{ ', ' }}\n    {% endif %}\n{{ message | tojson }}\n"
        "{{ message | tojson(indent=2) }}\n{% endfor %}\n{{ messages | map(attribute='role') | list | tojson }}{{ eos_token }}",
    ),
}
WORDS = [
    "a", "key", "model", "What", "is", "sealed", "the", "don't", "we'll", "enclave", "1234567", "3.14", "Grüße", "naïve", "日本語の文章", "😀👍🏽",
    "مرحبا", "привет", "x = y[0]", "if (a && b) {", "}", "\n", "\n\n", "\t", "  ", "   ", "<b>", "&amp;", "\"quoted\"", "'", "\\n", "{{", "{% x %}",
    "http://example.org/?q=1", "e\u0301", "\u200b", "ſ", "Ǆ", "½", "…", "—", "#", "##", "C++", "</think>", "ok.",
]


def tokenizer_of(kind, specials, corpus):
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE(ignore_merges=True))
        split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        known = ["<unk>", *specials, *(f"<0x{byte:02X}>" for byte in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=known, limit_alphabet=120, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    if kind != "bytes":
        # The trainer makes all of these special; bytes are tokens like others.
        state = json.loads(tokenizer.to_str())
        state["added_tokens"] = [each for each in state["added_tokens"] if not each["content"].startswith("<0x")]
        tokenizer = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[1])


def text(chance):
    words = [chance.choice(WORDS) for _ in range(chance.randint(1, 30))]
    return chance.choice(["", " "]).join(words) if chance.random() < 0.2 else " ".join(words)


def conversation(chance, system):
    messages = [{"role": "system", "content": text(chance)}] if system and chance.random() < 0.5 else []
    for _ in range(chance.randint(0, 3)):
        messages += [{"role": "user", "content": text(chance)}, {"role": "assistant", "content": text(chance)}]
    return messages + [{"role": "user", "content": text(chance)}]


for name, (kind, specials, system, template) in TEMPLATES.items():
    chance = random.Random(name)
    out = pathlib.Path(sys.argv[1]) / name
    out.mkdir(parents=True)
    tokenizer = tokenizer_of(kind, specials, [text(chance) for _ in range(400)])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(out)
    cases = []
    for _ in range(CONVERSATIONS):
        messages = conversation(chance, system)
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        cases.append({"messages": messages, "ids": ids})
    (out / "conversations.json").write_text(json.dumps(cases))
