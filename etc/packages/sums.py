"""The SHA-256 sums, in the form that `sha256sum --check` reads."""

import hashlib


def build(made, out):
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out)}\n" for path in made]
    path = out / "SHA256SUMS"
    path.write_text("".join(lines))
    return path
