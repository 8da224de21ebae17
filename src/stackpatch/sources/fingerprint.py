"""What a source store holds, in one digest, without opening it.

Opening it costs a library and the reading of every version. Whoever only wants to know whether
anything is other than it was compares two digests: references by name and value, objects by name.
An object's name is its content's, so the objects themselves are not read.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The references; `alternates` can name another folder with objects.
_READ = ("packed-refs", "refs", "objects/info")


def fingerprint(store: Path) -> str:
    """64 hex digits; others whenever a version or an object came, went or changed.

    A store that is not there has one too. Raises OSError for what cannot be read.
    """
    whole = hashlib.sha256()
    for name in _READ:
        for path in _files(store / name):
            with open(path, "rb") as file:  # noqa: PTH123 - a hundred of them
                content = file.read()
            whole.update(os.fsencode(f"{path}\0{len(content)}\0"))
            whole.update(content)
    for path in _files(store / "objects"):
        whole.update(os.fsencode(f"{path}\0"))
    return whole.hexdigest()


def _files(top: Path) -> Iterator[str]:
    """The file, or every file below the folder, always in the same order."""
    waiting = [str(top)]
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except NotADirectoryError:
            yield path
            continue
        except FileNotFoundError:
            continue
        for entry in found:
            if entry.is_dir():
                waiting.append(entry.path)
            else:
                yield entry.path
