"""llama.cpp, built on this machine for comparison: its library for Python, its server and its RPC worker.

The source comes with the package llama-cpp-python; it is built once, for this machine's processor, below the cache
folder. $LLAMA_CPP_BUILD names a build folder with `bin/` to use instead.
"""

import os
import pathlib
import subprocess
import sys

PACKAGE = "llama-cpp-python==0.3.36"
FOLDER = "llama_cpp_python-0.3.36"
TARGETS = ["llama", "llama-server", "ggml-rpc-server"]
OPTIONS = ["GGML_RPC=ON", "LLAMA_CURL=OFF", "LLAMA_OPENSSL=OFF", "LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF"]

# What this machine has of what llama.cpp can use, but AMX: virtual machines that name it do not always allow it.
INSTRUCTIONS = {
    "avx": "AVX", "avx2": "AVX2", "fma": "FMA", "f16c": "F16C", "bmi2": "BMI2", "avx_vnni": "AVX_VNNI",
    "avx512f": "AVX512", "avx512_vnni": "AVX512_VNNI", "avx512vbmi": "AVX512_VBMI", "avx512_bf16": "AVX512_BF16",
}


def instructions():
    """Build options for this machine's processor."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    if "avx2" not in flags:
        return ["GGML_NATIVE=ON"]
    chosen = (f"GGML_{option}={'ON' if flag in flags else 'OFF'}" for flag, option in INSTRUCTIONS.items())
    return ["GGML_NATIVE=OFF", *chosen]


def cache():
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "baton" / "bench"


def build():
    """The folder of llama.cpp's programs and libraries."""
    given = os.environ.get("LLAMA_CPP_BUILD")
    if given:
        return pathlib.Path(given) / "bin"
    folder = cache() / "llama-build"
    done = folder / "done"
    if not done.exists():
        print("building llama.cpp (once, about ten minutes)", file=sys.stderr)
        tools, source = tools_folder(), source_folder()
        environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        options = [f"-D{option}" for option in ["CMAKE_BUILD_TYPE=Release", *OPTIONS, *instructions()]]
        configure = ["cmake", "-S", source / "vendor" / "llama.cpp", "-B", folder, "-G", "Ninja", *options]
        subprocess.run(configure, check=True, env=environment, stdout=sys.stderr)
        build = ["cmake", "--build", folder, "--target", *TARGETS]
        subprocess.run(build, check=True, env=environment, stdout=sys.stderr)
        done.touch()
    return folder / "bin"


def python():
    """A Python that finds the package's bindings, and the environment it needs to find the library."""
    environment = {**os.environ, "LLAMA_CPP_LIB_PATH": str(build()), "PYTHONPATH": str(source_folder())}
    return str(tools_folder() / "python"), environment


def tools_folder():
    """Programs of a virtual environment with what building and the bindings need."""
    folder = cache() / "tools"
    if not (folder / "bin" / "cmake").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        needed = ["cmake", "ninja", "numpy", "typing_extensions", "diskcache", "jinja2"]
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", *needed], check=True)
    return folder / "bin"


def source_folder():
    """The package's source, unpacked."""
    folder = cache() / "src" / FOLDER
    if not folder.exists():
        source_only = ["--no-deps", "--no-binary", "llama-cpp-python"]
        download = [sys.executable, "-m", "pip", "download", "-q", *source_only, PACKAGE]
        subprocess.run([*download, "-d", folder.parent], check=True)
        subprocess.run(["tar", "-xzf", folder.with_name(FOLDER + ".tar.gz"), "-C", folder.parent], check=True)
    return folder
