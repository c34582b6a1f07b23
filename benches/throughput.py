#!/usr/bin/env python3
"""What batching, chunked prefill, the prefix cache and speculation are worth over HTTP, with the default model.

    python3 benches/throughput.py [--rounds N] [WORK ...]

WORK is one of the following; all of them unless said otherwise. Sides that are compared take turns in one run.

    streams        8 and 16 chats at a time, fresh prompts: baton (2 stages, 1 thread each) against llama-server (2)
    rpc            the same 8 chats against llama-server over two RPC workers of 1 thread
    split          2 stages of 1 thread against 1 stage of 2 threads, 8 chats
    starved        3 stages, each held to 0.6 of a core, against 1 stage held to 0.6, 9 chats (needs root and cgroups)
    outside        share of a token's time outside compute: 1 chat, 2 stages
    beside         time between tokens of 8 chats while a prompt of 4,000 tokens is computed
    second-turn    time to the first token of a chat's second turn of 2,000 tokens, against its first
    speculation    1 chat over 2 stages, with and without drafts, on text that repeats itself and text that does not
    slow-readers   8 chats beside 500 streams that nobody reads and 200 idle connections

llama.cpp is built by `benches/reference.py`. Numbers are medians over the rounds.
"""

import argparse
import asyncio
import atexit
import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import reference

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPT_WORDS, ANSWER_TOKENS = 90, 128  # About 120 tokens with the chat template.
WORDS = (
    "river garden window letter mountain paper silver engine morning bridge market island winter doctor music forest "
    "kitchen summer planet horse castle teacher bottle number carpet thunder village pencil mirror harbor station "
    "lantern"
).split()


# --- the servers ---


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """Processes that serve the OpenAI API on `port`."""

    def __init__(self, name):
        self.name, self.port, self.processes = name, free_port(), []
        atexit.register(self.stop)  # Also where a work fails: what is left behind would be measured by the next.

    def start(self, *command):
        log = tempfile.TemporaryFile("w+")
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=subprocess.STDOUT, text=True)
        process.log = log
        self.processes.append(process)

    def said(self):
        log = self.processes[-1].log
        log.seek(0)
        return log.read()

    def wait(self, seconds=120):
        for _ in range(10 * seconds):
            if any(process.poll() is not None for process in self.processes):
                sys.exit(f"{self.name} ended:\n{self.said()}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                    if b" 200 " in connection.recv(64):
                        return self
            except OSError:
                pass
            time.sleep(0.1)
        sys.exit(f"{self.name} did not become ready:\n{self.said()}")

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()


def baton(model, stages, threads, tokens, *arguments):
    server = Server(f"baton, {stages} x {threads}")
    command = [binary(), "up", model, "--stages", stages, "--threads", threads, "--kv-tokens", tokens]
    server.start(*command, "--listen", f"127.0.0.1:{server.port}", "--store-listen", "127.0.0.1:0", *arguments)
    return server.wait()


def llama_server(model, slots, tokens, threads, *arguments):
    server = Server("llama-server")
    address = ("--host", "127.0.0.1", "--port", server.port)
    work = ("-np", slots, "-c", tokens, "-t", threads, "-tb", threads)
    server.start(reference.build() / "llama-server", "-m", model, *address, *work, *arguments)
    return server.wait()


def llama_rpc(model, slots, tokens):
    workers = Server("RPC workers")
    ports = [free_port(), free_port()]
    for port in ports:
        workers.start(reference.build() / "ggml-rpc-server", "-H", "127.0.0.1", "-p", port, "-t", 1)
    time.sleep(1)
    endpoints = ",".join(f"127.0.0.1:{port}" for port in ports)
    server = llama_server(model, slots, tokens, 1, "--rpc", endpoints, "-ngl", 99)
    server.name = "llama-server, 2 RPC workers"
    server.processes = workers.processes + server.processes
    return server


def binary():
    subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "baton"], check=True, cwd=ROOT)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "baton"


def default_model():
    return subprocess.run([binary(), "pull"], check=True, capture_output=True, text=True).stdout.strip()


# --- the clients ---


class Heard:
    """What a client saw of one streamed answer."""

    def __init__(self):
        self.asked, self.times, self.usage, self.timings = time.perf_counter(), [], {}, {}

    @property
    def first(self):
        return self.times[0] - self.asked

    def gaps(self):
        return [after - before for before, after in zip(self.times, self.times[1:])]


def chat(words, tokens=ANSWER_TOKENS, **more):
    messages = words if isinstance(words, list) else [{"role": "user", "content": words}]
    return {"messages": messages, "max_tokens": tokens, "ignore_eos": True, "temperature": 0, **more}


def fresh(seed, words=PROMPT_WORDS):
    choose = random.Random(seed)
    return " ".join(choose.choice(WORDS) for _ in range(words))


def streamed(body):
    """The bytes of a request for a streamed answer."""
    body = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def connect(port, body):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(streamed(body))
    await writer.drain()
    return reader, writer


async def listen(port, body):
    heard = Heard()
    reader, writer = await connect(port, body)
    while line := await reader.readline():
        if not line.startswith(b"data: {"):
            continue
        now, event = time.perf_counter(), json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(event["error"])
        if event["choices"] and event["choices"][0]["delta"].get("content"):
            heard.times.append(now)
        heard.usage = event.get("usage") or heard.usage
        heard.timings = event.get("timings") or heard.timings
    writer.close()
    if not heard.times or not heard.usage:
        raise RuntimeError("the answer broke off")
    return heard


async def several(port, bodies):
    return await asyncio.gather(*(listen(port, body) for body in bodies))


class Round:
    """Some chats side by side."""

    def __init__(self, server, chats, seed, tokens=ANSWER_TOKENS):
        began = time.perf_counter()
        heard = asyncio.run(several(server.port, [chat(fresh((seed, at).__repr__()), tokens) for at in range(chats)]))
        self.seconds = time.perf_counter() - began
        self.rate = sum(one.usage["completion_tokens"] for one in heard) / self.seconds
        self.first = statistics.median(one.first for one in heard)
        self.gap = percentile([gap for one in heard for gap in one.gaps()], 95)


def percentile(values, percent):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * percent / 100))]


def turns(rounds, *sides):
    """Runs each side in turn; the first turn of each does not count. Returns one list of results a side."""
    results = [[] for _ in sides]
    for turn in range(rounds + 1):
        for side, kept in zip(sides, results):
            result = side(turn)
            if turn > 0:
                kept.append(result)
    return results


def median(results, name):
    return statistics.median(getattr(result, name) for result in results)


def ratio(ours, theirs, name):
    """The median of the ratios of turns that followed each other."""
    return statistics.median(getattr(a, name) / getattr(b, name) for a, b in zip(ours, theirs))


def compare(ours, theirs, chats, rounds):
    sides = lambda turn: Round(ours, chats, ("a", turn)), lambda turn: Round(theirs, chats, ("b", turn))
    results = turns(rounds, *sides)
    for server, kept in zip((ours, theirs), results):
        print(
            f"  {server.name:30} {median(kept, 'rate'):8.1f} tok/s   first token {median(kept, 'first'):6.3f} s   "
            f"between tokens, p95 {1000 * median(kept, 'gap'):7.1f} ms"
        )
    names = {"rate": "tokens a second", "first": "first token", "gap": "between tokens"}
    print("  ratio: " + ", ".join(f"{name} {ratio(*results, field):.2f}" for field, name in names.items()), flush=True)


# --- the works ---


def streams(model, rounds):
    for chats in (8, 16):
        print(f"{chats} chats, fresh prompts")
        ours, theirs = baton(model, 2, 1, chats * 320), llama_server(model, chats, chats * 320, 2)
        compare(ours, theirs, chats, rounds)
        ours.stop()
        theirs.stop()


def rpc(model, rounds):
    print("8 chats, against RPC workers")
    ours, theirs = baton(model, 2, 1, 8 * 320), llama_rpc(model, 8, 8 * 320)
    compare(ours, theirs, 8, rounds)
    ours.stop()
    theirs.stop()


def split(model, rounds):
    print("8 chats, two stages of one thread against one of two")
    two, one = baton(model, 2, 1, 8 * 320), baton(model, 1, 2, 8 * 320)
    compare(two, one, 8, rounds)
    two.stop()
    one.stop()


def starved(model, rounds):
    print("9 chats, stages held to 0.6 of a core each")
    root = pathlib.Path("/sys/fs/cgroup/cpu")
    if not os.access(root, os.W_OK) or not (root / "cpu.cfs_quota_us").exists() and not root.exists():
        return print("  left out: needs root and the cpu controller of cgroups (version 1)")
    three, one = baton(model, 3, 1, 9 * 320), baton(model, 1, 1, 9 * 320)
    groups = []
    for server in (three, one):
        for line in server.said().splitlines():
            if line.startswith("stage ") and " is process " in line:
                group = root / f"baton-bench-{os.getpid()}-{len(groups)}"
                group.mkdir()
                (group / "cpu.cfs_period_us").write_text("10000")
                (group / "cpu.cfs_quota_us").write_text("6000")
                (group / "cgroup.procs").write_text(line.split()[-1])
                groups.append(group)
    compare(three, one, 9, rounds)
    three.stop()
    one.stop()
    for group in groups:
        group.rmdir()


def outside(model, rounds):
    print("1 chat over 2 stages: where a token's time goes")
    server = baton(model, 2, 1, 1024, "--speculation", "off")
    shares = []
    for turn in range(rounds + 1):
        heard = asyncio.run(listen(server.port, chat(fresh(f"outside {turn}", 20), 256)))
        [last] = [heard.timings]
        computed = sum(stage["compute_ms"] for stage in last["stages"])
        spent = last["prompt_ms"] + last["predicted_ms"]
        seen = 1000 * (heard.times[-1] - heard.asked)
        shares.append((1 - computed / spent, 1 - computed / seen))
    server.stop()
    inside, seen = (statistics.median(side) for side in zip(*shares[1:]))
    account = f"{100 * inside:.1f} % by the gateway's account"
    print(f"  outside compute: {account}, {100 * seen:.1f} % as the client sees it", flush=True)


def beside(model, rounds):
    print("8 chats, then a prompt of 4,000 tokens beside them")
    server = baton(model, 2, 1, 16384)

    async def turn(at):
        chats = [asyncio.create_task(listen(server.port, chat(fresh(f"beside {at} {one}"), 700))) for one in range(8)]
        await asyncio.sleep(2.5)
        began = time.perf_counter()
        # More than one token: some have no text, and then nothing tells when they came.
        long = await listen(server.port, chat(fresh(f"long {at}", 3960), 8))
        heard, ended = await asyncio.gather(*chats), began + long.first
        pairs = [pair for one in heard for pair in zip(one.times, one.times[1:])]
        within = lambda low, high: [b - a for a, b in pairs if low <= b <= high]
        return percentile(within(began - 1.5, began), 95), percentile(within(began, ended), 95), long

    for at in range(rounds):
        before, during, long = asyncio.run(turn(at))
        print(
            f"  between tokens, p95: {1000 * before:.1f} ms undisturbed, {1000 * during:.1f} ms beside it: "
            f"{during / before:.2f}; {long.usage['prompt_tokens']} tokens took {long.first:.1f} s",
            flush=True,
        )
    server.stop()


def second_turn(model, rounds):
    print("a chat of 2,000 tokens, first and second turn")
    server = baton(model, 2, 1, 16384)
    ratios = []
    for at in range(rounds + 1):
        opening = [{"role": "user", "content": fresh(f"turn {at}", 1500)}]
        first = asyncio.run(listen(server.port, chat(opening, 16)))
        answer = {"role": "assistant", "content": "river garden window"}
        more = [*opening, answer, {"role": "user", "content": fresh(f"more {at}", 10)}]
        second = asyncio.run(listen(server.port, chat(more, 16)))
        cached = second.usage["prompt_tokens_details"]["cached_tokens"]
        ratios.append(second.first / first.first)
        print(
            f"  first token after {first.first:.3f} s of {first.usage['prompt_tokens']} tokens, "
            f"then {second.first:.3f} s of {second.usage['prompt_tokens']} ({cached} cached): {ratios[-1]:.3f}",
            flush=True,
        )
    server.stop()
    print(f"  ratio {statistics.median(ratios[1:]):.3f}")


CODE = "\n".join(f"    def get_{word}(self):\n        return self.{word}\n" for word in WORDS[:24])


def speculation(model, rounds):
    print("1 chat over 2 stages, speculation on against off")
    servers = [baton(model, 2, 1, 4096, "--speculation", switch) for switch in ("on", "off")]
    edit = f"Repeat this code exactly, then repeat it again:\n```python\nclass Record:\n{CODE}```"
    story = lambda turn: f"Write a long story about the {WORDS[turn]} and the {WORDS[-turn]}."
    works = {
        "code that repeats": lambda turn: chat(f"{edit}\n({turn})", 256),
        "text that does not": lambda turn: chat(story(turn), 256, temperature=1, seed=turn),
    }
    for name, body in works.items():
        rate = lambda server: lambda turn: asyncio.run(listen(server.port, body(turn))).timings["predicted_per_second"]
        on, off = turns(rounds, *map(rate, servers))
        each = statistics.median(a / b for a, b in zip(on, off))
        rates = f"{statistics.median(on):7.1f} against {statistics.median(off):7.1f} tok/s"
        print(f"  {name:20} {rates}: {each:.2f}", flush=True)
    for server in servers:
        server.stop()


def slow_readers(model, rounds):
    print("8 chats beside 500 streams that nobody reads and 200 idle connections")
    beset, alone = (baton(model, 2, 1, 8 * 320 + 500 * 96) for _ in range(2))
    pid = beset.processes[0].pid
    before = resident(pid)
    held = beset_with(beset)
    after = resident(pid)
    sides = lambda turn: Round(beset, 8, ("beside", turn)), lambda turn: Round(alone, 8, ("alone", turn))
    beside, undisturbed = turns(rounds, *sides)
    after = max(after, resident(pid))
    for connection in held:
        connection.close()
    rates = median(undisturbed, "rate"), median(beside, "rate")
    print(f"  {rates[0]:.1f} tok/s alone, {rates[1]:.1f} beside them: {ratio(beside, undisturbed, 'rate'):.2f}")
    print(f"  the gateway's memory: {before:.1f} MiB before, {after:.1f} MiB with all of them", flush=True)
    for server in (beset, alone):
        server.stop()


def beset_with(server):
    """200 idle connections, and 500 streams, computed when this returns, of which nobody reads more than some bytes."""
    held = []
    while len(held) < 500:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        connection.sendall(streamed(chat(f"Count from {len(held)}.", 32)))
        if connection.recv(12).endswith(b" 200"):
            held.append(connection)
        else:
            connection.close()
            time.sleep(0.5)  # The queue is full: as a client that was told to come back.
    time.sleep(20)
    return held + [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]


def resident(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


WORKS = {
    work.__name__.replace("_", "-"): work
    for work in (streams, rpc, split, starved, outside, beside, second_turn, speculation, slow_readers)
}


def main():
    parser = argparse.ArgumentParser(description="throughput over HTTP", epilog="WORK: " + ", ".join(WORKS))
    parser.add_argument("work", nargs="*", metavar="WORK")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.work if name not in WORKS]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(WORKS)}")
    model = default_model()
    for name in arguments.work or WORKS:
        WORKS[name](model, arguments.rounds)


if __name__ == "__main__":
    main()
