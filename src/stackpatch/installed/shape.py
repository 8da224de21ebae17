"""What a cache's own entries look like, so that nothing else is ever taken for one.

An `Entry` is a path pattern below the cache folder, one regular expression a level. What matches
none is somebody else's and stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

# A level with this group is a FlashInfer version: it names whose kernels lie below.
VERSION = r"(?P<version>\d+(?:\.\d+)+[a-z0-9.+_-]*)"

# Our own folder for what is on its way out (clear.py); one that is left over is swept.
ASIDE = re.compile(r"\.stackpatch-cleared-[a-z0-9_]{8}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of entry.

    levels: regular expressions for the path below the cache folder. inside: what the names of the
    files in a folder entry look like, at any depth. marker: a name of which one must lie directly
    in the folder, else it is not the cache's; `{-1}` stands for the folder's own name. file: the
    entry is a file. keep: why it is never taken; a kept entry is not looked into. named_only:
    taken only when the cache is asked for by name. locks: lock files that guard the entry but lie
    outside of it, as paths below the cache folder; `{0}` stands for the first level's name.
    """

    levels: tuple[str, ...]
    inside: str = ""
    marker: str = ""
    file: bool = False
    keep: str = ""
    named_only: bool = False
    locks: tuple[str, ...] = ()

    def accepts(self, file_name: str) -> bool:
        """Whether a file of this name inside the entry is its own."""
        return bool(self.inside) and _compiled(self.inside).fullmatch(file_name) is not None

    def marked(self, names: frozenset[str], own: str) -> bool:
        """Whether the marker is among the names that lie in the folder `own`."""
        if not self.marker:
            return True
        pattern = _compiled(self.marker.replace("{-1}", re.escape(own)))
        return any(pattern.fullmatch(name) for name in names)

    def lock_paths(self, parts: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """The outer lock files of the entry at `parts`, as paths below the cache folder."""
        names = {"{-1}": parts[-1], **{f"{{{i}}}": part for i, part in enumerate(parts)}}
        return tuple(
            tuple(re.sub(r"\{-?\d\}", lambda m: names[m[0]], level) for level in lock.split("/"))
            for lock in self.locks
        )


@dataclass(frozen=True, slots=True)
class Step:
    """What one name at one level means: entries that end here, and those that go deeper."""

    ends: tuple[Entry, ...]
    deeper: tuple[Entry, ...]
    version: str | None


def step(entries: tuple[Entry, ...], depth: int, name: str, *, folder: bool) -> Step:
    """Match the name of a folder or file at a depth (0: directly in the cache folder)."""
    ends, deeper, version = [], [], None
    for entry in entries:
        found = _compiled(entry.levels[depth]).fullmatch(name)
        if not found:
            continue
        if len(entry.levels) > depth + 1:
            if not folder:
                continue
            deeper.append(entry)
        elif entry.keep or entry.file != folder:
            ends.append(entry)
        else:
            continue
        version = found.groupdict().get("version") or version
    return Step(tuple(ends), tuple(deeper), version)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
