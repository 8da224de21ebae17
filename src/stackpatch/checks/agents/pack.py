"""The regular files of a folder as a tar on standard output, sorted, links outside followed.

pack.py FOLDER
"""

from __future__ import annotations

import os
import sys
import tarfile


def pack(root: str) -> None:
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for folder, below, names in os.walk(root):
            below.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                try:
                    add(tar, path, os.path.relpath(path, root))
                except PermissionError as error:
                    print(f"{path}: {error.strerror}", file=sys.stderr)


def add(tar: tarfile.TarFile, path: str, shown: str) -> None:
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        info = tarfile.TarInfo(shown)
        info.size = os.fstat(file.fileno()).st_size
        tar.addfile(info, file)


if __name__ == "__main__":
    pack(sys.argv[1])
