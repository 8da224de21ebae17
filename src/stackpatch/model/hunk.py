"""One hunk of a git diff, parsed strictly from bytes: its counts must match its lines."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Nine digits: no file has more lines, and Python refuses to read numbers of thousands of digits.
_HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(?: ?(.*))?$")
SIGNATURE = re.compile(rb"^-- ?$")

Problem = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Hunk:
    """One hunk. Starts are 1-based line numbers as printed.

    lines: (tag, text) with tag b" ", b"-" or b"+"; text keeps its line end, so that a last line
    without one is told apart. line: where the hunk's header stands in the mail.
    """

    old_start: int
    old_count: int
    new_start: int
    new_count: int
    heading: bytes
    lines: tuple[tuple[bytes, bytes], ...]
    line: int

    @property
    def old(self) -> tuple[bytes, ...]:
        """The lines that must be there: context and deletions."""
        return tuple(text for tag, text in self.lines if tag != b"+")

    @property
    def new(self) -> tuple[bytes, ...]:
        """The lines that are there afterwards: context and additions."""
        return tuple(text for tag, text in self.lines if tag != b"-")

    @property
    def added(self) -> tuple[bytes, ...]:
        """The added lines."""
        return tuple(text for tag, text in self.lines if tag == b"+")

    @property
    def removed(self) -> tuple[bytes, ...]:
        """The removed lines."""
        return tuple(text for tag, text in self.lines if tag == b"-")

    @property
    def home(self) -> int:
        """The 0-based line where its old lines stand in the file that it was made on.

        A hunk without old lines names the line before the place.
        """
        return self.old_start - (1 if self.old_count else 0)

    @property
    def leading_context(self) -> int:
        """How many context lines come before the first change."""
        return next((i for i, (tag, _) in enumerate(self.lines) if tag != b" "), len(self.lines))

    @property
    def trailing_context(self) -> int:
        """How many context lines come after the last change."""
        backwards = enumerate(reversed(self.lines))
        return next((i for i, (tag, _) in backwards if tag != b" "), len(self.lines))


class Lines:
    """A cursor over the mail's lines; `number` is the line about to be read."""

    def __init__(self, raw: bytes, first_line: int) -> None:
        self._lines = raw.split(b"\n")
        self._cut = self._lines[-1] != b""
        if not self._cut:
            self._lines.pop()
        self._at = 0
        self._first = first_line

    @property
    def number(self) -> int:
        """The line about to be read."""
        return self._first + self._at

    def peek(self) -> bytes | None:
        """That line without its end; None after the last."""
        return self._lines[self._at] if self._at < len(self._lines) else None

    @property
    def cut(self) -> bool:
        """Whether that line is the last and has no end."""
        return self._cut and self._at == len(self._lines) - 1

    def next(self) -> bytes:
        """That line, and go on to the one after it."""
        line = self._lines[self._at]
        self._at += 1
        return line

    def skip_to_file(self) -> None:
        """Go on to the next file's section, the mail's signature, or the end."""
        while (line := self.peek()) is not None and not line.startswith(b"diff --git "):
            if SIGNATURE.match(line):
                break
            self.next()


def parse_hunks(reader: Lines, problems: list[Problem]) -> Iterator[Hunk]:
    """The hunks of one file up to the first that cannot be read, which is added to the problems."""
    end = -1
    while (line := reader.peek()) is not None and line.startswith(b"@@ "):
        number = reader.number
        found = _HUNK.match(line)
        reader.next()
        if not found:
            problems.append((number, "malformed hunk header"))
            return
        old_count = int(found[2]) if found[2] is not None else 1
        new_count = int(found[4]) if found[4] is not None else 1
        hunk = Hunk(int(found[1]), old_count, int(found[3]), new_count, found[5] or b"", (), number)
        lines: list[tuple[bytes, bytes]] = []
        old_left, new_left = old_count, new_count
        while old_left > 0 or new_left > 0:
            text = reader.peek()
            # Some mailers strip the one blank of an empty context line; git reads it all the same.
            tag = text[:1] or b" " if text is not None else b""
            if text is None or tag not in (b" ", b"+", b"-"):
                missing = max(old_left, new_left)
                plural = "s" * (missing != 1)
                said = f"the hunk at line {number} ends {missing} line{plural} too early"
                problems.append((reader.number, said))
                return
            if reader.cut:
                problems.append((reader.number, "the mail ends within a line of a hunk"))
                return
            reader.next()
            old_left -= tag != b"+"
            new_left -= tag != b"-"
            lines.append((tag, text[1:] + b"\n"))
            if (after := reader.peek()) is not None and after.startswith(b"\\ "):
                reader.next()
                lines[-1] = (tag, lines[-1][1][:-1])
        hunk = replace(hunk, lines=tuple(lines))
        start = hunk.home
        if old_left or new_left:
            problems.append((number, "the hunk's counts do not match its lines"))
        elif all(tag == b" " for tag, _ in lines):
            problems.append((number, "the hunk changes nothing"))
        elif start < 0 or start < end:
            problems.append((number, "hunks overlap or are out of order"))
        elif any(not t.endswith(b"\n") for side in (hunk.old, hunk.new) for t in side[:-1]):
            problems.append((number, "a line without a line end before the last line"))
        else:
            end = max(start + old_count, start + 1)
            yield hunk
            continue
        return
