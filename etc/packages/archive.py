"""The archive for people who unpack it themselves, and for Homebrew."""

from .release import SHELLS, compressed
from .tree import Tree


def build(release, out):
    tree = Tree(release.time)
    top = release.name
    tree.add(f"{top}/bin/baton", release.program.read_bytes(), 0o755)
    for name, page in release.manual().items():
        tree.add(f"{top}/share/man/man1/{name}", page)
    shells = dict(zip(SHELLS.values(), SHELLS))
    for path, script in release.completions().items():
        tree.add(f"{top}/completions/baton.{shells[path]}", script)
    for path in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "etc/baton.toml"]:
        tree.add(f"{top}/{path}", release.file(path))
    # README's links and pictures lead there.
    for page in sorted((release.root / "docs").iterdir()):
        tree.add(f"{top}/docs/{page.name}", page.read_bytes())
    services = "systemd/*.service" if release.system == "linux" else "launchd/*.plist"
    for unit in sorted((release.root / "etc").glob(services)):
        tree.add(f"{top}/etc/{unit.parent.name}/{unit.name}", unit.read_bytes())
    path = out / f"{top}.tar.gz"
    path.write_bytes(compressed(tree.tar()))
    return path
