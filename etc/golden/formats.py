"""Makes tests/data/smollm2_formats.json: llama.cpp's perplexity of a fixed text in every weight format.

Usage: python formats.py MODEL.gguf ../../tests/data/perplexity.txt > ../../tests/data/smollm2_formats.json

For each format `cargo run --example requantise` of baton-stages writes the model (the default one) in that format, and
once more with the same values as 32-bit floats: there, activations are not rounded to suit the format. One context over
the whole text, as for perplexity.py; where the format itself is of floats, and nothing is rounded to 8 bits, over the
first tokens of it, since they are enough there and take long. Files come and go below the temporary folder, 770 MB at
most.
"""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from reference import Reference, versions

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FORMATS = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K".split()
FLOATS, FLOATS_TOKENS = ("F32", "F16", "BF16"), 256


def requantise(model, path, *arguments):
    command = ["cargo", "run", "--release", "--quiet", "-p", "baton-stages", "--example", "requantise", "--"]
    environment = {**os.environ, "TEST_MODEL": os.path.abspath(model)}
    command += [arguments[0], path, *arguments[1:]]
    done = subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.stdout.strip()


def mean_loss(path, ids):
    reference = Reference(path, context_tokens=2048)
    rows = reference.decode(ids, 0, every=True).astype(np.float64)
    reference.close()
    top = rows.max(axis=1, keepdims=True)
    logs = rows - top - np.log(np.exp(rows - top).sum(axis=1, keepdims=True))
    return -sum(float(logs[place, token]) for place, token in enumerate(ids[1:])) / (len(ids) - 1)


def main(model, text_path):
    with open(text_path, encoding="utf-8") as file:
        ids = Reference(model).tokenize(file.read(), parse_special=False, add_special=True)
    formats = {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.gguf")
        for name in FORMATS:
            tokens = FLOATS_TOKENS if name in FLOATS else len(ids)
            hashed = requantise(model, path, name)
            loss = mean_loss(path, ids[:tokens])
            requantise(model, path, name, "expanded")
            floats = mean_loss(path, ids[:tokens])
            formats[name] = {
                "tokens": tokens,
                "sha256": hashed,
                "mean_loss": round(loss, 6),
                "perplexity": round(math.exp(loss), 5),
                "floats_perplexity": round(math.exp(floats), 5),
            }
            print(name, formats[name], file=sys.stderr, flush=True)
    made = {
        "made_with": {
            **versions(model),
            "settings": "CPU, 1 thread, f16 KV, no flash attention, batches of 512, logits as f32, sums in f64",
        },
        "formats": formats,
    }
    body = json.dumps(made, indent=1)[1:-2]
    print("{" + body + ",")
    print(f' "ids": {json.dumps(ids)}')
    print("}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
