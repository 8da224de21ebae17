"""How much each cache holds, for `cache list`; nothing is opened for writing or followed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.installed.shape import step

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from stackpatch.installed.cache import Cache
    from stackpatch.installed.locate import Location
    from stackpatch.installed.surroundings import Surroundings


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes: the sum of the sizes of regular files, hard links once. unreadable: folders."""

    bytes: int
    files: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class Listed:
    """One place of one cache. location: None where the cache has no place of its own here."""

    cache: Cache
    location: Location | None
    exists: bool
    size: Size
    resolved: Path | None

    def document(self) -> dict[str, object]:
        """The row of `cache list`, as the contract has it, with more keys."""
        variable = self.location.variable if self.location else None
        return {
            "name": self.cache.name,
            "what": self.cache.what,
            "path": None if self.location is None else str(self.location.path),
            "resolved": None if self.resolved is None else str(self.resolved),
            "rule": None if self.location is None else self.location.rule,
            "variable": variable or next(iter(self.cache.variables), None),
            "variable_set": variable is not None,
            "bytes": self.size.bytes,
            "files": self.size.files,
            "unreadable": self.size.unreadable,
            "exists": self.exists,
            "stale_risk": str(self.cache.risk),
            "reason": self.cache.reason,
            "source": self.cache.source,
            "stacks": list(self.cache.stacks),
            "clearable": self.cache.clearable,
            "instead": self.cache.instead or None,
        }


_NOTHING = Size(0, 0, 0)


def listing(caches: Iterable[Cache], around: Surroundings) -> list[Listed]:
    """Every place of every cache, in the table's order; one row where a cache has no place."""
    rows = []
    for cache in caches:
        places = cache.locations(around)
        if not places:
            rows.append(Listed(cache, None, exists=False, size=_NOTHING, resolved=None))
        rows.extend(_look(cache, place) for place in places)
    return rows


def _look(cache: Cache, place: Location) -> Listed:
    try:
        real = place.path.resolve(strict=True)
    except (OSError, RuntimeError):  # absent, unreachable, or a loop of links
        exists = os.path.lexists(place.path)
        return Listed(cache, place, exists=exists, size=_NOTHING, resolved=None)
    size = measure(real, cache)
    resolved = real if real != place.path else None
    return Listed(cache, place, exists=True, size=size, resolved=resolved)


def measure(path: Path, cache: Cache | None = None) -> Size:
    """The size of a file or of a folder, without what belongs to another cache inside it.

    What vanishes meanwhile does not count; what cannot be read is counted as unreadable.
    """
    total, files, unreadable = 0, 0, 0
    seen: set[tuple[int, int]] = set()
    waiting = [(str(path), True)]
    try:
        if not path.is_dir():
            return Size(path.stat().st_size, 1, 0)
    except OSError:
        return Size(0, 0, 1)
    while waiting:
        folder, top = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if top and cache is not None and _of_another(cache, entry):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, False))
                    elif entry.is_file(follow_symlinks=False):
                        found = entry.stat(follow_symlinks=False)
                        if found.st_nlink > 1 and (found.st_dev, found.st_ino) in seen:
                            continue
                        seen.add((found.st_dev, found.st_ino))
                        total += found.st_size
                        files += 1
        except FileNotFoundError:
            continue
        except OSError:
            unreadable += 1
    return Size(total, files, unreadable)


def _of_another(cache: Cache, entry: os.DirEntry[str]) -> bool:
    """Whether a name directly in the cache folder belongs to another cache or to nobody."""
    meaning = step(cache.entries, 0, entry.name, folder=entry.is_dir(follow_symlinks=False))
    return any(found.keep for found in meaning.ends)
