"""Asks the saved model questions it was not trained on, and compares it with golden.json."""

import argparse
import json
import random
import sys
import time
from pathlib import Path

import numpy as np

from corpus import Corpus
from reference import Model

# Questions as the corpus makes them, drawn anew: how well it learned what it was taught.
TAUGHT = 200


def compare_golden(model, folder):
    """Largest difference of a logit from the trainer's."""
    worst = 0.0
    for case in json.loads((folder / "golden.json").read_text())["cases"]:
        ids = model.prompt(case["messages"])
        assert ids == case["prompt_ids"], "the chat template or the tokenizer differs from golden.json"
        cache = model.start()
        for token in ids:
            logits = model.next_logits(token, cache)
        top = case["top5_at_last_position"]
        assert np.argsort(-logits)[:5].tolist() == [t["id"] for t in top], "the top five tokens differ"
        worst = max([worst] + [abs(float(logits[t["id"]]) - t["logit"]) for t in top])
        assert model.answer(case["messages"]) == case["greedy_text"], "the greedy answer differs"
    return worst


def ask(model, questions, show=False, temperature=0.0, quiet=False):
    hits = 0
    rng = np.random.default_rng(0)
    for entry, question in questions:
        answer = model.answer([{"role": "user", "content": question}], temperature, rng)
        hits += answer == entry.answer
        if show or (answer != entry.answer and not quiet):
            print(f"{'ok   ' if answer == entry.answer else 'WRONG'} {question}\n      {answer}")
    return hits


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--least", type=float, default=0.8, help="share of held-out questions that must be answered exactly")
    parser.add_argument("--verbose", action="store_true", help="show right answers too")
    options = parser.parse_args()
    model, corpus = Model(options.model), Corpus()
    print(f"golden.json: largest difference of a logit {compare_golden(model, options.model):.1e}")

    started = time.monotonic()
    held = ask(model, corpus.held_out, options.verbose)
    rng = random.Random(0)
    taught = []
    while len(taught) < TAUGHT:
        entry = corpus.draw(rng)
        if not entry.after:
            question, answer = corpus.question(rng, entry)
            if answer == entry.answer:
                taught.append((entry, question))
    known = ask(model, taught)
    sampled = ask(model, corpus.held_out, temperature=1.0, quiet=True)
    print(f"held-out paraphrases answered exactly: {held}/{len(corpus.held_out)} ({held / len(corpus.held_out):.0%})")
    print(f"the same, sampled at temperature 1:    {sampled}/{len(corpus.held_out)}")
    print(f"questions as taught answered exactly:  {known}/{TAUGHT}")
    print(f"({time.monotonic() - started:.0f} s, numpy)")
    return 0 if held / len(corpus.held_out) >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
