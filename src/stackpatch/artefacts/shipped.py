"""Which files of the git tree a wheel ships, and where."""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from stackpatch.model.layout import Layout
    from stackpatch.sources.objects import Entry, Objects

# git's file modes; `sources.objects` has them too, and brings pygit2 along.
_EXECUTABLE, _REGULAR = 0o100755, 0o100644


@dataclass(frozen=True, slots=True)
class Shipped:
    """Changes of the git tree as changes of a wheel, keyed by path in the wheel.

    content: None where the file is removed. originals: sha256 (hex) of what was there in the git
    tree. outside: changed paths of the git tree that the wheel does not ship, such as tests.
    """

    content: Mapping[str, bytes | None]
    executable: Mapping[str, bool]
    originals: Mapping[str, str]
    outside: tuple[str, ...] = field(default=())


def shipped_changes(
    objects: Objects,
    before: str,
    changes: Mapping[str, Entry | None],
    layout: Layout,
    held: Collection[str],
) -> Shipped:
    """What changes of the tree `before` mean for a wheel with the members `held`.

    changes: by path in the git tree, what lies there afterwards, None for removed. Raises
    InputError for a link, which no wheel can hold.
    """
    content: dict[str, bytes | None] = {}
    executable: dict[str, bool] = {}
    originals: dict[str, str] = {}
    outside: list[str] = []
    for git_path, entry in sorted(changes.items()):
        old = objects.entry(before, git_path)
        if old == entry:
            continue
        places = wheel_paths(layout, git_path, held, added=old is None)
        if not places:
            outside.append(git_path)
            continue
        for mode in (one.mode for one in (old, entry) if one is not None):
            if mode not in (_EXECUTABLE, _REGULAR):
                msg = f"{git_path} is a symbolic link, which a wheel cannot hold"
                raise InputError(msg, hint="leave it out of the series")
        new = objects.blob(entry.id) if entry is not None else None
        for place in places:
            content[place] = new
            if entry is not None and (old is None or old.mode != entry.mode):
                executable[place] = entry.mode == _EXECUTABLE
            if old is not None:
                originals[place] = hashlib.sha256(objects.blob(old.id)).hexdigest()
    return Shipped(content, executable, originals, tuple(outside))


def wheel_paths(
    layout: Layout, git_path: str, held: Collection[str], *, added: bool
) -> tuple[str, ...]:
    """Where the wheel has this file of the git tree, or would have it if it is added.

    held: the wheel's members. A wheel may hold a file more than once. A new file goes where its
    folder's files are; one whose folder the wheel does not ship (tests, documentation) has no
    place, although a rule for a whole tree would name one.
    """
    found = []
    for rule in layout.rules:
        if rule.git is None:
            continue
        folder = rule.here == "" or rule.here.endswith("/")
        if folder and git_path.startswith(rule.git):
            path = rule.here + git_path[len(rule.git) :]
        elif not folder and git_path == rule.git:
            path = rule.here
        else:
            continue
        if layout.to_git(path) != git_path:
            continue
        if path in held or (added and _has_neighbours(path, rule.here, held)):
            found.append(path)
    return tuple(dict.fromkeys(found))


def _has_neighbours(path: str, here: str, held: Collection[str]) -> bool:
    """Whether the wheel holds files in the path's folder, or in one above it within the rule."""
    folders = {posixpath.dirname(name) for name in held if not name.endswith("/")}
    above = posixpath.dirname(path)
    while f"{above}/".startswith(here) or not here:
        if above in folders:
            return True
        if not above:
            return False
        above = posixpath.dirname(above)
    return False
