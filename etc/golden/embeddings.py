"""Makes tests/data/smollm2_embeddings.json: llama.cpp's embeddings of the prompts of smollm2_greedy.json.

Usage: python embeddings.py MODEL.gguf ../../tests/data/smollm2_greedy.json > ../../tests/data/smollm2_embeddings.json

The model is the default one with its weights expanded to 32-bit floats, as `formats.py` expands them: llama.cpp's
kernels for Q4_1 round activations to 8 bits, and this file is to say what the weights are worth without. A prompt is
embedded by its last token and by the mean of all. Vectors have the length 1, and are base64 of 32-bit floats, little
endian, without the zeros that widening adds. Files come and go below the temporary folder, 770 MB at most.
"""

import base64
import json
import os
import sys
import tempfile

import llama_cpp
import numpy as np

from formats import requantise
from reference import Reference, versions

WIDTH = 576
CONTEXT_TOKENS = 1024
POOLINGS = {"last": llama_cpp.LLAMA_POOLING_TYPE_LAST, "mean": llama_cpp.LLAMA_POOLING_TYPE_MEAN}


def encoded(vector):
    vector = vector.astype(np.float64)
    assert not vector[WIDTH:].any()
    unit = (vector[:WIDTH] / np.sqrt((vector * vector).sum())).astype("<f4")
    return base64.b64encode(unit.tobytes()).decode()


def main(model, prompts_path):
    with open(prompts_path, encoding="utf-8") as file:
        prompts = [case["ids"] for case in json.load(file)["cases"]]
    # The last one is the longest by far.
    cases = [{"case": place} for place in [*range(0, len(prompts) - 1, 3), len(prompts) - 1]]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.gguf")
        hashed = requantise(model, path, "F32")
        for name, pooling in POOLINGS.items():
            reference = Reference(path, context_tokens=CONTEXT_TOKENS, batch_tokens=CONTEXT_TOKENS, pooling=pooling)
            for case in cases:
                case[name] = encoded(reference.embed(prompts[case["case"]]))
            reference.close()
    made = {
        "made_with": {
            **versions(model),
            "settings": "weights as F32, CPU, 1 thread, f16 KV, no flash attention, one batch",
        },
        "sha256": hashed,
        "cases": cases,
    }
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
