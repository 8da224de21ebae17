"""Git objects in memory: what a build computes on the way and nobody reads after the process.

A patched tree costs some twenty small objects. Written to disk they take longer than everything
else in applying a series, and they stay in the user's cache, reachable from nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pygit2

if TYPE_CHECKING:
    from collections.abc import Iterator


BEFORE_THE_DISK = 100  # libgit2 gives loose objects the priority 1 and packs 2


class MemoryBackend(pygit2.OdbBackend):
    """A git object database that takes every write and forgets it with the process.

    libgit2 asks it before the repository's own objects; KeyError means "ask the next one".
    """

    def __init__(self) -> None:
        super().__init__()
        self._objects: dict[str, tuple[int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[pygit2.Oid]:
        return (pygit2.Oid(hex=name) for name in self._objects)

    def write_cb(self, oid: pygit2.Oid, data: bytes, kind: int) -> None:
        """Take an object."""
        self._objects[str(oid)] = (kind, data)

    def read_cb(self, oid: pygit2.Oid) -> tuple[int, bytes]:
        """Kind and content. Raises KeyError."""
        return self._objects[str(oid)]

    def read_header_cb(self, oid: pygit2.Oid) -> tuple[int, int]:
        """Kind and size. Raises KeyError."""
        kind, data = self._objects[str(oid)]
        return kind, len(data)

    def exists_cb(self, oid: pygit2.Oid) -> bool:
        """Whether it is here."""
        return str(oid) in self._objects

    def read_prefix_cb(self, prefix: str) -> tuple[int, bytes, pygit2.Oid]:
        """The one object whose id starts so. Raises KeyError, ValueError where several do."""
        found = self.exists_prefix_cb(prefix)
        return (*self._objects[str(found)], found)

    def exists_prefix_cb(self, prefix: str) -> pygit2.Oid:
        """The id of the one object that starts so. Raises KeyError, ValueError where several do."""
        start = str(prefix)
        found = [name for name in self._objects if name.startswith(start)]
        if not found:
            raise KeyError(start)
        if len(found) > 1:
            msg = f"{start} is the start of {len(found)} objects"
            raise ValueError(msg)
        return pygit2.Oid(hex=found[0])

    def refresh_cb(self) -> None:
        """Nothing comes from elsewhere."""
