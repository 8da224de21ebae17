"""A tree of the source store as files in a folder: all of them, or none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stackpatch.errors import InputError
from stackpatch.sources.objects import EXECUTABLE, SUBMODULE, SYMLINK
from stackpatch.storage import directory_beside, disk_errors

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.sources.objects import Objects


def check_target(target: Path) -> None:
    """Refuse a folder that holds anything: what lies there is not ours to replace."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        msg = f"{target} is not a folder"
        raise InputError(msg, hint="name a new or an empty folder", where=str(target))
    with disk_errors(target):
        if target.exists() and any(target.iterdir()):
            msg = f"{target} is not empty"
            raise InputError(msg, hint="name a new or an empty folder", where=str(target))


def write_tree(objects: Objects, tree: str, target: Path) -> int:
    """Write every file of the tree, modes 644 and 755 whatever the umask; returns how many.

    The folder appears complete or not at all. Links are made after all files, so that none is
    written through one.
    """
    check_target(target)
    links: list[tuple[Path, bytes]] = []
    count = 0
    with directory_beside(target) as scratch, disk_errors(target):
        made = {scratch}
        for path, entry in objects.walk(tree):
            if entry.mode == SUBMODULE:
                continue
            place = scratch / path
            if place.parent not in made:
                _folders(place.parent, made)
            content = objects.blob(entry.id)
            count += 1
            if entry.mode == SYMLINK:
                links.append((place, content))
                continue
            place.write_bytes(content)
            place.chmod(0o755 if entry.mode == EXECUTABLE else 0o644)
        for place, content in links:
            place.symlink_to(os.fsdecode(content))
    return count


def _folders(folder: Path, made: set[Path]) -> None:
    if folder not in made:
        _folders(folder.parent, made)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        made.add(folder)
