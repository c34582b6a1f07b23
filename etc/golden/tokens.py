"""Makes tests/data/smollm2_tokens.json: texts and the token ids llama.cpp gives them.

Usage: python tokens.py MODEL.gguf > ../../tests/data/smollm2_tokens.json

`ids` is with control tokens spelled in the text left as text, `parsed` (only where it differs) with them parsed. The
script itself checks that the ids give the text back.
"""

import json
import sys

from reference import Reference, versions
from texts import TEXTS


def main(path):
    reference = Reference(path)
    cases = []
    for text in TEXTS:
        ids = reference.tokenize(text, parse_special=False)
        parsed = reference.tokenize(text, parse_special=True)
        assert b"".join(reference.piece(token, special=False) for token in ids) == text.encode(), text
        assert b"".join(reference.piece(token, special=True) for token in parsed) == text.encode(), text
        case = {"text": text, "ids": ids}
        if parsed != ids:
            case["parsed"] = parsed
        cases.append(case)
    print("{")
    print(f' "made_with": {json.dumps(versions(path))},')
    print(' "cases": [')
    print(",\n".join("  " + json.dumps(case) for case in cases))
    print(" ]\n}")
    print(len(cases), sum("parsed" in case for case in cases), file=sys.stderr)


main(sys.argv[1])
