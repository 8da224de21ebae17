"""What is told of a conflict that a person resolved. Told, never refused: a person may know better.

A patch that lost a part, or got one in another function, is still one that applies: nobody would
see it later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.model.diff import Change
from stackpatch.model.patch import parse_patch
from stackpatch.series.edits import patched
from stackpatch.series.effects import judge_all
from stackpatch.series.pick import symbols_touched
from stackpatch.series.side import Side

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects


def resolution(
    objects: Objects, before: str, after: str, patch: Patch, mail: bytes, *, origin: str | None
) -> tuple[str, ...]:
    """What a person should know of the patch that their work tree came to.

    before, after: the trees without and with it. mail: what it is now. origin: the tree of the
    release that the series is for.
    """
    now = parse_patch(patch.name, mail)
    return (
        *_beside(patch, now),
        *_deletes(patch, now),
        *_less(patch, now),
        *_elsewhere(objects, before, after, patch),
        *_unparsed(objects, before, after, patch),
        *_separators(objects, before, after, patch),
        *_effects_missing(objects, after, patch, origin),
    )


def _beside(patch: Patch, now: Patch) -> Iterator[str]:
    """Files that only the person changed: meant so, or what an editor left behind."""
    more = sorted(set(now.paths) - set(patch.paths))
    if more:
        yield f"it changes {', '.join(more)} too"


def _deletes(patch: Patch, now: Patch) -> Iterator[str]:
    """Files that are gone: another thing than a file that is as upstream has it."""
    before = {file.old_path for file in patch.files if file.new_path is None}
    made = {file.new_path for file in now.files}
    gone = {file.old_path for file in now.files if file.new_path is None} - made - before
    if gone:
        yield f"it deletes {', '.join(sorted(path for path in gone if path))}"


def _less(patch: Patch, now: Patch) -> Iterator[str]:
    """What the patch did and does no more: guard 4, a patch that shrinks is told where."""
    gone = sorted(set(patch.paths) - set(now.paths))
    if gone:
        yield f"it no longer changes {', '.join(gone)}"
    left = {file.path: file.size for file in now.files}
    for file in patch.files:
        if file.path in left and left[file.path] < file.size:
            yield f"{file.path}: {file.size} changed lines before, {left[file.path]} after"


def _elsewhere(objects: Objects, before: str, after: str, patch: Patch) -> Iterator[str]:
    """Functions that the patch did not touch and does now: guard 1, for what a person writes."""
    for file in patch.files:
        blob = objects.find_blob(file.old_id) if file.old_id else None
        was, now = objects.read(before, file.path), objects.read(after, file.path)
        if file.change is not Change.MODIFY or blob is None or was is None or now is None:
            continue
        base = Side(file.path, objects.blob(blob))
        meant = symbols_touched(base, patched(file, base))
        touched = symbols_touched(Side(file.path, was), Side(file.path, now))
        strangers = sorted(name for name in touched - meant if name)
        if strangers:
            yield f"in {file.path} it changes {', '.join(strangers)}, which it did not before"


def _effects_missing(
    objects: Objects, tree: str, patch: Patch, origin: str | None
) -> Iterator[str]:
    for finding in judge_all(objects, tree, patch, origin):
        if finding.holds is not True:
            yield f"edit its Effect, which does not hold now: {finding.effect}"
            return


def _unparsed(objects: Objects, before: str, after: str, patch: Patch) -> Iterator[str]:
    """Files of the patch that the person left unreadable; told, as a grammar of ours may err."""
    for path in patch.paths:
        was, now = objects.read(before, path), objects.read(after, path)
        if was is not None and now is not None and not Side(path, was).symbols.unread:
            for first, _ in Side(path, now).symbols.unread[:1]:
                yield f"{path} does not parse at line {first}, upstream's did"


def _separators(objects: Objects, before: str, after: str, patch: Patch) -> Iterator[str]:
    """The one marker that has no label, and may be a heading: told where there are more now."""
    for path in patch.paths:
        was, now = objects.read(before, path), objects.read(after, path)
        if now is not None and _count(now) > _count(was or b""):
            yield f"{path} has a line ======= that upstream's has not"


def _count(content: bytes) -> int:
    return sum(line.rstrip(b"\r") == b"=======" for line in content.split(b"\n"))
