"""Makes tests/data/smollm2_perplexity.json: how surprised llama.cpp is by each token of a fixed text.

Usage: python perplexity.py MODEL.gguf ../../tests/data/perplexity.txt > ../../tests/data/smollm2_perplexity.json

One context over the whole text, control tokens not parsed, bos in front if the vocabulary wants one. `losses[i]` is the
negative natural logarithm of the probability of `ids[i + 1]` after `ids[..=i]`; the perplexity is e to their mean.
"""

import json
import math
import sys

import numpy as np

from reference import Reference, versions


def main(path, text_path):
    with open(text_path, encoding="utf-8") as file:
        text = file.read()
    reference = Reference(path, context_tokens=2048)
    ids = reference.tokenize(text, parse_special=False, add_special=True)
    rows = reference.decode(ids, 0, every=True).astype(np.float64)
    top = rows.max(axis=1, keepdims=True)
    logs = rows - top - np.log(np.exp(rows - top).sum(axis=1, keepdims=True))
    losses = [-float(logs[place, token]) for place, token in enumerate(ids[1:])]
    mean = sum(losses) / len(losses)
    made = {
        "made_with": {
            **versions(path),
            "settings": "CPU, 1 thread, f16 KV, no flash attention, batches of 512, logits as f32, sums in f64",
        },
        "mean_loss": round(mean, 6),
        "perplexity": round(math.exp(mean), 5),
    }
    body = json.dumps(made, indent=1)[1:-2]
    print("{" + body + ",")
    print(f' "ids": {json.dumps(ids)},')
    print(f' "losses": {json.dumps([round(loss, 5) for loss in losses])}')
    print("}")
    print(len(ids), math.exp(mean), file=sys.stderr)


main(sys.argv[1], sys.argv[2])
