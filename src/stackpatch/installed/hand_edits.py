"""What was changed in an installed distribution by hand, against what its wheel brought."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from stackpatch.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackpatch.installed.distribution import Distribution
    from stackpatch.installed.record import Row

# Made by running the package, not by hand.
_MADE = frozenset(("__pycache__",))
_MADE_SUFFIXES = frozenset((".pyc", ".pyo"))


@dataclass(frozen=True, slots=True)
class Edits:
    """By path in the site folder. changed: the content now. removed: gone. added: files in the
    distribution's own folders that the wheel does not have, in order."""

    changed: Mapping[str, bytes]
    removed: tuple[str, ...]
    added: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changed or self.removed or self.added)


def find(
    distribution: Distribution, rows: Mapping[str, Row], ours: Mapping[str, str | None]
) -> Edits:
    """Hold every file against the wheel's rows, or against the digest that a series left there.

    rows: of the released wheel's RECORD. ours: sha256 by path of what `venv apply` wrote, None
    where it removed the file. Raises EnvironmentProblem for what cannot be read.
    """
    changed: dict[str, bytes] = {}
    removed: list[str] = []
    metadata = distribution.dist_info.name
    for path, row in rows.items():
        if path.partition("/")[0] == metadata or path in ours or not row.hashed:
            continue
        content = _read(distribution.site / path)
        if content is None:
            removed.append(path)
        elif not row.says(hashlib.new(row.algorithm, content).digest(), len(content)):
            changed[path] = content
    for path, after in ours.items():
        content = _read(distribution.site / path)
        if content is None:
            if after is not None:
                removed.append(path)
        elif hashlib.sha256(content).hexdigest() != after:
            changed[path] = content
    known = {*rows, *ours}
    tops = {path.partition("/")[0] for path in rows if "/" in path and ".." not in path} - {
        metadata
    }
    added = [
        path
        for top in sorted(tops)
        if top and not top.endswith((".dist-info", ".data"))
        for path in _files(distribution.site, top)
        if path not in known
    ]
    return Edits(changed, tuple(sorted(removed)), tuple(added))


def _files(site: Path, top: str) -> list[str]:
    found = []
    for folder, folders, names in os.walk(site / top):
        folders[:] = sorted(name for name in folders if name not in _MADE)
        below = PurePosixPath(os.path.relpath(folder, site))
        found += [
            str(below / name)
            for name in sorted(names)
            if Path(name).suffix not in _MADE_SUFFIXES and not name.endswith(".tmp")
        ]
    return found


def _read(place: Path) -> bytes | None:
    try:
        return place.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        msg = f"cannot read {place}: {error.strerror}"
        raise EnvironmentProblem(msg, where=str(place)) from error
