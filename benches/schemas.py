#!/usr/bin/env python3
"""Asks a started baton for JSON under many schemas, at temperature 1, and validates every finished answer.

    python3 benches/schemas.py [--tokens N] [--streams N] [--seed N] [--only PART] [--port N]

The schemas are those of the JSON Schema test suite, drafts 4 to 2020-12, each once, and fifty as real APIs have them
(`api_schemas.py`). The suite comes with the package jsonschema, which validates, too; both are fetched once, below the
cache folder. A schema of the suite that does not name its draft gets that of its folder.

Prints how many were asked, refused (by the keyword or the reason that the refusal names), finished, cut off at the
bound of tokens, and invalid. It fails if one is invalid, if a refusal names nothing, and for every 5xx.
"""

import argparse
import asyncio
import collections
import json
import re
import subprocess
import sys
import tarfile
import time
from decimal import Decimal
from fractions import Fraction

from api_schemas import SCHEMAS
from reference import cache
from throughput import baton, default_model

PACKAGE = "jsonschema==4.26.0"
FOLDER = "jsonschema-4.26.0"
DRAFTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
ASK = "Write a short JSON value that fits this JSON schema, and nothing else:\n"
ASK_LENGTH = 1500  # Of the schema in the question, in characters: longer ones are cut, the grammar has them whole.
# The refusals that name what is wrong: a keyword or another part that is not supported, or the kind of fault.
REASONS = (
    "invalid grammar",
    "the grammar allows no text",
    "grammar is too complex",
    "grammar too large",
    "Invalid type",
)
REASON = re.compile(rf"unsupported: ([^:]+?)(?: at |: )|({'|'.join(REASONS)})")


# --- the schemas ---


def fetch():
    """The folder of the suite's tests. Makes jsonschema importable."""
    folder = cache() / "schemas"
    if not (folder / "done").exists():
        pip = [sys.executable, "-m", "pip"]
        subprocess.run(
            [*pip, "download", "-q", "--no-binary", "jsonschema", "--no-deps", "-d", folder, PACKAGE], check=True
        )
        with tarfile.open(folder / f"{FOLDER}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        library = PACKAGE.replace("==", "[format-nongpl]==")
        subprocess.run([*pip, "install", "-q", "--target", folder / "library", library], check=True)
        (folder / "done").touch()
    sys.path.insert(0, str(folder / "library"))
    return folder / FOLDER / "json" / "tests"


def schemas():
    """Names and schemas, each schema once."""
    found = {}
    tests = fetch()
    for draft, uri in DRAFTS.items():
        for path in sorted((tests / draft).rglob("*.json")):
            for case in json.loads(path.read_text(), parse_float=Decimal):
                schema = case["schema"]
                if isinstance(schema, dict) and "$schema" not in schema:
                    schema = {"$schema": uri, **schema}
                name = f"{draft}/{path.stem}: {case['description']}"
                found.setdefault(text(schema), (name, schema))
    return [*found.values(), *((f"api: {name}", schema) for name, schema in SCHEMAS.items())]


def text(value):
    """JSON with numbers as they were written."""
    return json.dumps(value, default=lambda number: float(number), sort_keys=True)


# --- validation ---


def is_integer(_, value):
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool) and value == int(value)


def multiple_of(_, divisor, value, __):
    from jsonschema import ValidationError

    if (
        isinstance(value, (int, Decimal))
        and not isinstance(value, bool)
        and Fraction(str(value)) % Fraction(str(divisor))
    ):
        yield ValidationError(f"{value} is not a multiple of {divisor}")


def errors(schema, answer):
    """What is wrong with the answer's text. Numbers are exact, as in JSON, and no reference is fetched."""
    from jsonschema import validators
    from jsonschema_specifications import REGISTRY

    value = json.loads(answer, parse_float=Decimal)
    base = validators.validator_for(schema, default=validators.Draft202012Validator)
    checker = base.TYPE_CHECKER.redefine("integer", is_integer)
    exact = validators.extend(base, {"multipleOf": multiple_of}, type_checker=checker)
    return [
        error.message
        for error in exact(schema, format_checker=base.FORMAT_CHECKER, registry=REGISTRY).iter_errors(value)
    ]


# --- the requests ---


async def post(port, body):
    """Status and body of an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = text(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        body = unchunked(body)
    return int(head.split(b" ", 2)[1]), json.loads(body)


def unchunked(body):
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return b"".join(parts)


class Tally:
    def __init__(self):
        self.counts, self.refused, self.wrong = collections.Counter(), collections.Counter(), []

    def count(self, name, schema, status, answer):
        self.counts["asked"] += 1
        if status != 200:
            message = answer["error"]["message"]
            named = REASON.search(message)
            if status != 400 or not named:
                self.wrong.append(f"{name}: {status}: {message}")
            self.counts["refused"] += 1
            self.refused[next(filter(None, named.groups())) if named else message] += 1
            return
        choice = answer["choices"][0]
        self.counts[choice["finish_reason"]] += 1
        if choice["finish_reason"] == "stop":
            content = choice["message"]["content"]
            try:
                found = errors(schema, content)
            except re.error:  # A pattern that Python does not know, such as \\p{L}.
                found = []
                self.counts["not judged"] += 1
            except ValueError as error:
                found = [f"no JSON: {error}"]
            if found:
                self.counts["invalid"] += 1
                self.wrong.append(f"{name}: {text(schema)}\n    answered {content!r}\n    {found[0]}")


async def ask_all(port, cases, arguments):
    tally, left = Tally(), iter(enumerate(cases))

    async def stream():
        for at, (name, schema) in left:
            messages = [{"role": "user", "content": ASK + text(schema)[:ASK_LENGTH]}]
            form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
            body = {"messages": messages, "max_tokens": arguments.tokens, "temperature": 1, "seed": arguments.seed + at}
            tally.count(name, schema, *await post(port, {**body, "response_format": form}))

    await asyncio.gather(*(stream() for _ in range(arguments.streams)))
    return tally


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--streams", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="schemas whose names have this part")
    parser.add_argument("--port", type=int, help="of a started baton; otherwise one is started")
    arguments = parser.parse_args()
    cases = [case for case in schemas() if arguments.only in case[0]]
    port = arguments.port or baton(default_model(), 2, 1, arguments.streams * 1536).port
    began = time.perf_counter()
    tally = asyncio.run(ask_all(port, cases, arguments))
    names = ("asked", "refused", "stop", "length", "invalid", "not judged")
    print(", ".join(f"{name} {tally.counts[name]}" for name in names) + f" in {time.perf_counter() - began:.0f} s")
    print("refused: " + ", ".join(f"{reason} {count}" for reason, count in tally.refused.most_common()))
    for wrong in tally.wrong:
        print(wrong)
    sys.exit(bool(tally.wrong))


if __name__ == "__main__":
    main()
