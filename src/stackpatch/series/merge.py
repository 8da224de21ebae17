"""Three-way merge of one file's bytes, by libgit2, without touching the source store."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from stackpatch.sources.memory import BEFORE_THE_DISK, MemoryBackend

if TYPE_CHECKING:
    import pygit2


def _scratch() -> pygit2.Repository:
    """A repository in memory, without a folder or settings; libgit2 merges objects, not bytes."""
    import pygit2

    repository = pygit2.Repository()
    objects = pygit2.Odb()
    objects.add_backend(MemoryBackend(), BEFORE_THE_DISK)
    repository.set_odb(objects)
    return repository


def merge(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """The merge of both sides' changes to base; None when they conflict, or hold a NUL.

    The same bytes as `git merge-file`: libgit2's xdiff, no heuristics of ours. Merged as entries
    and not as trees, because a merge of trees obeys the person's git attributes (`merge=union`).
    """
    if base in (ours, theirs):
        return theirs if base == ours else ours
    if ours == theirs:
        return ours
    return _merged(base, ours, theirs)


@lru_cache(maxsize=64)
def _merged(*sides: bytes) -> bytes | None:
    import pygit2
    from pygit2.enums import FileMode

    if any(b"\0" in side for side in sides):
        return None
    # The binding hands the result over as UTF-8; Latin-1 names every other byte.
    codec = "utf-8"
    try:
        for side in sides:
            side.decode(codec)
    except UnicodeDecodeError:
        codec = "latin-1"
    repository = _scratch()
    entries = [
        pygit2.IndexEntry(
            "f", repository.create_blob(side.decode(codec).encode("utf-8")), FileMode.BLOB
        )
        for side in sides
    ]
    result = repository.merge_file_from_index(entries[0], entries[1], entries[2])
    return result.contents.encode(codec) if result.automergeable else None
