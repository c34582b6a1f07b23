#!/usr/bin/env python3
"""Random arrivals, lengths and departures for ten minutes: nothing leaks, no answer drifts.

    python3 benches/soak.py [--minutes N] [--stages N] [--seed N]

Clients come at random times with prompts and answers of random lengths; some leave in the middle, some share
beginnings, some ask for several choices. Among them, a few requests are asked again and again, and must have the same
answer every time. Every half minute a line says what the processes hold. In the end nothing may run or wait, memory and
file descriptors must be back where they were after the first minute, within a margin. Exits with 1 if not.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time

import throughput
from throughput import baton, chat, connect, fresh, listen

KV_TOKENS = 6144
MEMORY_MARGIN_MIB, FILES_MARGIN = 24, 8


class Soak:
    def __init__(self, server, seed):
        self.server, self.choose = server, random.Random(seed)
        self.counts = {"answered": 0, "left": 0, "busy": 0, "repeated": 0}
        self.known, self.problems = {}, []

    async def client(self, number):
        choose = random.Random(f"{number} {self.choose.random()}")
        beginning = fresh(f"shared {choose.randrange(4)}", 60) if choose.random() < 0.5 else ""
        body = chat(f"{beginning} {fresh(number, choose.randrange(1, 400))}", choose.randrange(1, 200))
        if choose.random() < 0.1:
            body["n"] = choose.randrange(2, 5)
        if choose.random() < 0.3:
            body.update(temperature=0.8, seed=number)
        try:
            if choose.random() < 0.25:
                await self.leave(body, choose.uniform(0, 3))
            else:
                await listen(self.server.port, body)
                self.counts["answered"] += 1
        except RuntimeError as error:
            self.counts["busy"] += 1
            if "429" not in str(error) and "broke off" not in str(error):
                self.problems.append(str(error))

    async def leave(self, body, after):
        reader, writer = await connect(self.server.port, body)
        await asyncio.sleep(after)
        writer.close()
        self.counts["left"] += 1

    async def repeat(self, which):
        """One of the requests whose answers are known."""
        options = {"logprobs": True, "seed": which, "temperature": 0.6 * (which % 2)}
        body = chat(fresh(f"again {which}", 40 + 60 * which), 24, **options)
        body["stream"] = False
        answer = (await plain(self.server.port, body))["choices"][0]
        answer = json.dumps([answer["message"], answer["logprobs"]])
        if self.known.setdefault(which, answer) != answer:
            self.problems.append(f"request {which} has another answer now")
        self.counts["repeated"] += 1

    async def run(self, seconds):
        pids = processes(self.server.processes[0].pid)
        running, base, ends, number, reported = set(), None, time.monotonic() + seconds, 0, time.monotonic()
        began = reported
        while time.monotonic() < ends:
            await asyncio.sleep(self.choose.expovariate(2.5))
            if len(running) < 40:
                task = self.client(number) if number % 10 else self.repeat(number // 10 % 6)
                running.add(asyncio.create_task(task))
                number += 1
            done = {task for task in running if task.done()}
            running -= done
            for task in done:
                if task.exception():
                    self.problems.append(repr(task.exception()))
            if time.monotonic() > reported + 30:
                reported = time.monotonic()
                held = holds(pids)
                base = base or (held if reported > began + 60 else None)
                print(f"{reported - began:5.0f} s  {self.counts}  {len(running)} running  {held}", flush=True)
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(2)
        base, held = base or holds(pids), holds(pids)
        print(f"  end    {self.counts}  {held}, after the first minute {base}")
        status = await plain(self.server.port, None, "GET", "/distributed/status")
        if status["running"] or status["waiting"]:
            self.problems.append(f"something is left: {status['running']} running, {status['waiting']} waiting")
        if held["MiB"] > base["MiB"] + MEMORY_MARGIN_MIB or held["files"] > base["files"] + FILES_MARGIN:
            self.problems.append(f"grown from {base} to {held}")


async def plain(port, body, method="POST", path="/v1/chat/completions"):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(body).encode() if body else b""
    head = (
        f"{method} {path} HTTP/1.0\r\nhost: localhost\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    if b" 200 " not in head.splitlines()[0]:
        raise RuntimeError(f"{head.splitlines()[0].decode()}: {body[:200]}")
    return json.loads(body)


def processes(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [pid, *map(int, children.read().split())]


def holds(pids):
    """Anonymous memory and open files of all processes together."""
    kib = files = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as status:
            kib += sum(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
        files += len(os.listdir(f"/proc/{pid}/fd"))
    return {"MiB": kib // 1024, "files": files}


def main():
    parser = argparse.ArgumentParser(description="random load; nothing may leak or drift")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    server = baton(throughput.default_model(), arguments.stages, 1, KV_TOKENS)
    soak = Soak(server, arguments.seed)
    asyncio.run(soak.run(60 * arguments.minutes))
    server.stop()
    for problem in soak.problems[:20]:
        print("PROBLEM:", problem)
    sys.exit(1 if soak.problems else 0)


if __name__ == "__main__":
    main()
