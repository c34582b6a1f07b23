#!/usr/bin/env python3
"""What the rules of tokens cost: grammars, scores and penalties against plain chats, on one baton of 2 stages.

    python3 benches/rules.py [--rounds N] [--chats N] [WORK ...]

WORK is one of the following; all of them unless said otherwise. The ratio is of tokens a second, the plain side below.

    objects       chats whose answer is a list of JSON objects with texts and numbers (bar: 0.95)
    schema        chats whose answer is one text of at least 4,000 characters: where every mask is another (bar: 0.95)
    alternatives  top_logprobs 20 (bar: 0.97)
    penalties     presence, frequency and repetition penalties
    forced        a strict schema that is mostly keys, against plain chats of as many tokens (bar: 1.5)
    chosen        the same without `strict`: the model chooses the white space
"""

import argparse
import asyncio
import statistics
import time

from throughput import baton, chat, default_model, fresh, several, turns

TOKENS = 128
KEYS = [
    f"{name}_of_the_{place}_measured_in_{unit}"
    for name in ("temperature", "pressure")
    for place in ("northern_station", "southern_station")
    for unit in ("morning", "evening")
]


def closed(properties):
    return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}


def schema(properties, **options):
    form = {"name": "answer", "schema": closed(properties), **options}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


FLAGS = {key: {"enum": [0, 1]} for key in KEYS}
TEXT = {"type": "string"}
PERSON = closed({"name": TEXT, "city": TEXT, "age": {"type": "integer"}, "likes": {"type": "array", "items": TEXT}})

WORKS = {
    "objects": (schema({"people": {"type": "array", "items": PERSON, "minItems": 100}}), 0.95),
    "schema": (schema({"text": {"type": "string", "minLength": 4000}}), 0.95),
    "alternatives": ({"logprobs": True, "top_logprobs": 20}, 0.97),
    "penalties": ({"presence_penalty": 0.2, "frequency_penalty": 0.1, "repetition_penalty": 1.05}, None),
    "forced": (schema(FLAGS, strict=True), 1.5),
    "chosen": (schema(FLAGS), None),
}


class Round:
    def __init__(self, server, chats, seed, options):
        bodies = [chat(fresh(repr((seed, at))), TOKENS, **options) for at in range(chats)]
        began = time.perf_counter()
        heard = asyncio.run(several(server.port, bodies))
        # From the first token of any stream to the last of all.
        decoding = max(one.times[-1] for one in heard) - min(one.times[0] for one in heard)
        self.tokens = sum(one.usage["completion_tokens"] for one in heard)
        self.rate, self.seconds = self.tokens / decoding, time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--chats", type=int, default=8)
    parser.add_argument("works", nargs="*", metavar="WORK", choices=[[], *WORKS])
    arguments = parser.parse_args()
    server = baton(default_model(), 2, 1, 640 * arguments.chats)
    for name in arguments.works or WORKS:
        options, bar = WORKS[name]
        # Other prompts on each side, so that neither finds the other's in the prefix cache.
        side = lambda which, options: lambda turn: Round(server, arguments.chats, (name, which, turn), options)
        with_rules, plain = turns(arguments.rounds, side("rules", options), side("plain", {}))
        ratio = statistics.median(a.rate / b.rate for a, b in zip(with_rules, plain))
        rates = [statistics.median(one.rate for one in kept) for kept in (with_rules, plain)]
        tokens = [statistics.median(one.tokens for one in kept) for kept in (with_rules, plain)]
        print(
            f"{name:13} {rates[0]:7.1f} tok/s of {tokens[0]:.0f} tokens, plain {rates[1]:7.1f} of {tokens[1]:.0f}: "
            f"ratio {ratio:.2f}" + (f" (bar: {bar})" if bar else ""),
            flush=True,
        )
    server.stop()


if __name__ == "__main__":
    main()
