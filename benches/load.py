"""Streams of requests whose answers are known: each is compared byte by byte with what an undisturbed run answered.

Knows the gateway's port and nothing of what happens behind it.
"""

import asyncio
import collections
import contextlib
import json
import random
import time

from throughput import chat, connect, fresh

ANSWER_S = 180  # Longest for a whole answer, faults included; after that it counts as lost.
REFUSED_S = 0.2  # Until a client that was told to come back does.
REASONS_MAX = 3  # Of refusals, that are shown.
REFUSALS_MAX = 300  # How often one comes back: for a minute.


class Refused(Exception):
    """The gateway did not accept the request."""


class Lost(Exception):
    """The gateway accepted the request and did not answer it."""


# The options of requests, beside plain and seeded ones. All of them keep what a client sees a function of the request.
KINDS = [
    {},
    {"temperature": 0.8},
    {"presence_penalty": 0.6, "frequency_penalty": 0.3, "repetition_penalty": 1.1},
    {"temperature": 0.9, "logprobs": True, "top_logprobs": 20},
    {"temperature": 1, "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {
        "type": "object", "required": ["title", "tags", "score"], "additionalProperties": False,
        "properties": {"title": {"type": "string", "maxLength": 40}, "score": {"type": "integer"},
                       "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 4}}}}}},
    {"temperature": 0.7, "n": 4},
    {"temperature": 1, "tool_choice": "required", "tools": [{"type": "function", "function": {
        "name": "get_weather", "parameters": {
            "type": "object", "required": ["city", "days"], "additionalProperties": False,
            "properties": {"city": {"type": "string", "maxLength": 30},
                           "days": {"type": "integer", "minimum": 1, "maximum": 14}}}}}]},
    {"temperature": 1, "guided_regex": "[a-z]{3,9}( [a-z]{2,8}){4,12}\\."},
    {"dry_multiplier": 0.8, "logit_bias": {"198": -100}, "min_tokens": 3},
]


class Answer:
    def __init__(self):
        self.text, self.finish, self.tokens, self.times, self.asked = {}, {}, None, [], time.perf_counter()
        self.scores, self.calls = {}, {}

    def same(self):
        """What has to be equal in both runs."""
        return self.text, self.finish, self.tokens, self.scores, self.calls

    def length(self):
        return sum(map(len, self.text.values()))


async def answer(port, body, accepted):
    """Asks for `body`; calls `accepted` when the gateway has said yes, with the answer so far, which grows."""
    heard, writer = Answer(), None
    try:
        async with asyncio.timeout(ANSWER_S):
            try:
                reader, writer = await connect(port, body)
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except (OSError, asyncio.IncompleteReadError) as error:
                raise Refused(f"no answer at all: {error!r}") from error
            status = head.split()[1]
            if status in ("429", "503"):
                raise Refused(f"{status} {(await reader.read()).decode()[:300]}")
            if status != "200":
                raise Lost(f"{head.splitlines()[0]} {(await reader.read()).decode()[:300]}")
            accepted(heard)
            while line := await reader.readline():
                if line.startswith(b"data: {"):
                    take(heard, json.loads(line[6:]))
    except TimeoutError as error:
        raise Lost(f"no answer within {ANSWER_S} s: {len(heard.times)} pieces came") from error
    except OSError as error:
        raise Lost(f"the connection broke: {error}") from error
    finally:
        if writer:
            writer.close()
    if heard.tokens is None or not heard.finish:
        raise Lost("the answer broke off")
    return heard


def take(heard, event):
    if "error" in event:
        raise Lost(json.dumps(event["error"]))
    for choice in event["choices"]:
        index = choice["index"]
        if piece := choice["delta"].get("content"):
            heard.times.append(time.perf_counter())
            heard.text[index] = heard.text.get(index, "") + piece
        for call in choice["delta"].get("tool_calls") or []:
            name, arguments = heard.calls.get((index, call["index"]), ("", ""))
            function = call["function"]
            heard.calls[index, call["index"]] = name + (function.get("name") or ""), arguments + function["arguments"]
        if scores := choice.get("logprobs"):
            heard.scores.setdefault(index, []).extend(scores["content"])
        if reason := choice.get("finish_reason"):
            heard.finish[index] = reason
    if usage := event.get("usage"):
        heard.tokens = usage["completion_tokens"]


class Load:
    """Requests by number; those whose numbers are equal modulo `distinct` are the same."""

    def __init__(self, port, distinct, seed, words=(1, 160), tokens=(4, 80)):
        self.port, self.distinct, self.seed, self.words, self.tokens = port, distinct, seed, words, tokens
        self.known, self.running, self.gaps = {}, set(), []
        self.done, self.asked, self.refused = 0, 0, collections.Counter()
        self.lost, self.wrong, self.doubled = [], [], []

    def body(self, which):
        """One of each kind in turn, each with a seed of its own."""
        choose = random.Random(f"{self.seed} {which}")
        words, tokens = choose.randint(*self.words), choose.randint(*self.tokens)
        options = KINDS[which % len(KINDS)]
        return chat(fresh(f"{self.seed} {which}", words), tokens, **options, seed=which)

    async def undisturbed(self, streams):
        """Finds out what the answers are."""
        numbers = iter(range(self.distinct))

        async def client():
            for which in numbers:
                self.known[which] = (await answer(self.port, self.body(which), lambda _: None)).same()

        await asyncio.gather(*(client() for _ in range(streams)))

    async def request(self, number):
        which = number % self.distinct
        self.asked += 1
        try:
            heard = await self.accepted(self.body(which))
            self.judge(number, which, heard)
        except Lost as error:
            self.lost.append(f"request {number} (body {which}): {error}")
        except Refused as error:
            self.lost.append(f"request {number} (body {which}) was refused for a minute: {error}")
        self.done += 1

    async def accepted(self, body):
        """As a client that comes back until it is accepted."""
        for turn in range(REFUSALS_MAX):
            heard = []
            try:
                return await answer(self.port, body, lambda so_far: (heard.append(so_far), self.running.add(so_far)))
            except Refused as error:
                self.refused[str(error)] += 1
                if turn + 1 == REFUSALS_MAX:
                    raise
            finally:
                self.running.difference_update(heard)
                self.gaps += [pair for one in heard for pair in zip(one.times, one.times[1:])]
            await asyncio.sleep(REFUSED_S)

    def judge(self, number, which, heard):
        known = self.known[which]
        if heard.same() == known:
            return
        longer = heard.tokens > known[2] or heard.length() > sum(map(len, known[0].values()))
        found = f"request {number} (body {which}): {heard.same()!r} instead of {known!r}"
        (self.doubled if longer else self.wrong).append(found)

    async def press(self, streams, goes_on):
        """So many streams at a time, one request after another, as long as `goes_on(asked so far)`."""

        async def client():
            while goes_on(self.asked):
                await self.request(self.asked)

        await asyncio.gather(*(client() for _ in range(streams)))

    @contextlib.asynccontextmanager
    async def pressed(self, streams):
        """Streams as long as the block lasts; what was asked is answered before it is left."""
        ended = asyncio.Event()
        pressing = asyncio.create_task(self.press(streams, lambda _: not ended.is_set()))
        try:
            yield
            ended.set()
            await pressing
        finally:
            pressing.cancel()

    def problems(self):
        return [f"{kind}: {what}" for kind in ("lost", "wrong", "doubled") for what in getattr(self, kind)]

    def verdict(self):
        counts = f"{len(self.lost)} lost, {len(self.wrong)} wrong, {len(self.doubled)} doubled of {self.done} (bar: 0)"
        reasons = self.refused.most_common(REASONS_MAX)
        refused = [f", {times} times refused with {why.strip()}" for why, times in reasons]
        return counts + ("".join(refused) or ", none refused")

    def gaps_between(self, began, ended):
        """Seconds between tokens of one stream, the later one within these times; running streams count, too."""
        pairs = self.gaps + [pair for one in self.running for pair in zip(one.times, one.times[1:])]
        return [late - early for early, late in pairs if began <= late <= ended]
