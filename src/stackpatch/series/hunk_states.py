"""What became of each hunk at an upstream version: landed, still to apply, or why neither.

A landed hunk is one whose new lines stand where the patch would have put them, by the same rules
by which it would be applied: in the same symbol, agreed by a merge, not in a comment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stackpatch.model.diff import Change, FilePatch
from stackpatch.model.verdict import HunkState
from stackpatch.series.edits import alone
from stackpatch.series.merge import merge
from stackpatch.series.placement import place_hunks
from stackpatch.series.side import Side
from stackpatch.sources.objects import DIRECTORY, SUBMODULE, SYMLINK, Entry

if TYPE_CHECKING:
    from stackpatch.model.hunk import Hunk
    from stackpatch.sources.objects import Objects

LANDED, APPLIES = "landed", "applies"


def hunk_states(objects: Objects, tree: str, file: FilePatch) -> list[HunkState]:
    """Per hunk: landed, applies, or why not; one more for a change of mode, name or existence."""
    old = objects.entry(tree, file.old_path) if file.old_path is not None else None
    new = objects.entry(tree, file.new_path) if file.new_path is not None else None
    if file.binary:
        return [_whole(file, _binary(file, old, new))]
    match file.change:
        case Change.ADD:
            return [_whole(file, _added(objects, file, new))]
        case Change.DELETE:
            return [_whole(file, _deleted(file, old))]
        case Change.MODIFY:
            states = _hunks(objects, file, old)
            if file.new_mode != file.old_mode:
                states.append(_whole(file, _mode(file, new)))
            return states
        case Change.RENAME | Change.COPY:
            arrived = new is not None and (old is None or file.change is Change.COPY)
            waits = old is not None and new is None
            named = LANDED if arrived else APPLIES if waits else "conflict"
            states = _hunks(objects, file, new if arrived else old)
            if arrived and not file.hunks:
                # The diff of a bare rename has no content: another file may have that name.
                named = "unproven"
            return [_whole(file, named), *states]


def symbols_changed(objects: Objects, file: FilePatch) -> list[str]:
    """The qualified names of the symbols that the file's hunks change, as far as known."""
    base = made_on(objects, file)
    if base is None:
        return []
    names = [symbol_of(base, hunk) for hunk in file.hunks]
    return [name for name in dict.fromkeys(names) if name]


def made_on(objects: Objects, file: FilePatch) -> Side | None:
    """The file that the patch was made on; None when the store does not have it."""
    if file.change is Change.ADD:
        return Side(file.path, b"")
    blob = objects.find_blob(file.old_id) if file.old_id else None
    return Side(file.path, objects.blob(blob)) if blob is not None else None


def symbol_of(base: Side, hunk: Hunk) -> str:
    """The qualified name of the symbol around the hunk's changes; "" for the file itself."""
    first = hunk.old_start + hunk.leading_context
    last = hunk.old_start + max(len(hunk.old) - hunk.trailing_context - 1, hunk.leading_context)
    return base.symbols.around(min(first, last), max(first, last)).name


def _whole(file: FilePatch, state: str) -> HunkState:
    return HunkState(file.path, file.line, "", state)


def _binary(file: FilePatch, old: Entry | None, new: Entry | None) -> str:
    """A content that the patch does not show is known by its id alone, and then only by all of it.

    It is never to be applied; see `apply_patch`.
    """
    if file.new_path is None:
        return _deleted(file, old)
    left = file.change is not Change.RENAME or old is None
    if new is None or new.id != file.new_id or not left:
        return "binary"
    return LANDED if file.new_mode in (file.old_mode, new.mode) else "binary"


def _added(objects: Objects, file: FilePatch, new: Entry | None) -> str:
    if new is None:
        return APPLIES
    if new.mode in (DIRECTORY, SUBMODULE) or (new.mode == SYMLINK) != (file.new_mode == SYMLINK):
        return "exists"
    wanted = b"".join(text for hunk in file.hunks for text in hunk.new)
    return LANDED if objects.blob(new.id) == wanted else "exists"


def _deleted(file: FilePatch, old: Entry | None) -> str:
    if old is None:
        return LANDED
    if old.mode in (DIRECTORY, SUBMODULE):
        return "conflict"
    # A link where a file was deleted: the file is gone all the same.
    return LANDED if (old.mode == SYMLINK) != (file.old_mode == SYMLINK) else APPLIES


def _mode(file: FilePatch, entry: Entry | None) -> str:
    if entry is None:
        return "missing"
    if entry.mode == file.new_mode:
        return LANDED
    return APPLIES if entry.mode == file.old_mode else "conflict"


def _hunks(objects: Objects, file: FilePatch, entry: Entry | None) -> list[HunkState]:
    base = made_on(objects, file)

    def named(hunk: Hunk) -> str:
        if base is None:
            return hunk.heading.decode("utf-8", "replace").strip()
        return symbol_of(base, hunk)

    if entry is None or entry.mode in (DIRECTORY, SUBMODULE):
        return [HunkState(file.path, hunk.line, named(hunk), "missing") for hunk in file.hunks]
    if (entry.mode == SYMLINK) != (file.old_mode == SYMLINK) and file.old_mode is not None:
        return [HunkState(file.path, hunk.line, named(hunk), "missing") for hunk in file.hunks]
    target = Side(file.path, objects.blob(entry.id))
    return [
        HunkState(file.path, hunk.line, named(hunk), hunk_state(hunk, target, base))
        for hunk in file.hunks
    ]


def hunk_state(hunk: Hunk, target: Side, base: Side | None) -> str:
    """One hunk's state in a file; base: the file that it was made on, None where unknown."""
    placed, refused = place_hunks([hunk], target, base)
    if placed:
        return APPLIES
    if base is not None:
        theirs = alone(hunk, hunk.home, base)
        undone, _ = place_hunks([_reversed(hunk)], target, Side(base.path, theirs))
        if undone and merge(base.content, target.content, theirs) in (target.content, None):
            return LANDED
    return refused[0].reason.value if refused else "conflict"


def _reversed(hunk: Hunk) -> Hunk:
    swap = {b"+": b"-", b"-": b"+", b" ": b" "}
    return replace(
        hunk,
        old_start=hunk.home + (1 if hunk.new_count else 0),
        old_count=hunk.new_count,
        new_start=hunk.old_start,
        new_count=hunk.old_count,
        lines=tuple((swap[tag], text) for tag, text in hunk.lines),
    )
