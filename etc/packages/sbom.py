"""The bill of materials in CycloneDX's form: the crates that are linked into the program, by Cargo's own account."""

import json
import re
import subprocess


def build(release, out):
    target = re.search(r"(?m)^host: (.+)$", _run(release, "rustc", "-vV")).group(1)
    metadata = json.loads(_run(
        release, "cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target))
    hashes = _hashes((release.root / "Cargo.lock").read_text())
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    program = metadata["resolve"]["root"]
    linked, waiting = {}, [program]
    while waiting:
        name = waiting.pop()
        if name not in linked:
            linked[name] = sorted(dep["pkg"] for dep in nodes[name]["deps"]
                                  if any(kind["kind"] is None for kind in dep["dep_kinds"]))
            waiting += linked[name]
    component = lambda name: _component(packages[name], hashes)
    reference = lambda name: component(name)["bom-ref"]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**component(program), "type": "application"}},
        "components": sorted((component(name) for name in linked if name != program), key=lambda c: c["bom-ref"]),
        "dependencies": sorted(
            ({"ref": reference(name), "dependsOn": sorted(map(reference, needs))} for name, needs in linked.items()),
            key=lambda d: d["ref"]),
    }
    path = out / f"{release.name}.cdx.json"
    path.write_text(json.dumps(bill, indent=1) + "\n")
    return path


def _run(release, *command):
    return subprocess.run(command, cwd=release.root, check=True, capture_output=True, text=True).stdout


def _hashes(lock):
    found = re.findall(r'name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "(.+)"', lock)
    return {(name, version): checksum for name, version, checksum in found}


def _component(package, hashes):
    name, version = package["name"], package["version"]
    component = {
        "type": "library",
        "bom-ref": f"pkg:cargo/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:cargo/{name}@{version}",
    }
    if package["license"]:
        component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if (name, version) in hashes:
        component["hashes"] = [{"alg": "SHA-256", "content": hashes[name, version]}]
    return component
