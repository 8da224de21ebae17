"""Whether a clean merge put a change where it was meant to go.

A merge aligns equal lines as cheaply as it can. Where upstream swapped two calls, two overloads or
two sections that read alike, it puts our change into the other one and calls that clean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.model.hunk import Hunk
from stackpatch.series.placement import same_place

if TYPE_CHECKING:
    from stackpatch.series.placement import Side


def stray(base: Side, theirs: Side, target: Side, merged: Side) -> int | None:
    """The first line of the target (1-based) that the merge changed and the patch was not about.

    base, theirs: the file that the patch was made on, without and with it. None: all is in place.
    """
    meant = _changes(base, theirs)
    for change in _changes(target, merged):
        start = change.old_start - 1
        if not any(
            change.old == ours.old
            and change.new == ours.new
            and same_place(ours, ours.old_start - 1, base, start, target)
            for ours in meant
        ):
            return change.old_start + change.leading_context
    return None


def _changes(before: Side, after: Side) -> list[Hunk]:
    """The changes as git's diff sees them, each with one line around it where there is one."""
    import pygit2

    found = pygit2.Patch.create_from(before.content, after.content, context_lines=0)
    old, new = before.lines, after.lines
    hunks = []
    for hunk in found.hunks:
        start = hunk.old_start - (1 if hunk.old_lines else 0)
        above = [(b" ", line) for line in old[max(start - 1, 0) : start]]
        end, begin = start + hunk.old_lines, hunk.new_start - (1 if hunk.new_lines else 0)
        lines = [
            *above,
            *((b"-", line) for line in old[start:end]),
            *((b"+", line) for line in new[begin : begin + hunk.new_lines]),
            *((b" ", line) for line in old[end : end + 1]),
        ]
        count = sum(tag != b"+" for tag, _ in lines)
        first = start - len(above) + 1
        hunks.append(Hunk(first, count, first, len(lines) - hunk.old_lines, b"", tuple(lines), 0))
    return hunks
