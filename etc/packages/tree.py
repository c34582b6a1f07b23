"""A tree of files in memory, written as a tar archive whose bytes depend on nothing else."""

import io
import tarfile


class Tree:
    """Files and folders by their paths."""

    def __init__(self, time):
        self.time = time
        self.entries = {}

    def add(self, path, data, mode=0o644):
        self._folders_of(path)
        self.entries[path] = (mode, data, 0)

    def add_folder(self, path, mode=0o755, owner=0):
        self._folders_of(path)
        self.entries[path] = (mode, None, owner)

    def _folders_of(self, path):
        parts = path.split("/")[:-1]
        for end in range(1, len(parts) + 1):
            self.entries.setdefault("/".join(parts[:end]), (0o755, None, 0))

    def tar(self):
        """The archive, uncompressed."""
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for path, (mode, data, owner) in sorted(self.entries.items()):
                entry = tarfile.TarInfo(path)
                entry.mode, entry.mtime, entry.uid, entry.gid = mode, self.time, owner, owner
                entry.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
                entry.size = 0 if data is None else len(data)
                archive.addfile(entry, io.BytesIO(data or b""))
        return written.getvalue()

    def write(self, folder):
        """Writes the tree below a folder."""
        for path, (mode, data, _) in sorted(self.entries.items()):
            place = folder / path
            if data is None:
                place.mkdir(exist_ok=True)
            else:
                place.write_bytes(data)
            place.chmod(mode)
