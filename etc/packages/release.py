"""The stripped program with the files that belong to it, and where they lie in an installation."""

import gzip
import os
import pathlib
import platform
import re
import subprocess
import tempfile

SHELLS = {
    "bash": "usr/share/bash-completion/completions/baton",
    "zsh": "usr/share/zsh/vendor-completions/_baton",
    "fish": "usr/share/fish/vendor_completions.d/baton.fish",
}


class Release:
    """A program that is packaged, with its version."""

    def __init__(self, root, binary, revision):
        self.root = root
        self.revision = revision
        self.version = re.search(r'(?m)^version = "([^"]+)"', (root / "Cargo.toml").read_text()).group(1)
        self.system = {"Linux": "linux", "Darwin": "macos"}[platform.system()]
        self.machine = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}[platform.machine()]
        self.debian_machine = {"x86_64": "amd64", "aarch64": "arm64"}[self.machine]
        # All times in packages, so that two runs give the same bytes.
        self.time = int(os.environ.get("SOURCE_DATE_EPOCH") or self._run("git", "log", "-1", "--format=%ct") or 0)
        self.folder = tempfile.TemporaryDirectory()
        self.program = pathlib.Path(self.folder.name) / "baton"
        arguments = ["-o", self.program, binary]
        subprocess.run(["strip", *([] if self.system == "linux" else ["-x"]), *arguments], check=True)
        found = self._run(self.program, "--version").split()
        if found != ["baton", self.version]:
            raise SystemExit(f"etc/package: {binary} is {found}: expected baton {self.version}")

    def _run(self, *command):
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True)
        return done.stdout.strip()

    @property
    def name(self):
        return f"baton-{self.version}-{self.machine}-{self.system}"

    def completions(self):
        """The scripts of the shells, by their paths in an installation."""
        found = {}
        for shell, path in SHELLS.items():
            script = subprocess.run([self.program, "completions", shell], check=True, capture_output=True).stdout
            found[path] = script
        return found

    def manual(self):
        """The manual pages, by their names."""
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([self.program, "man", folder], check=True)
            pages = sorted(pathlib.Path(folder).iterdir())
            return {page.name: page.read_bytes() for page in pages}

    def units(self, program):
        """systemd's units for a `program` at another place."""
        units = sorted((self.root / "etc/systemd").glob("*.service"))
        return {unit.name: unit.read_text().replace("/usr/local/bin/baton", program).encode() for unit in units}

    def file(self, path):
        return (self.root / path).read_bytes()


def compressed(data):
    """`data` by gzip, without a time in it."""
    return gzip.compress(data, 6, mtime=0)
