"""Tiny random encoders of every supported family by transformers, and what transformers says of some texts.

python3 encoders.py DIRECTORY [CASE...]

Makes DIRECTORY/<case>/: config.json and weights as transformers saves them, a tokenizer trained on the spot, 1_Pooling/config.json, and
  texts.json               {"texts": […]}, or {"query": …, "texts": […]} for a case that ranks
  reference.safetensors    tokens.<n>   of each text, or pair of query and text, i32
                           alone.<n>    [tokens, hidden], the last hidden state of the text alone, in f32
                           padded.<n>   the same from one padded batch of all texts with its mask
                           vectors      [texts, hidden], pooled as sentence-transformers does, of unit length; or
                           scores       [texts], the only logit of each pair
"""

import json
import pathlib
import random
import re
import sys

import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

COMMON = dict(
    vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=300,
    bos_token_id=None, eos_token_id=None,
)
DISTIL = dict(vocab_size=300, dim=64, hidden_dim=96, n_layers=3, n_heads=4, max_position_embeddings=300)
MODERN = dict(num_hidden_layers=5, local_attention=16, cls_token_id=None, sep_token_id=None, pad_token_id=0)

# Name, model type, settings, pooling; "score" for a cross-encoder.
CASES = {
    "bert": ("bert", {}, "mean"),
    "bert-first": ("bert", dict(hidden_act="gelu_new", type_vocab_size=3), "cls"),
    "bert-score": ("bert", dict(num_labels=1), "score"),
    "distilbert": ("distilbert", DISTIL, "mean"),
    "distilbert-max": ("distilbert", dict(**DISTIL, activation="relu"), "max"),
    "distilbert-score": ("distilbert", dict(**DISTIL, num_labels=1), "score"),
    "xlm-roberta": ("xlm-roberta", dict(type_vocab_size=1, pad_token_id=1), "mean"),
    "xlm-roberta-score": ("xlm-roberta", dict(type_vocab_size=1, pad_token_id=1, num_labels=1), "score"),
    "roberta": ("roberta", dict(type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5), "lasttoken"),
    "camembert": ("camembert", dict(type_vocab_size=1, pad_token_id=1), "mean"),
    "camembert-score": ("camembert", dict(type_vocab_size=1, pad_token_id=1, num_labels=1), "score"),
    "modernbert": ("modernbert", MODERN, "cls"),
    "modernbert-biased": ("modernbert", dict(**MODERN, attention_bias=True, mlp_bias=True, norm_bias=True), "weightedmean"),
    "modernbert-score": ("modernbert", dict(**MODERN, num_labels=1, classifier_pooling="mean", classifier_bias=True), "score"),
    "modernbert-score-first": ("modernbert", dict(**MODERN, num_labels=1), "score"),
    "nomic": ("nomic_bert", {}, "mean_sqrt_len_tokens"),
    "nomic-published": ("nomic_bert", {}, "mean"),
    "nomic-score": ("nomic_bert", dict(num_labels=1), "score"),
}


def tokenizer_of(kind, texts):
    """In the way of the family: the special tokens around one text and between two."""
    roberta = "roberta" in kind or kind == "camembert"
    cls, sep, pad, unknown = ("<s>", "</s>", "<pad>", "<unk>") if roberta else ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    special = [cls, pad, sep, unknown] if roberta else [pad, cls, sep, unknown]
    if roberta:
        tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        trainer = tokenizers.trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token=unknown, show_progress=False)
        single, pair = f"{cls} $A {sep}", f"{cls} $A {sep} {sep} $B {sep}"
    elif kind == "modernbert":
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted({c for text in texts for c in text})
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=290, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
        single, pair = f"{cls} $A {sep}", f"{cls} $A {sep} $B {sep}"
    else:
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=unknown))
        tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=250, special_tokens=special, show_progress=False)
        single, pair = f"{cls} $A {sep}", f"{cls} $A {sep} $B:1 {sep}:1"
    tokenizer.train_from_iterator(texts, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in (cls, sep)]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    # As files have it: settings of the last training run, which must not matter.
    tokenizer.enable_truncation(max_length=9)
    tokenizer.enable_padding(length=200)
    return tokenizer


def texts_of(seed):
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcdefghij", k=chance.randint(1, 7))) for _ in range(60)]
    sentence = lambda count: " ".join(chance.choice(words) for _ in range(count))
    return [sentence(count) for count in (1, 30, 4, 17, 2, 9)], [sentence(12) for _ in range(200)]


def model_of(kind, settings, score, seed):
    torch.manual_seed(seed)
    common = {} if kind == "distilbert" else COMMON
    config = transformers.AutoConfig.for_model(kind, **{**common, **settings})
    cls = transformers.AutoModelForSequenceClassification if score else transformers.AutoModel
    model = cls.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            # Norms around what they are when new, biases around none; matrices so large that attention has something to choose.
            around = values.mean() if "norm" in name.lower() else 0.0
            values.copy_(around + torch.randn_like(values) * 0.15)
    return model


def pooled(mode, hidden, mask):
    """`sentence_transformers.models.Pooling`, then Normalize."""
    wide = mask.unsqueeze(-1).float()
    if mode == "cls":
        vectors = hidden[:, 0]
    elif mode == "max":
        vectors = hidden.masked_fill(wide == 0, -1e9).max(1).values
    elif mode == "lasttoken":
        vectors = hidden[torch.arange(len(mask)), mask.sum(1) - 1]
    elif mode == "weightedmean":
        weights = wide * torch.arange(1, hidden.shape[1] + 1).view(1, -1, 1)
        vectors = (hidden * weights).sum(1) / weights.sum(1)
    else:
        count = wide.sum(1)
        vectors = (hidden * wide).sum(1) / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)
    return torch.nn.functional.normalize(vectors, dim=1)


def publish_nomic(out):
    """Renames what transformers saved to what nomic-ai publishes: its code's names, in config.json too."""
    path = out / "config.json"
    config = json.loads(path.read_text())
    for new, old in {
        "hidden_size": "n_embd", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer", "intermediate_size": "n_inner",
        "layer_norm_eps": "layer_norm_epsilon", "max_position_embeddings": "max_trained_positions",
    }.items():
        config[old] = config.pop(new)
    base = config.pop("rope_parameters")["rope_theta"]
    config.pop("hidden_act"), config.pop("head_dim")
    config.update(
        activation_function="swiglu", rotary_emb_base=base, rotary_emb_fraction=1.0, rotary_emb_interleaved=False, prenorm=False,
        qkv_proj_bias=False, mlp_fc1_bias=False, mlp_fc2_bias=False, use_rms_norm=False, n_positions=8192, rotary_scaling_factor=None,
    )
    path.write_text(json.dumps(config))
    tensors = load_file(out / "model.safetensors")
    renamed = {}
    for name, values in tensors.items():
        for pattern, name_there in [
            (r"^embeddings\.LayerNorm", "emb_ln"), (r"^layers", "encoder.layers"), ("self_attn.o_proj", "attn.out_proj"),
            ("up_proj", "fc11"), ("gate_proj", "fc12"), ("down_proj", "fc2"), ("post_attention_layernorm", "norm1"),
            ("post_mlp_layernorm", "norm2"),
        ]:
            name = re.sub(pattern, name_there, name)
        renamed[name] = values
    for name in [name for name in renamed if "self_attn.q_proj" in name]:
        parts = [renamed.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        renamed[name.replace("self_attn.q_proj", "attn.Wqkv")] = torch.cat(parts)
    save_file(renamed, out / "model.safetensors")


def make(directory, case):
    kind, settings, pooling = CASES[case]
    score = pooling == "score"
    texts, corpus = texts_of(case)
    query = texts[3] if score else None
    trained = tokenizer_of(kind, corpus)
    model = model_of(kind, settings, score, seed=1)
    out = directory / case
    (out / "1_Pooling").mkdir(parents=True)
    model.save_pretrained(out, **({"save_original_format": False} if case == "nomic" else {}))
    trained.save(str(out / "tokenizer.json"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(out / "tokenizer.json"))
    if not score:
        flag = "pooling_mode_lasttoken" if pooling == "lasttoken" else f"pooling_mode_{pooling.removesuffix('_tokens')}_tokens"
        flag = "pooling_mode_cls_token" if pooling == "cls" else flag
        old = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": False, flag: True}
        new = {"embedding_dimension": 64, "pooling_mode": pooling, "include_prompt": True}
        (out / "1_Pooling/config.json").write_text(json.dumps(new if kind == "bert" else old))
    (out / "texts.json").write_text(json.dumps({"query": query, "texts": texts} if score else {"texts": texts}))
    # Types are what BERT and Nomic are given; the others' tokenizers return none.
    typed = kind in ("bert", "nomic_bert")
    encode = lambda *text: tokenizer(*text, truncation=False, return_token_type_ids=typed)
    encoded = [encode(query, text) if score else encode(text) for text in texts]
    ids = [torch.tensor(each["input_ids"]) for each in encoded]
    types = [torch.tensor(each.get("token_type_ids", [0] * len(each["input_ids"]))) for each in encoded]
    padding = model.config.pad_token_id or 0
    pad = lambda rows, value: torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
    mask = pad([torch.ones_like(row) for row in ids], 0)
    base = model.base_model if score else model
    run = lambda ids, types, mask: base(input_ids=ids, attention_mask=mask, **({"token_type_ids": types} if typed else {})).last_hidden_state
    reference = {}
    with torch.no_grad():
        hidden = run(pad(ids, padding), pad(types, 0), mask)
        for index, (row, kinds) in enumerate(zip(ids, types)):
            reference[f"tokens.{index}"] = row.to(torch.int32)
            reference[f"alone.{index}"] = run(row[None], kinds[None], torch.ones_like(row[None]))[0].contiguous()
            reference[f"padded.{index}"] = hidden[index, : len(row)].contiguous()
        if score:
            more = {"token_type_ids": pad(types, 0)} if typed else {}
            reference["scores"] = model(input_ids=pad(ids, padding), attention_mask=mask, **more).logits[:, 0].contiguous()
        else:
            reference["vectors"] = pooled(pooling, hidden, mask)
    if case == "nomic-published":
        publish_nomic(out)
    save_file(reference, out / "reference.safetensors")


torch.set_num_threads(1)
for each in sys.argv[2:] or CASES:
    make(pathlib.Path(sys.argv[1]), each)
