"""Makes the golden encoders stages/tests/data/tiny-*: random weights, and the hidden states that transformers computes.

Usage: python encoders.py ../../stages/tests/data [NAME…]

As families.py (versions, weights, rounding), for models that make hidden states alone: `golden.json` has input ids,
longer than a tile of rows, and the last hidden states at some positions, the first and the last among them.
"""

import importlib.metadata
import json
import pathlib
import sys
import zlib

import numpy as np
import torch
import transformers

from families import build, fill, save

IDS, EVERY = 150, 16

EVEN = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
            max_position_embeddings=160)
ODD = dict(vocab_size=67, hidden_size=54, intermediate_size=34, num_hidden_layers=3, num_attention_heads=9,
           max_position_embeddings=151, type_vocab_size=1)
ROPE = {"rope_theta": 1000.0, "rope_type": "default"}

MODELS = {
    "bert": ("BertModel", "BertConfig", EVEN),
    "bert-odd": ("BertModel", "BertConfig", dict(ODD, hidden_size=45)),
    "xlm_roberta": ("XLMRobertaModel", "XLMRobertaConfig", dict(
        EVEN, max_position_embeddings=162, type_vocab_size=1, pad_token_id=1)),
    "nomic_bert": ("NomicBertModel", "NomicBertConfig", dict(EVEN, head_dim=8, rope_parameters=ROPE)),
    "nomic_bert-odd": ("NomicBertModel", "NomicBertConfig", dict(ODD, head_dim=6, rope_parameters=ROPE)),
}


def make(name, folder):
    seed = zlib.crc32(name.encode())
    draw = np.random.default_rng(seed)
    model = build(*MODELS[name])
    fill(model, draw)
    ids = [int(one) for one in draw.integers(3, model.config.vocab_size, IDS)]
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    folder.mkdir(exist_ok=True)
    save(model, folder)
    positions = sorted({*range(0, IDS, EVERY), IDS - 1})
    golden = {
        "transformers": transformers.__version__,
        "torch": importlib.metadata.version("torch"),
        "seed": seed,
        "input_ids": ids,
        "positions": positions,
        "hidden_states": [[float(f"{one:.6g}") for one in states[at].tolist()] for at in positions],
    }
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(f"{name}: states to {states.abs().max():.1f}")


def main():
    torch.set_num_threads(1)
    data, *names = sys.argv[1:]
    for name in names or MODELS:
        make(name, pathlib.Path(data) / f"tiny-{name}")


if __name__ == "__main__":
    main()
