"""The Debian package, by dpkg-deb."""

import os
import pathlib
import re
import subprocess
import tempfile

from .release import compressed
from .tree import Tree

# The Debian packages of the libraries that the program may need.
LIBRARIES = {
    "libc.so.6": "libc6",
    "libm.so.6": "libc6",
    "ld-linux-x86-64.so.2": "libc6",
    "ld-linux-aarch64.so.1": "libc6",
    "libgcc_s.so.1": "libgcc-s1",
}

CONTROL = """\
Package: baton
Version: {version}
Architecture: {machine}
Maintainer: the baton developers <maintainers@baton.invalid>
Installed-Size: {kib}
Depends: {libraries}, adduser
Recommends: python3-pip
Suggests: etcd-server, etcd-client
Section: net
Priority: optional
Description: runs one language model across several machines
 The layers of the model are divided among processes on the machines that
 people own; a gateway speaks the OpenAI API for all of them. A stage holds
 only its own layers, there is no master, and requests survive stages that
 are killed.
 .
 The default model is fetched by pip (python3-pip).
"""

POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    if ! getent passwd baton >/dev/null; then
        adduser --system --group --quiet --home /var/lib/baton --no-create-home --gecos "baton" baton
    fi
    if [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload || true
        # An upgrade: services that run get the new program, one after the other.
        if [ -n "$2" ]; then systemctl try-restart baton-stage.service baton-gateway.service || true; fi
    fi
fi
"""

PRERM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now baton-stage.service baton-gateway.service >/dev/null 2>&1 || true
fi
"""

POSTRM = """\
#!/bin/sh
set -e
if [ "$1" = purge ]; then
    # The user stays, as Debian advises: files elsewhere may be its own. So do keys that somebody put in /etc/baton.
    rm -rf /var/lib/baton /var/cache/baton
    rmdir /etc/baton 2>/dev/null || true
fi
if [ -d /run/systemd/system ]; then systemctl --system daemon-reload || true; fi
"""


def build(release, out):
    version = f"{release.version}-{release.revision}"
    tree = _contents(release, version)
    sizes = [len(data) for _, data, _ in tree.entries.values() if data is not None]
    control = CONTROL.format(
        version=version, machine=release.debian_machine, kib=-(-sum(sizes) // 1024),
        libraries=_libraries(release.program))
    tree.add("DEBIAN/control", control.encode())
    tree.add("DEBIAN/conffiles", b"/etc/baton/baton.toml\n")
    for name, script in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)]:
        tree.add(f"DEBIAN/{name}", script.encode(), 0o755)
    path = out / f"baton_{version}_{release.debian_machine}.deb"
    with tempfile.TemporaryDirectory() as folder:
        tree.write(pathlib.Path(folder))
        pathlib.Path(folder).chmod(0o755)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(release.time)}
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", folder, path]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return path


def _contents(release, version):
    tree = Tree(release.time)
    tree.add("usr/bin/baton", release.program.read_bytes(), 0o755)
    for name, page in release.manual().items():
        tree.add(f"usr/share/man/man1/{name}.gz", compressed(page))
    for path, script in release.completions().items():
        tree.add(path, script)
    for name, unit in release.units("/usr/bin/baton").items():
        tree.add(f"lib/systemd/system/{name}", unit)
    tree.add("etc/baton/baton.toml", release.file("etc/baton.toml"))
    documents = "usr/share/doc/baton"
    tree.add(f"{documents}/README.md.gz", compressed(release.file("README.md")))
    tree.add(f"{documents}/changelog.gz", compressed(release.file("CHANGELOG.md")))
    licences = b"baton is licensed under either of the two below, at your choice.\n\n"
    licences += release.file("LICENSE-MIT") + b"\n\n" + release.file("LICENSE-APACHE")
    tree.add(f"{documents}/copyright", licences)
    return tree


def _libraries(program):
    """The packages that the program needs, libc6 in the version whose symbols it uses."""
    run = lambda *command: subprocess.run(command, check=True, capture_output=True, text=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", program))
    unknown = [name for name in needed if name not in LIBRARIES]
    if unknown:
        raise SystemExit(f"etc/package: no Debian package is known for {unknown}: add them to LIBRARIES")
    symbols = re.findall(r"GLIBC_(\d+)\.(\d+)", run("objdump", "-T", program))
    newest = max((int(major), int(minor)) for major, minor in symbols)
    packages = sorted({LIBRARIES[name] for name in needed})
    return ", ".join(f"libc6 (>= {newest[0]}.{newest[1]})" if name == "libc6" else name for name in packages)
