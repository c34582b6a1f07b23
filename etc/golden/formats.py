"""Makes tests/data/smollm2_formats.json: llama.cpp's perplexity of a fixed text in every weight format.

Usage: python formats.py MODEL.gguf ../../tests/data/perplexity.txt [FORMAT ...]

Makes the file anew; with formats, makes their entries anew and keeps the others.

For each format `cargo run --example requantise` of baton-stages writes the model (the default one) in that format, and
once more with the same values as 32-bit floats: there, activations are not rounded to suit the format. One context, as
for perplexity.py: over the whole text for the formats of LONG, over its first tokens for the others, where these are
enough. Files come and go below the temporary folder, 770 MB at most.
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
FORMATS = """
F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 TQ1_0 TQ2_0
IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ1_S IQ1_M
""".split()
LONG = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_XS IQ2_XXS IQ2_XS IQ3_XXS IQ1_M".split()
TOKENS = 256
OUT = ROOT / "tests" / "data" / "smollm2_formats.json"
SETTINGS = "CPU, 1 thread, f16 KV, no flash attention, batches of 512, logits as f32, sums in f64"


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


def main(model, text_path, *names):
    with open(text_path, encoding="utf-8") as file:
        ids = Reference(model).tokenize(file.read(), parse_special=False, add_special=True)
    made = json.loads(OUT.read_text()) if names else {"formats": {}}
    formats = made["formats"]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.gguf")
        for name in names or FORMATS:
            tokens = len(ids) if name in LONG else TOKENS
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
            made_with = {**versions(model), "settings": SETTINGS}
            if made.setdefault("made_with", made_with) != made_with:
                formats[name]["made_with"] = made_with
            write(made["made_with"], formats, ids)


def write(made_with, formats, ids):
    formats = {name: formats[name] for name in FORMATS if name in formats}
    body = json.dumps({"made_with": made_with, "formats": formats}, indent=1)[1:-2]
    OUT.write_text("{" + body + ",\n" + f' "ids": {json.dumps(ids)}' + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
