"""An OCI image layout in a tar archive: one layer with the program and the system's libraries that it needs."""

import hashlib
import json
import pathlib
import re
import subprocess
import time

from .release import compressed
from .tree import Tree

USER = 65532
PASSWD = f"root:x:0:0:root:/root:/sbin/nologin\nbaton:x:{USER}:{USER}:baton:/var/lib/baton:/sbin/nologin\n"
GROUP = f"root:x:0:\nbaton:x:{USER}:\n"


def build(release, out):
    layer = _layer(release).tar()
    packed = compressed(layer)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(release.time))
    platform = {"architecture": release.debian_machine, "os": "linux"}
    config = _json({
        "created": created,
        **platform,
        "config": {
            "User": str(USER),
            "Entrypoint": ["/usr/bin/baton"],
            "Cmd": ["help"],
            "Env": ["PATH=/usr/bin", "HOME=/var/lib/baton", "BATON_CACHE=/var/cache/baton"],
            "ExposedPorts": {"8100/tcp": {}},
            "Volumes": {"/var/cache/baton": {}},
            "WorkingDir": "/var/lib/baton",
            "Labels": {"org.opencontainers.image.version": release.version},
        },
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        "history": [{"created": created, "created_by": "etc/package"}],
    })
    vendor = "application/vnd.oci.image"
    manifest = _json({
        "schemaVersion": 2,
        "mediaType": f"{vendor}.manifest.v1+json",
        "config": _descriptor(f"{vendor}.config.v1+json", config),
        "layers": [_descriptor(f"{vendor}.layer.v1.tar+gzip", packed)],
    })
    named = {"org.opencontainers.image.ref.name": release.version}
    index = _json({
        "schemaVersion": 2,
        "mediaType": f"{vendor}.index.v1+json",
        "manifests": [
            {**_descriptor(f"{vendor}.manifest.v1+json", manifest), "platform": platform, "annotations": named}],
    })
    layout = Tree(release.time)
    layout.add("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    layout.add("index.json", index)
    for blob in [packed, config, manifest]:
        layout.add("blobs/sha256/" + _digest(blob).removeprefix("sha256:"), blob)
    path = out / f"baton-{release.version}-{release.machine}-oci.tar"
    path.write_bytes(layout.tar())
    return path


def _layer(release):
    tree = Tree(release.time)
    tree.add("usr/bin/baton", release.program.read_bytes(), 0o755)
    # The loader under the path that the program names, and each library beside it.
    listed = subprocess.run(["ldd", release.program], check=True, capture_output=True, text=True).stdout
    for path in re.findall(r"(/\S+) \(0x", listed):
        tree.add(path.lstrip("/"), pathlib.Path(path).resolve().read_bytes(), 0o755)
    tree.add("etc/passwd", PASSWD.encode())
    tree.add("etc/group", GROUP.encode())
    tree.add("usr/share/doc/baton/LICENSE-MIT", release.file("LICENSE-MIT"))
    tree.add("usr/share/doc/baton/LICENSE-APACHE", release.file("LICENSE-APACHE"))
    tree.add_folder("tmp", 0o1777)
    tree.add_folder("var/lib/baton", 0o755, USER)
    tree.add_folder("var/cache/baton", 0o755, USER)
    return tree


def _json(value):
    return json.dumps(value, indent=1).encode()


def _digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _descriptor(kind, data):
    return {"mediaType": kind, "digest": _digest(data), "size": len(data)}
