"""Makes tests/data/ggml_blocks.json: what gguf-py makes of random blocks of the weight formats with codebooks.

Usage: python blocks.py > ../../tests/data/ggml_blocks.json

Needs `pip install gguf`. A format's first block is written out with its values; of a longer run, which chooses every
entry of the codebooks, the SHA-256 of the values is enough. Scales are random bits, too: some are infinite or no
numbers.
"""

import hashlib
import importlib.metadata
import json

import gguf
import numpy as np

FORMATS = "IQ4_NL IQ4_XS MXFP4 TQ1_0 TQ2_0 IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ1_S IQ1_M".split()
SHOWN, HASHED = 1, 1024


def noise(seed, length):
    """Bytes of splitmix64, which the test draws too."""
    places = np.arange(1, length + 1, dtype=np.uint64)
    bits = np.uint64(seed) + places * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (bits ^ (bits >> np.uint64(31))).astype(np.uint8)


def values(format, blocks):
    with np.errstate(all="ignore"):
        found = gguf.quants.dequantize(blocks, format).astype("<f4")
    # Zeros without a sign, as a sum with a minimum of zero has them.
    return found + np.float32(0)


def main():
    formats = {}
    for name in FORMATS:
        format = gguf.GGMLQuantizationType[name]
        block_bytes = gguf.GGML_QUANT_SIZES[format][1]
        blocks = noise(format.value, HASHED * block_bytes).reshape(HASHED, block_bytes)
        found = values(format, blocks)
        # The bits of a value that is no number differ from program to program.
        bits = np.where(np.isnan(found), np.uint32(0x7FC00000), found.view(np.uint32)).astype("<u4")
        sound = [at for at in range(HASHED) if np.isfinite(found[at]).all()][:SHOWN]
        formats[name] = {
            "blocks": HASHED,
            "sha256": hashlib.sha256(bits.tobytes()).hexdigest(),
            "shown": [{"block": at, "values": [float(value) for value in found[at]]} for at in sound],
        }
    made_with = f"gguf-py {importlib.metadata.version('gguf')}, gguf.quants.dequantize, little endian"
    rows = [f' "{name}": {json.dumps(of)}' for name, of in formats.items()]
    print("{\n" + f' "made_with": {json.dumps(made_with)},\n' + ",\n".join(rows) + "\n}")


if __name__ == "__main__":
    main()
