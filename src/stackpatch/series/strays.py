"""Whether a clean merge put every change where it was meant to go, and left none out.

A merge aligns equal lines as cheaply as it can. Where upstream swapped two calls, two overloads or
two sections that read alike, it puts our change into the other one and calls that clean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.model.hunk import Hunk
from stackpatch.series.hunk_states import LANDED, hunk_state
from stackpatch.series.placement import same_place

if TYPE_CHECKING:
    from stackpatch.series.side import Side


def astray(base: Side, theirs: Side, target: Side, merged: Side) -> str | None:
    """What the merge changed beside the patch, or left out though it is not there; None: nothing.

    base, theirs: the file that the patch was made on, without and with it.
    """
    open_ = _changes(base, theirs)
    for change in _changes(target, merged):
        start = change.old_start - 1
        meant = next(
            (
                ours
                for ours in open_
                if (change.old, change.new) == (ours.old, ours.new)
                and same_place(ours, ours.old_start - 1, base, start, target)
            ),
            None,
        )
        if meant is None:
            line = change.old_start + change.leading_context
            return f"at line {line} the merge would change another place that reads like ours"
        open_.remove(meant)
    # Where upstream made a change like ours to a neighbour, a merge may take it for ours.
    for ours in open_:
        if hunk_state(ours, target, base) != LANDED:
            line = ours.old_start + ours.leading_context
            return f"the merge would leave out what the patch does at line {line} of its own base"
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
