#!/usr/bin/env python3
"""baton against llama.cpp: the same file, tokens and threads, in turns within one run; prints tokens per second
(medians), their ratio, and for decoding how it compares with reading as many bytes and doing nothing else: the same
mapped weights, in a plain loop that leaves fetching ahead to the machine (so it can be beaten), and plain memory, by
memchr.

    python3 benches/against_llama_cpp.py [--rounds N] [--threads 1,2] [--http] [WHAT ...]

WHAT is `default` (the default model), `same-shape` (its shape in Q4_0 and Q8_0), `1b` (the shape of Llama-3.2-1B in
Q4_0, Q8_0, Q4_K and Q6_K) or the path of a model file; all three groups unless said otherwise. Models of a shape have
random weights and are made on demand (`--example speed_model`) below the cache folder.

Both sides run in a process of their own without HTTP: llama.cpp through the C interface of llama-cpp-python, baton
through `--example runner_speed`, which runs all layers as one stage would. `--http` measures the default model through
`baton up` as well, with one stage and with two, against the same llama.cpp.

llama.cpp is built on this machine by `benches/reference.py`.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import urllib.request

import reference

ROOT = pathlib.Path(__file__).resolve().parent.parent
PREFILL, DEPTH, DECODE, TOGETHER = 512, 16, 64, 8
WORKLOADS = {"decode": "decode", "together": "8 together", "prefill": "prefill 512"}


def cargo(*arguments):
    subprocess.run(["cargo", *arguments], check=True, cwd=ROOT)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


# --- the models ---


def default_model():
    binary = cargo("build", "--release", "--quiet", "--bin", "baton") / "baton"
    return subprocess.run([binary, "pull"], check=True, capture_output=True, text=True).stdout.strip()


def shaped(shape, name):
    path = reference.cache() / "models" / f"{shape}-{name}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        default_model()  # Lends its vocabulary.
        binary = cargo("build", "--release", "--quiet", "-p", "baton-stages", "--example", "speed_model")
        subprocess.run([binary / "examples" / "speed_model", shape, name, path], check=True, stdout=subprocess.DEVNULL)
    return path


def models(what):
    groups = {
        "default": [("default Q4_1", default_model)],
        "same-shape": [(f"same {name}", lambda name=name: shaped("smollm2-135m", name)) for name in ("Q4_0", "Q8_0")],
        "1b": [
            (f"1B {name}", lambda name=name: shaped("llama-3.2-1b", name)) for name in ("Q4_0", "Q8_0", "Q4_K", "Q6_K")
        ],
    }
    for name in what or groups:
        if name in groups:
            yield from groups[name]
        elif pathlib.Path(name).is_file():
            yield pathlib.Path(name).name, lambda name=name: name
        else:
            sys.exit(f"{name!r} is neither a file nor one of {', '.join(groups)}")


# --- the sides ---


def serve_llama_cpp(path, threads):
    """Runs in the other Python: reads the name of a work a line, answers seconds a token."""
    import ctypes
    import time

    import llama_cpp

    silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silence, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    settings = llama_cpp.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), settings)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_seq_max = 1024 * TOGETHER, TOGETHER
    settings.n_batch = settings.n_ubatch = PREFILL
    settings.n_threads = settings.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, settings)
    batch = llama_cpp.llama_batch_init(PREFILL, 0, 1)

    def step(rows):
        """Rows of (sequence, position, token, whether its logits are wanted)."""
        batch.n_tokens = len(rows)
        for place, (sequence, position, token, wanted) in enumerate(rows):
            batch.token[place], batch.pos[place], batch.logits[place] = token, position, wanted
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
        assert llama_cpp.llama_decode(context, batch) == 0
        llama_cpp.llama_synchronize(context)

    def prompt(sequence, length):
        return [(sequence, at, (1000 + 97 * at) % vocabulary, at == length - 1) for at in range(length)]

    def seconds(what):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        if what == "prefill":
            started = time.perf_counter()
            step(prompt(0, PREFILL))
            return (time.perf_counter() - started) / PREFILL
        sequences, tokens = (TOGETHER, DECODE // 4) if what == "together" else (1, DECODE)
        step([row for sequence in range(sequences) for row in prompt(sequence, DEPTH)])
        started = time.perf_counter()
        for at in range(tokens):
            step([(sequence, DEPTH + at, (1000 + 31 * at) % vocabulary, True) for sequence in range(sequences)])
        return (time.perf_counter() - started) / (tokens * sequences)

    print("ready", flush=True)
    for line in sys.stdin:
        print(seconds(line.strip()), flush=True)


class Side:
    """A process that answers a line per work."""

    def __init__(self, command, environment=None):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=environment, text=True, **pipes)
        self.greeting = self.process.stdout.readline().split()
        assert self.greeting and self.greeting[0] == "ready", f"{command} did not start"
        self.speed("decode")

    def speed(self, what):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return 1 / float(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


class Served:
    """`baton up`, asked over HTTP, one request at a time."""

    def __init__(self, model, stages, threads):
        binary = cargo("build", "--release", "--quiet", "--bin", "baton") / "baton"
        command = [binary, "up", "--stages", str(stages), "--threads", str(threads), "--listen", "127.0.0.1:0"]
        command += ["--store-listen", "127.0.0.1:0", os.path.abspath(model)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("ready"):
                self.url = next(word for word in line.split() if word.startswith("http")).rstrip(",")
                break
        self.asked = 0
        self.speed("decode")

    def speed(self, what):
        self.asked += 1
        length, tokens = (PREFILL, 1) if what == "prefill" else (DEPTH, DECODE)
        prompt = [1000 + (97 * at + 131 * self.asked) % 4000 for at in range(length)]
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        request = urllib.request.Request(self.url + "/v1/completions", json.dumps(body).encode())
        request.add_header("content-type", "application/json")
        timings = json.load(urllib.request.urlopen(request))["timings"]
        return timings["prompt_per_second" if what == "prefill" else "predicted_per_second"]

    def stop(self):
        self.process.terminate()
        self.process.wait()


# --- the comparison ---


class Memory(Side):
    """Reads memory with so many threads: bytes a second."""

    CODE = (
        "import sys,time,threading,ctypes\n"
        "n=384<<20; b=bytearray(n); s=(ctypes.c_char*n).from_buffer(b)\n"
        "c=ctypes.CDLL(None); c.memchr.restype=ctypes.c_void_p\n"
        "c.memchr.argtypes=[ctypes.c_void_p,ctypes.c_int,ctypes.c_size_t]\n"
        "t=int(sys.argv[1]); p=n//t; a=ctypes.addressof(s); print('ready',flush=True)\n"
        "for line in sys.stdin:\n"
        " w=[threading.Thread(target=c.memchr,args=(a+i*p,1,p)) for i in range(t)]; x=time.perf_counter()\n"
        " [y.start() for y in w]; [y.join() for y in w]; print((time.perf_counter()-x)/n,flush=True)\n"
    )

    def __init__(self, threads):
        super().__init__([sys.executable, "-c", self.CODE, str(threads)])


def compare(name, workloads, threads, ours, theirs, reader, rounds):
    bytes_per_token = int(reader.greeting[1])
    memory = Memory(threads)
    for what in workloads:
        turns = [
            (theirs.speed(what), ours.speed(what), reader.speed("read"), memory.speed(what)) for _ in range(rounds)
        ]
        llama, baton, reading, bandwidth = (statistics.median(side) for side in zip(*turns))
        ratio = statistics.median(ours / theirs for theirs, ours, *_ in turns)
        limits = [baton / reading, baton * bytes_per_token / bandwidth] if what == "decode" else []
        limits = " ".join(f"{100 * limit:8.0f} %" for limit in limits)
        work = WORKLOADS[what]
        print(f"{name:22} {work:12} {threads:7} {llama:10.1f} {baton:10.1f} {ratio:6.2f} {limits}", flush=True)
    memory.stop()


def main():
    parser = argparse.ArgumentParser(description="baton against llama.cpp, in turns")
    parser.add_argument("what", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--serve-llama-cpp", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_llama_cpp:
        return serve_llama_cpp(arguments.what[0], arguments.serve_llama_cpp)
    python, environment = reference.python()
    built = cargo("build", "--release", "--quiet", "-p", "baton-stages", "--example", "runner_speed")
    runner = built / "examples" / "runner_speed"
    print(
        f"{'model':22} {'work':12} {'threads':>7} {'llama.cpp':>10} {'baton':>10} {'ratio':>6} {'of reading':>10} "
        f"{'of memory':>10}   (tokens per second)"
    )
    for name, find in models(arguments.what):
        model = str(find())
        for threads in map(int, arguments.threads.split(",")):
            ours = Side([runner, model, str(threads)])
            theirs = Side([python, __file__, "--serve-llama-cpp", str(threads), model], environment)
            compare(name, WORKLOADS, threads, ours, theirs, ours, arguments.rounds)
            if arguments.http and name.startswith("default"):
                for stages in {1, threads}:
                    served = Served(model, stages, threads // stages)
                    label = f"over HTTP, {stages} stage{'s' if stages > 1 else ''}"
                    compare(label, ["decode", "prefill"], threads, served, theirs, ours, arguments.rounds)
                    served.stop()
            ours.stop()
            theirs.stop()


if __name__ == "__main__":
    main()
