#!/usr/bin/env python3
"""The share of a link that a fetch of layers gets, and the tokens a second that streams lose beside one.

    benches/layers.py [--binary PATH] [--model PATH] [--rates 100,1000]

Machines are network namespaces on one bridge, each with a cable of the given Mbit/s (`tc`, token bucket). First a
machine joins a cluster on which nothing is computed, and the bytes that its cable brings are watched. Then one of three
machines gets other layers by a pin beside eight streams, and tokens are counted before and while its cable brings them;
nobody takes over before. All machines share the processors of this one, so checking and encryption count as a loss
that they are not elsewhere. Needs root and `etc/prepare netns`. Prints ratios.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request

ID = os.getpid() % 250
BRIDGE = f"bl{ID}"
STORE = "127.0.0.1:2395"
STREAMS, STREAM_TOKENS = 8, 1500
HEAD_BYTES = 4 << 20  # Header and manifest: the fetch of layers has begun.
TAIL = 0.97  # Of all bytes, after which it counts as over: what follows are frames.
BEFORE_S = 5  # For which tokens are counted before a fetch.
WAIT_S = 90
WATCH = """
import time
while True:
    print(time.time(), open('/sys/class/net/eth0/statistics/rx_bytes').read().strip(), flush=True)
    time.sleep(0.01)
"""


def run(*words):
    subprocess.run(words, check=True, capture_output=True)


def address(at):
    return f"198.19.{ID}.{at + 2}"


class Machine:
    """A namespace with a cable of so many Mbit/s, and a home."""

    def __init__(self, at, rate):
        self.at, self.space, self.near = at, f"bl{ID}-{at}", f"bl{ID}-{at}"
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="bl", dir="/tmp"))
        run("ip", "netns", "add", self.space)
        run("ip", "link", "add", self.near, "type", "veth", "peer", "name", "eth0", "netns", self.space)
        run("ip", "link", "set", self.near, "master", BRIDGE, "up")
        run("ip", "-n", self.space, "addr", "add", f"{address(at)}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            run("ip", "-n", self.space, "link", "set", link, "up")
        shape = ("root", "tbf", "rate", f"{rate}mbit", "burst", f"{max(64, rate)}kb", "latency", "50ms")
        run("tc", "qdisc", "add", "dev", self.near, *shape)
        run("tc", "-n", self.space, "qdisc", "add", "dev", "eth0", *shape)
        self.processes, self.lines, self.brought = [], [], []

    def start(self, *words):
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.home), "TMPDIR": str(self.home),
                       "XDG_RUNTIME_DIR": str(self.home), "XDG_CACHE_HOME": str(self.home / "cache")}
        command = ["ip", "netns", "exec", self.space, *words]
        process = subprocess.Popen([str(word) for word in command], env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.processes.append(process)
        threading.Thread(target=lambda: self.lines.extend(process.stdout), daemon=True).start()
        return process

    def line(self, part):
        until = time.time() + WAIT_S
        while time.time() < until:
            for line in list(self.lines):
                if part in line:
                    return line
            time.sleep(0.02)
        raise SystemExit(f"no line with {part!r}: {self.lines[-20:]}")

    def watch(self):
        """Notes the time and the bytes that its cable has brought so far."""
        process = subprocess.Popen(["ip", "netns", "exec", self.space, "python3", "-c", WATCH],
                                   stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        follow = lambda: self.brought.extend(tuple(map(float, line.split())) for line in process.stdout)
        threading.Thread(target=follow, daemon=True).start()

    def window(self):
        """The bytes of the fetch, when it began, and when it was over."""
        samples = list(self.brought)
        first, whole = samples[0][1], samples[-1][1]
        begun = next(sample for sample in samples if sample[1] >= first + HEAD_BYTES)
        over = next(sample for sample in samples if sample[1] >= first + TAIL * (whole - first))
        return over[1] - begun[1], begun[0], over[0]

    def end(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)
        shutil.rmtree(self.home, ignore_errors=True)
        subprocess.run(["ip", "link", "del", self.near], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.space], capture_output=True)


class Cluster:
    """A machine that shares, and so many that can join."""

    def __init__(self, arguments, rate, machines):
        self.binary, self.machines = arguments.binary, []
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"198.19.{ID}.1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        self.machines = [Machine(at, rate) for at in range(machines)]
        first = self.machines[0]
        model = first.home / "own.gguf"
        shutil.copy(arguments.model, model)
        first.start(self.binary, "up", model, f"--share={address(0)}:7946", "--store-listen", STORE, "--listen",
                    f"{address(0)}:8100", "--insecure", "--discovery=off", "--stages=1", f"--stages-min={machines}",
                    "--threads=1", f"--kv-tokens={STREAMS * (STREAM_TOKENS + 100)}", "--speculation=off",
                    "--memory=350MB")
        self.token = first.line("baton join").split()[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for machine in reversed(self.machines):
            machine.end()
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)

    def join(self, at):
        machine = self.machines[at]
        machine.start(self.binary, "join", f"{address(0)}:7946", self.token, "--threads=1", f"--name=m{at}")

    def layers(self, stage):
        page = urllib.request.urlopen(f"http://{address(0)}:8100/distributed/status", timeout=5)
        return next(found["layers"] for found in json.load(page)["stages"] if found["name"] == stage)

    def tokens(self):
        page = urllib.request.urlopen(f"http://{address(0)}:8100/metrics", timeout=5).read().decode()
        samples = (line.split() for line in page.splitlines())
        return sum(float(s[1]) for s in samples if s and s[0].startswith("baton_generated_tokens_total"))

    def stream(self, number):
        body = ('{"prompt":"%d Once","max_tokens":%d,"ignore_eos":true,"temperature":0}' % (number, STREAM_TOKENS))
        request = urllib.request.Request(f"http://{address(0)}:8100/v1/completions", body.encode(),
                                         {"content-type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=WAIT_S).read()
        except OSError:
            pass


def settled(machine, quiet_s=1.5):
    """Waits until the machine's cable has brought layers, and then next to nothing for a while."""
    until = time.time() + WAIT_S
    while time.time() < until:
        time.sleep(0.1)
        samples = list(machine.brought)
        recent = [sample for sample in samples if sample[0] > samples[-1][0] - quiet_s] if samples else []
        has_layers = samples and samples[-1][1] - samples[0][1] > 2 * HEAD_BYTES
        if has_layers and samples[-1][0] - samples[0][0] > quiet_s and recent[-1][1] - recent[0][1] < 1 << 20:
            return
    raise SystemExit(f"no layers came: {machine.lines[-20:]}")


def idle(arguments, rate):
    with Cluster(arguments, rate, 2) as cluster:
        cluster.machines[1].watch()
        cluster.join(1)
        cluster.machines[0].line("ready after")
        fetched, begun, over = cluster.machines[1].window()
        share = fetched * 8 / (over - begun) / (rate * 1e6)
        print(f"{rate} Mbit/s, nothing computed: {fetched / 1e6:.0f} MB in {over - begun:.2f} s, "
              f"{share:.0%} of the link", flush=True)


def beside_streams(arguments, rate):
    with Cluster(arguments, rate, 3) as cluster:
        cluster.join(1)
        cluster.join(2)
        first, third = cluster.machines[0], cluster.machines[2]
        first.line("ready after")
        for number in range(STREAMS):
            threading.Thread(target=cluster.stream, args=(number,), daemon=True).start()
        counts = []
        is_over = threading.Event()

        def count():
            while not is_over.is_set():
                counts.append((time.time(), cluster.tokens()))
                time.sleep(0.1)

        threading.Thread(target=count, daemon=True).start()
        time.sleep(3 + BEFORE_S)
        third.watch()
        time.sleep(0.2)
        pinned = time.time()
        other = "0..15" if cluster.layers("m2")[0] >= 12 else "15..30"
        pin = first.start(cluster.binary, "pin", "m2", other, "--etcd", f"http://{STORE}")
        pin.wait(WAIT_S)
        settled(third)
        is_over.set()
        fetched, begun, over = third.window()

        def rate_between(start, end):
            inside = [sample for sample in counts if start <= sample[0] <= end]
            return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])

        before, beside = rate_between(pinned - BEFORE_S, pinned), rate_between(begun, over)
        print(f"{rate} Mbit/s, beside {STREAMS} streams: {fetched / 1e6:.0f} MB in {over - begun:.2f} s, "
              f"{fetched * 8 / (over - begun) / (rate * 1e6):.0%} of the link; {beside:.0f} tokens/s of {before:.0f}, "
              f"{1 - beside / before:.1%} lost", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/baton")
    parser.add_argument("--model", help="a GGUF file [default: what `baton pull` has]")
    parser.add_argument("--rates", default="100,1000", help="Mbit/s")
    arguments = parser.parse_args()
    arguments.binary = str(pathlib.Path(arguments.binary).resolve())
    if arguments.model is None:
        pulled = subprocess.run([arguments.binary, "pull"], check=True, capture_output=True, text=True)
        arguments.model = pulled.stdout.strip()
    for rate in map(int, arguments.rates.split(",")):
        idle(arguments, rate)
        beside_streams(arguments, rate)


if __name__ == "__main__":
    main()
