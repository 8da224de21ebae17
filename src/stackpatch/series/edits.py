"""A hunk as an edit of text: where its old lines stand, and the text with its new ones.

Whether a place is the one that the hunk was written for is placement.py's question.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from stackpatch.series.side import Side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.model.diff import FilePatch
    from stackpatch.model.hunk import Hunk


def find_matches(content: bytes, hunk: Hunk) -> list[int]:
    """Every 0-based line at which the hunk's old lines stand exactly, as `git apply` looks.

    A hunk that starts at the first line must match there, one without trailing context at the end
    of the file: that is what its missing context says.
    """
    needle = b"".join(hunk.old)
    if not needle:
        # Only a new or empty file can take a hunk without old lines.
        return [0] if not content else []
    starts: list[int] = []
    line = 0
    counted = 0
    position = content.find(needle)
    while position != -1:
        line += content.count(b"\n", counted, position)
        counted = position
        end = position + len(needle)
        at_line = position == 0 or content[position - 1 : position] == b"\n"
        whole = needle.endswith(b"\n") or end == len(content)
        begins = hunk.old_start > 1 or line == 0
        finishes = hunk.trailing_context > 0 or end == len(content)
        if at_line and whole and begins and finishes:
            starts.append(line)
        position = content.find(needle, position + 1)
    return starts


def replace_at(lines: Sequence[bytes], placed: Sequence[tuple[Hunk, int]]) -> bytes:
    """The content with each hunk's old lines replaced at its 0-based line."""
    out: list[bytes] = []
    at = 0
    for hunk, start in sorted(placed, key=lambda item: item[1]):
        out += lines[at:start]
        out += hunk.new
        at = start + len(hunk.old)
    out += lines[at:]
    return b"".join(out)


def patched(file: FilePatch, base: Side) -> Side:
    """The file that a patch was made on, with all its hunks."""
    return Side(base.path, replace_at(base.lines, [(hunk, hunk.home) for hunk in file.hunks]))


@lru_cache(maxsize=64)
def alone(hunk: Hunk, start: int, base: Side) -> bytes:
    """The file with this one hunk: the same for every version that it is held against."""
    return replace_at(base.lines, [(hunk, start)])
