"""`build --from-lock` and `--save-lock`: what a lock asks for, and whether it is what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackpatch import storage
from stackpatch.artefacts.build import LOCK
from stackpatch.artefacts.locked import (
    Locked,
    input_differences,
    output_differences,
    read_locked,
    with_lock,
)
from stackpatch.cli import output
from stackpatch.errors import FindingError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stackpatch.cli.workspace import Workspace


def locked_build(path: Path, *, stack: str | None, arch: str | None, base: str | None) -> Locked:
    """The lock that is meant. base: what `--base` says, needed where the lock knows no name.

    Raises InputError.
    """
    locked = read_locked(path, stack=stack, arch=arch)
    if base is None and locked.base is None:
        digest = locked.inputs["base"]["digest"]
        msg = f"{path}: its base image {digest} was in a folder or an engine and has no name"
        hint = f"say where it is: --base FOLDER@{digest}, or --base docker-daemon:NAME"
        raise InputError(msg, hint=hint, where=str(path))
    return locked


def differing(locked: Locked, inputs: Mapping[str, Any], *, json: bool) -> None:
    """End with a finding where a plan's inputs are not the lock's; nothing was built then."""
    lines = input_differences(locked, inputs)
    if not lines:
        return
    count = len(lines)
    hint = "nothing was built; check out the recipes and patches of that time, or build anew"
    if all(line.startswith("engine.version: ") for line in lines):
        hint = "nothing was built; use that version, name a --builder that has it, or build anew"
    failure = FindingError(
        f"{count} input{'s' * (count != 1)} of this build {'are' if count != 1 else 'is'} not the "
        f"one{'s' * (count != 1)} of {locked.where}",
        hint=hint,
    )
    document = {"from_lock": locked.where, "differences": lines}
    output.emit("build", document, [f"differs  {x}" for x in lines], json=json, failure=failure)


def check_result(
    locked: Locked, folder: Path, *, reused: bool
) -> tuple[list[str], FindingError | None]:
    """The files that are not the lock's, read from the disk, and the finding if there are any.

    reused: whether the result was there before.
    """
    lines = output_differences(locked, folder)
    if not lines:
        return [], None
    hint = f"the inputs are the same: remove {folder} and run again"
    if not reused:
        hint = "the inputs are the same, so the build is not reproducible: please report it"
    msg = f"{len(lines)} of the result's files are not the ones of {locked.where}"
    return lines, FindingError(msg, hint=hint, where=str(folder))


def same_or_differs(locked: Locked, changed: Sequence[str]) -> list[str]:
    """For people: each difference, or that there is none."""
    same = f"same     every file is the one of {locked.where}"
    return [f"differs  {line}" for line in changed] or [same]


def keep_lock(work: Workspace, folder: Path) -> Path:
    """Put the lock of the result in the folder into recipes/STACK.lock.json.

    Raises InputError for the installed set and for a file that is none of ours.
    """
    path = work.writable() / "recipes" / f"{work.recipe.stack}.lock.json"
    guard = storage.cache_root() / "locks" / f"{work.recipe.stack}.guard"
    with storage.lock(guard, what=f"another build that writes {path.name}"):
        lock = (folder / LOCK).read_bytes()
        storage.write_atomically(path, with_lock(path, lock))
    return path
