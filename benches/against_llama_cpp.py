#!/usr/bin/env python3
"""baton against llama.cpp: the same file, prompts and threads, in turns within one run; prints tokens per second and
their ratio, and how much of what the machine's memory bandwidth allows (bytes of weights a token over bytes a second).

    python3 benches/against_llama_cpp.py [MODEL.gguf] [--rounds N]

llama.cpp comes from the package llama-cpp-python, whose source is built on this machine into a virtual environment of
its own below the cache folder ($LLAMA_CPP_PYTHON names the Python of another one). baton is built in release mode and
driven over HTTP, one request at a time; llama.cpp is driven in process, without HTTP. Both compute with the same number of
threads: T threads of llama.cpp stand against one stage of T threads, and against T stages of one thread.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PREFILL, DECODE = 512, 128


def cache():
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "baton" / "bench"


def python_with_llama_cpp():
    given = os.environ.get("LLAMA_CPP_PYTHON")
    if given:
        return given
    folder = cache() / "llama-cpp"
    python = folder / "bin" / "python"
    if not python.exists():
        print("building llama.cpp (once, some minutes)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        environment = {**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON"}
        subprocess.run([python, "-m", "pip", "install", "-q", "llama-cpp-python==0.3.36"], check=True, env=environment)
    return str(python)


def prompt(length, salt):
    return [1000 + (7 * at + 131 * salt) % 4000 for at in range(length)]


def serve_llama_cpp(model, threads):
    """Runs in the other Python: reads `prefill SALT` and `decode SALT`, answers seconds a token."""
    import time

    import llama_cpp

    llama = llama_cpp.Llama(model, n_ctx=1024, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False)

    def prefill(tokens):
        llama.reset()
        started = time.perf_counter()
        llama.eval(tokens)
        return time.perf_counter() - started

    def decode(salt):
        prefill(prompt(16, salt))
        started = time.perf_counter()
        for _ in range(DECODE):
            llama.eval([llama.sample(temp=0.0)])
        return time.perf_counter() - started

    prefill(prompt(64, 0))
    print("ready", flush=True)
    for line in sys.stdin:
        what, salt = line.split()
        seconds = prefill(prompt(PREFILL, int(salt))) / PREFILL if what == "prefill" else decode(int(salt)) / DECODE
        print(seconds, flush=True)


class LlamaCpp:
    def __init__(self, python, model, threads):
        command = [python, __file__, "--serve-llama-cpp", str(threads), model]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().strip() == "ready"

    def speed(self, what, salt):
        self.process.stdin.write(f"{what} {salt}\n")
        self.process.stdin.flush()
        return 1 / float(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


class Baton:
    def __init__(self, binary, model, stages, threads):
        command = [binary, "up", "--stages", str(stages), "--threads", str(threads), "--listen", "127.0.0.1:0"]
        command += ["--store-listen", "127.0.0.1:0", os.path.abspath(model)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("ready"):
                self.url = next(word for word in line.split() if word.startswith("http")).rstrip(",")
                break
        self.speed("prefill", 0)

    def speed(self, what, salt):
        length, tokens = (PREFILL, 1) if what == "prefill" else (16, DECODE)
        body = {"prompt": prompt(length, salt), "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        request = urllib.request.Request(self.url + "/v1/completions", json.dumps(body).encode())
        request.add_header("content-type", "application/json")
        timings = json.load(urllib.request.urlopen(request))["timings"]
        return timings["prompt_per_second" if what == "prefill" else "predicted_per_second"]

    def bytes_per_token(self):
        """What a decode step reads: every stage's mapped weights, once."""
        status = json.load(urllib.request.urlopen(self.url + "/distributed/status"))
        return sum(stage["memory"]["weights_bytes"] for stage in status["stages"])

    def stop(self):
        self.process.terminate()
        self.process.wait()


def bandwidth(threads):
    """Bytes a second that so many threads read from memory, by summing a large array (the best of several)."""
    code = (
        "import sys,time,threading,ctypes\n"
        "n=512<<20; b=bytearray(n); m=memoryview(b).cast('Q'); s=(ctypes.c_char*n).from_buffer(b)\n"
        "c=ctypes.CDLL(None); c.memchr.restype=ctypes.c_void_p; c.memchr.argtypes=[ctypes.c_void_p,ctypes.c_int,ctypes.c_size_t]\n"
        "t=int(sys.argv[1]); p=n//t; a=ctypes.addressof(s); best=1e9\n"
        "for _ in range(7):\n"
        " w=[threading.Thread(target=c.memchr,args=(a+i*p,1,p)) for i in range(t)]; x=time.perf_counter()\n"
        " [y.start() for y in w]; [y.join() for y in w]; best=min(best,time.perf_counter()-x)\n"
        "print(n/best)\n"
    )
    return float(subprocess.run([sys.executable, "-c", code, str(threads)], check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve-llama-cpp", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_llama_cpp:
        return serve_llama_cpp(arguments.model, arguments.serve_llama_cpp)
    subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "baton"], check=True, cwd=ROOT)
    binary = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "baton"
    model = arguments.model or subprocess.run([binary, "pull"], check=True, capture_output=True, text=True).stdout.strip()
    python = python_with_llama_cpp()
    print(f"{'work':22} {'threads':>7} {'llama.cpp':>10} {'baton':>10} {'ratio':>6} {'of limit':>8}   (tokens per second, medians)")
    for stages, threads in [(1, 1), (1, 2), (2, 1)]:
        total = stages * threads
        ours, theirs = Baton(binary, model, stages, threads), LlamaCpp(python, model, total)
        ceiling = bandwidth(total) / ours.bytes_per_token()
        for what in ("decode", "prefill"):
            pairs = [(theirs.speed(what, salt), ours.speed(what, salt)) for salt in range(1, arguments.rounds + 1)]
            llama, baton = (statistics.median(side) for side in zip(*pairs))
            name = f"{what}, {stages} stage{'s' if stages > 1 else ''}"
            limit = f"{100 * baton / ceiling:6.0f} %" if what == "decode" else ""
            print(f"{name:22} {total:7} {llama:10.1f} {baton:10.1f} {baton / llama:6.2f} {limit:>8}", flush=True)
        ours.stop()
        theirs.stop()


if __name__ == "__main__":
    main()
