"""The engine beside llama.cpp and sentence-transformers, on the same files, taking turns; run by `scripts/bench engine`.

peers.py OURS FOLDER MINILM [--cpu]

OURS is the program of engine/examples/bench_engine.rs. FOLDER keeps the model files: the shape of Llama 3.2 1B, its matrices filled with
blocks of random bits from a seed, in q4_k and q8_0 (the table of the vocabulary in q6_k beside q4_k), and a tokenizer of single bytes.
Each program runs on as many threads as there are processors. Each pair of figures is the median of three turns.

--cpu is for a machine that has other things to do: both sides get one and the same processor, and what is printed is the processor's time
in milliseconds for each token or text. It says nothing about how well several threads share the work.
"""

import ctypes
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import numpy

HIDDEN, LAYERS, HEADS, KV_HEADS, FEED, VOCABULARY, CONTEXT = 2048, 16, 32, 8, 8192, 128256, 2048
BOS, EOS = 128000, 128001
CPU = sys.argv[-1] == "--cpu"
if CPU:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
THREADS = len(os.sched_getaffinity(0))
# Processor time hardly changes from one turn to the next.
ROUNDS = 1 if CPU else 3


def blocks(random, kind, rows, columns):
    """Rows of blocks whose weights are spread about zero with a deviation of some 0.02."""
    half = lambda number: numpy.frombuffer(numpy.float16(number).tobytes(), numpy.uint8)
    count = rows * columns // (32 if kind == "Q8_0" else 256)
    size = {"Q8_0": 34, "Q4_K": 144, "Q6_K": 210}[kind]
    out = random.integers(0, 256, (count, size), numpy.uint8)
    if kind == "Q8_0":
        out[:, :2] = half(0.02 / 74)
    elif kind == "Q4_K":
        # Eight scales of 32 and as many minima of 30, six bits each: a nibble n stands for 32·d·n - 30·m.
        out[:, :2], out[:, 2:4] = half(0.02 / 32 / 4.6), half(0.02 / 4.6 * 7.5 / 30)
        out[:, 4:8], out[:, 8:12], out[:, 12:16] = 32 | (32 >> 4) << 6, 30 | (30 >> 4) << 6, (32 & 15) | (30 & 15) << 4
    else:
        out[:, 192:208] = 32
        out[:, 208:] = half(0.02 / 32 / 18.5)
    return out.reshape(rows, -1)


def write_model(folder, kind):
    import gguf

    path = folder / kind.lower() / "model.gguf"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    random = numpy.random.default_rng(1)
    writer = gguf.GGUFWriter(partial, "llama", use_temp_file=True)
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_tokenizer_model("no_vocab")
    writer.add_eos_token_id(EOS)
    add = lambda name, rows, columns, kind=kind: writer.add_tensor(
        f"{name}.weight", blocks(random, kind, rows, columns), raw_dtype=gguf.GGMLQuantizationType[kind]
    )
    ones = numpy.ones(HIDDEN, numpy.float32)
    narrow = HIDDEN // HEADS * KV_HEADS
    add("token_embd", VOCABULARY, HIDDEN, "Q6_K" if kind == "Q4_K" else kind)
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(LAYERS):
        name = f"blk.{layer}."
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{name}{norm}.weight", ones)
        for part, rows, columns in [
            ("attn_q", HIDDEN, HIDDEN), ("attn_k", narrow, HIDDEN), ("attn_v", narrow, HIDDEN), ("attn_output", HIDDEN, HIDDEN),
            ("ffn_gate", FEED, HIDDEN), ("ffn_up", FEED, HIDDEN), ("ffn_down", HIDDEN, FEED),
        ]:
            add(name + part, rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_tokenizer(path.parent)
    partial.rename(path)
    return path


def write_tokenizer(folder):
    """Single bytes, and a word for every other id, so that whatever the model says is text."""
    shown = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
    vocabulary = {chr(b): b for b in shown}
    vocabulary |= {chr(256 + n): b for n, b in enumerate(b for b in range(256) if b not in shown)}
    vocabulary |= {f"w{n}": n for n in range(256, VOCABULARY) if n not in (BOS, EOS)}
    special = lambda id, content: dict(
        id=id, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True
    )
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
    tokenizer = dict(
        version="1.0", truncation=None, padding=None, added_tokens=[special(BOS, "<bos>"), special(EOS, "<eos>")], normalizer=None,
        pre_tokenizer=byte_level, post_processor=None, decoder=byte_level,
        model=dict(
            type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False,
            byte_fallback=False, vocab=vocabulary, merges=[],
        ),
    )
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(chat_template=template, eos_token="<eos>")))


class Ours:
    def __init__(self, program, model, *options):
        command = [program, str(model), *options]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(THREADS)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.opened = float(self.process.stdout.readline())

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class LlamaCpp:
    """Its C interface by ctypes: no sampling and no text, only the steps of the model."""

    def __init__(self, path):
        import llama_cpp

        self.c = c = llama_cpp
        silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        self.silent = silent
        c.llama_log_set(silent, ctypes.c_void_p(0))
        c.llama_backend_init()
        settings = c.llama_model_default_params()
        settings.use_extra_bufts = True
        self.model = c.llama_model_load_from_file(str(path).encode(), settings)
        if not self.model:
            sys.exit("llama.cpp does not load the model")
        settings = c.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = 16 * 1024, 512, 512, 16
        settings.n_threads = settings.n_threads_batch = THREADS
        self.context = c.llama_init_from_model(self.model, settings)
        self.batch = c.llama_batch_init(512, 0, 1)
        self.memory = c.llama_get_memory(self.context)

    def step(self, rows):
        """Rows of (sequence, position, wants logits)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for index, (sequence, position, wanted) in enumerate(rows):
            batch.token[index] = (index * 7919 + position) % 255
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = wanted
        if self.c.llama_decode(self.context, batch):
            sys.exit("llama.cpp fails")
        self.c.llama_synchronize(self.context)

    def forget(self):
        self.c.llama_memory_clear(self.memory, True)

    def close(self):
        self.c.llama_free(self.context)
        self.c.llama_model_free(self.model)

    def decode(self, sequences, prompt, tokens):
        self.forget()
        for sequence in range(sequences):
            self.step([(sequence, position, position + 1 == prompt) for position in range(prompt)])
        begun = time.perf_counter()
        for position in range(prompt, prompt + tokens):
            self.step([(sequence, position, True) for sequence in range(sequences)])
        return sequences * tokens / max(time.perf_counter() - begun, 1e-9)

    def prefill(self, tokens):
        self.forget()
        begun = time.perf_counter()
        self.step([(0, position, position + 1 == tokens) for position in range(tokens)])
        return tokens / (time.perf_counter() - begun)


class SentenceTransformers:
    def __init__(self, folder):
        import sentence_transformers
        import torch

        torch.set_num_threads(THREADS)
        self.model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")

    def embed(self, texts, words):
        text = " ".join(["word"] * words)
        begun, done = time.perf_counter(), 0
        while not done or time.perf_counter() - begun < 2:
            done += len(self.model.encode([text] * texts, batch_size=32, show_progress_bar=False))
        return done / (time.perf_counter() - begun)


def used(process):
    """Seconds of processor time so far."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost(process, work, *arguments):
    begun = used(process)
    work(*arguments)
    return used(process) - begun


def cpu(program, folder, minilm):
    print("| processor time, one thread, ms for each | ours | peer | ours / peer | |\n|---|---|---|---|---|", flush=True)
    me = os.getpid()
    ours, theirs = Ours(program, minilm), SentenceTransformers(minilm)
    for texts in (32, 1):
        # Both do as many texts as they can in their time, so what one cost is what all cost over how many they were.
        def each(process, embed):
            begun, clock = used(process), time.perf_counter()
            rate = embed(texts, 126)
            return 1000 * (used(process) - begun) / (rate * (time.perf_counter() - clock))

        mine = lambda: each(ours.process.pid, lambda *of: ours.ask("embed", *of))
        row(f"MiniLM, 128 tokens, batch {texts}, text", *turns(mine, lambda: each(me, theirs.embed)))
    ours.close()
    del theirs
    for kind in ("Q4_K", "Q8_0"):
        path = write_model(folder, kind)
        theirs, ours = LlamaCpp(path), Ours(program, path.parent)
        mine = lambda *words: cost(ours.process.pid, ours.ask, *words)
        mine("prefill", 64), theirs.prefill(64)
        row(
            f"{kind.lower()}: prefill 512, token",
            *turns(lambda: 1000 * mine("prefill", 512) / 512, lambda: 1000 * cost(me, theirs.prefill, 512) / 512),
        )
        for sequences, prompt, tokens in ((1, 512, 24), (16, 32, 8)):
            count = 1000 / (sequences * tokens)
            row(
                f"{kind.lower()}: decode, {sequences} sequences, context {prompt}, token",
                *turns(
                    lambda: count * (mine("answer", sequences, prompt, tokens + 2) - mine("answer", sequences, prompt, 2)),
                    lambda: count * (cost(me, theirs.decode, sequences, prompt, tokens) - cost(me, theirs.decode, sequences, prompt, 0)),
                ),
            )
        ours.close()
        theirs.close()


def row(work, ours, theirs=None, note=""):
    ours = statistics.median(ours)
    if theirs:
        theirs = statistics.median(theirs)
        print(f"| {work} | {ours:.4g} | {theirs:.4g} | {ours / theirs:.2f} | {note} |", flush=True)
    else:
        print(f"| {work} | {ours:.4g} | – | – | {note} |", flush=True)
    return ours


def turns(ours, theirs):
    """Who begins changes with the round."""
    found = ([], [])
    for number in range(ROUNDS):
        for side in (0, 1) if number % 2 else (1, 0):
            found[side].append((ours, theirs)[side]())
    return found


def chat(program, folder, kind):
    path = write_model(folder, kind)
    theirs = LlamaCpp(path)
    ours = Ours(program, path.parent)
    size = path.stat().st_size
    name = kind.lower()
    ours.ask("prefill", 64), theirs.prefill(64)
    print(f"| {name}: resident after a step, times the file of {size / 1e6:.0f} MB | {ours.ask('memory') / size:.2f} | – | – | |", flush=True)
    one = row(
        f"{name}: decode, 1 sequence, context 512, tok/s",
        *turns(lambda: ours.ask("decode", 1, 512, 24), lambda: theirs.decode(1, 512, 24)),
    )
    many = row(
        f"{name}: decode, 16 sequences, tok/s",
        *turns(lambda: ours.ask("decode", 16, 32, 12), lambda: theirs.decode(16, 32, 12)),
    )
    print(f"| {name}: 16 sequences over 1 | {many / one:.2f} | – | – | |", flush=True)
    row(f"{name}: prefill 512, tok/s", *turns(lambda: ours.ask("prefill", 512), lambda: theirs.prefill(512)))
    if kind == "Q4_K":
        alone = statistics.median(ours.ask("first", 64) for _ in range(7))
        rate = ours.ask("capacity", 64, 16)
        late = ours.ask("loaded", 64, 16, 0.8 * rate, 60)
        row("first token, nobody else, ms", [alone * 1e3])
        row("first token, p95 at 80 % load, ms", [late * 1e3], note=f"{late / alone:.1f} × alone; {rate:.2f} requests/s at most")
    ours.close()


def main():
    program, folder, minilm = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    model_names = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    print(f"{platform.machine()}, {model_names[0].split(':')[1].strip() if model_names else '?'}, {THREADS} threads; load {os.getloadavg()[0]:.1f} at the start\n")
    if CPU:
        return cpu(program, folder, minilm)
    print("| work | ours | peer | ratio | |\n|---|---|---|---|---|", flush=True)
    ours, theirs = Ours(program, minilm), SentenceTransformers(minilm)
    row("memory read by all threads, GB/s", [ours.ask("bandwidth") / 1e9])
    quantized = Ours(program, minilm, "q8_0")
    for texts in (32, 1):
        single = f"MiniLM, 128 tokens, batch {texts}, texts/s"
        one, other = turns(lambda: ours.ask("embed", texts, 126), lambda: theirs.embed(texts, 126))
        row(single, one, other)
        row(f"{single}, ours in q8_0", [quantized.ask("embed", texts, 126) for _ in range(ROUNDS)], other)
    ours.close(), quantized.close()
    for kind in ("Q4_K", "Q8_0"):
        chat(program, folder, kind)


main()
print(f"\nload {os.getloadavg()[0]:.1f} at the end")
