"""A cluster of real processes on this machine: a store, stages, a gateway. Knows how to start, hurt and stop them.

The store is etcd where it is installed, else the one that `baton up` serves (which forgets everything when it ends, so
nobody should kill it). What the processes say goes to files in a folder that is kept when something went wrong.
"""

import asyncio
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from soak import plain
from throughput import free_port

READY_S = 60  # Until a fresh cluster serves; loading takes less than a second.
SETTLED_S = 60  # Until everybody has found his place after a fault: some leases and a load.
ENDS_S = 30  # Until a process that was told to end has ended.
AGAIN_S = 0.5  # Until a stage that ended while it joined is started again.
BASE_S = 30  # Until all that was held is given back.
SCRAPE_S = 5  # Until the gateway has told its metrics.


class Fleet:
    """So many stages, named s0 and so on. `arguments` are more words for the stages' command lines."""

    def __init__(self, binary, model, stages, arguments=(), kv_tokens=8192):
        self.binary, self.model, self.kv_tokens = binary, model, kv_tokens
        self.names = [f"s{at}" for at in range(stages)]
        self.arguments, self.processes, self.frozen = arguments, {}, set()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bf", dir="/tmp"))  # Short: paths of sockets are.
        self.port, self.store_port, self.peer_port = free_port(), free_port(), free_port()
        self.etcd = shutil.which("etcd")
        self.store_url = f"http://127.0.0.1:{self.store_port}"

    async def __aenter__(self):
        try:
            await self.start_store()
            for name in self.names:
                self.start_stage(name)
            address = ("--listen", f"127.0.0.1:{self.port}")
            self.start("gateway", self.binary, "gateway", self.model, *address, *self.common())
            await self.until("the cluster serves", self.settled, READY_S)
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(self, *_):
        self.stop()

    # --- what there is ---

    def common(self):
        return ["--etcd", self.store_url, "--kv-tokens", self.kv_tokens, "--stages-min", len(self.names)]

    def start(self, name, *command):
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.folder), "TMPDIR": str(self.folder)}
        with open(self.folder / f"{name}.log", "a") as log:
            words = [str(word) for word in command]
            self.processes[name] = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    async def start_store(self):
        if self.etcd:
            self.start_etcd()
        else:
            address = ("--store-listen", f"127.0.0.1:{self.store_port}", "--listen", f"127.0.0.1:{free_port()}")
            cluster = ("--stages", 1, "--kv-tokens", 32, "--cluster", "beside")
            self.start("store", self.binary, "up", self.model, *cluster, *address)
        await self.until("the store answers", self.store_answers)

    async def store_answers(self):
        _, writer = await asyncio.open_connection("127.0.0.1", self.store_port)
        writer.close()
        return True

    def start_etcd(self):
        peer = f"http://127.0.0.1:{self.peer_port}"
        client = ("--listen-client-urls", self.store_url, "--advertise-client-urls", self.store_url)
        member = ("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer)
        member += ("--initial-cluster", f"default={peer}")
        self.start("store", self.etcd, "--data-dir", self.folder / "etcd", *client, *member, "--log-level", "error")

    def start_stage(self, name):
        words = ("--name", name, "--threads", 1, *self.common(), *self.arguments)
        self.start(name, self.binary, "stage", self.model, *words)

    async def join(self, name):
        """Starts a stage, again if it ends because the store is away, as a supervisor would, until it is at rest."""

        async def at_rest():
            if self.processes[name].poll() is not None:
                self.start_stage(name)
                await asyncio.sleep(AGAIN_S)
            stages = (await self.status())["stages"]
            states = {stage["pid"]: stage["state"] for stage in stages if stage["name"] == name}
            return states.get(self.processes[name].pid) in ("serving", "standby")

        self.start_stage(name)
        await self.until(f"{name} is at rest", at_rest)

    def ended_by_themselves(self):
        """Names and statuses of processes that nobody here has ended."""
        return {name: process.returncode for name, process in self.processes.items() if process.poll() is not None}

    # --- faults ---

    def send(self, name, what):
        self.processes[name].send_signal(what)

    def kill(self, name):
        """As by `kill -9`; the process is forgotten."""
        process = self.processes.pop(name)
        process.kill()
        process.wait(ENDS_S)

    def freeze(self, name):
        self.frozen.add(name)
        self.send(name, signal.SIGSTOP)

    def thaw(self, name):
        self.frozen.discard(name)
        self.send(name, signal.SIGCONT)

    async def terminate(self, name):
        """As by SIGTERM; the exit status."""
        process = self.processes.pop(name)
        process.terminate()
        try:
            return await asyncio.to_thread(process.wait, ENDS_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return "none within its time"

    async def verb(self, *words):
        """Runs a verb of the program; whether it went well."""
        command = [str(self.binary), *map(str, words), "--etcd", self.store_url]
        nowhere = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*command, stdout=nowhere, stderr=nowhere)
        try:
            return await asyncio.wait_for(process.wait(), ENDS_S) == 0
        except TimeoutError:
            process.kill()
            return False

    # --- what is seen ---

    async def status(self):
        return await asyncio.wait_for(plain(self.port, None, "GET", "/distributed/status"), SCRAPE_S)

    async def metrics(self):
        """The sums of the gateway's metrics over their labels."""

        async def get():
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            text = (await reader.read()).decode()
            writer.close()
            return text

        sums = {}
        for line in (await asyncio.wait_for(get(), SCRAPE_S)).splitlines():
            name, _, value = line.rpartition(" ")
            if line.startswith("baton_"):
                name = name.partition("{")[0]
                sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    async def left_behind(self):
        """What is still held in the gateway when nobody asks for anything any more."""
        held = ("baton_kv_blocks_used", "baton_sequences_running", "baton_sequences_waiting")
        left, ends = [], time.monotonic() + BASE_S
        while True:
            metrics = await self.metrics()
            left = [name for name in held if metrics[name]]
            if not left or time.monotonic() > ends:
                return [f"{name} is {metrics[name]:.0f} after {BASE_S} s without a request" for name in left]
            await asyncio.sleep(0.5)

    async def settled(self):
        """Whether every layer is served, and every stage of the fleet is known and at rest."""
        status = await self.status()
        states = {stage["name"]: stage["state"] for stage in status["stages"]}
        return status["serving"] and all(states.get(name) in ("serving", "standby") for name in self.names)

    async def until(self, what, holds, seconds=SETTLED_S):
        ends = time.monotonic() + seconds
        while True:
            try:
                if await holds():
                    return
            except (OSError, RuntimeError, TimeoutError, json.JSONDecodeError):
                pass
            if time.monotonic() > ends:
                raise RuntimeError(f"{what}: not within {seconds} s; logs in {self.folder}")
            await asyncio.sleep(0.1)

    # --- the end ---

    def stop(self):
        for name in list(self.frozen):
            if name in self.processes:
                self.thaw(name)
        stages_last = sorted(self.processes.items(), key=lambda entry: entry[0] == "store")
        for _, process in stages_last:
            process.kill()
            process.wait()
        self.processes.clear()

    def forget(self):
        """Nothing went wrong: the logs are not needed."""
        shutil.rmtree(self.folder, ignore_errors=True)
