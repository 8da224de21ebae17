"""Telling apart places that read the same, where no parser does it: by what stands around them.

A three-way merge aligns equal lines as cheaply as it can, not as they were meant: swap two
sections of a text file that differ in their headings only, and `git merge` puts a change to one
of them into the other, cleanly. So a place with a twin counts only when the nearest lines that
tell the two apart are still those of the place that the patch was written for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def headings(lines: Sequence[bytes], at: int) -> tuple[bytes, ...]:
    """What the line (0-based) stands under, outermost first, by indentation and `[section]`.

    Good for CMake, YAML, JSON, TOML and ini files; empty for flat text.
    """
    found: list[bytes] = []
    limit = _indent(lines[at]) if at < len(lines) else 0
    section: bytes | None = None
    for line in reversed(lines[:at]):
        text = line.strip()
        if not text:
            continue
        indent = _indent(line)
        if indent < limit:
            found.append(text)
            limit = indent
        elif indent == 0 and text.startswith(b"[") and text.endswith(b"]"):
            section = text
        if indent == 0 and (limit == 0 and section is not None):
            break
    return tuple(reversed([*found, *([section] if section is not None else [])]))


def _indent(line: bytes) -> int:
    return len(line) - len(line.lstrip(b" \t"))


def twins(lines: Sequence[bytes], text: Sequence[bytes], home: int) -> list[int]:
    """Where else the lines of `text` stand, 0-based."""
    if not text:
        return []
    wanted, length = list(text), len(text)
    found, at = list[int](), -1
    for _ in range(lines.count(wanted[0])):
        at = lines.index(wanted[0], at + 1)
        if at != home and list(lines[at : at + length]) == wanted:
            found.append(at)
    return found


def told_apart(
    base: Sequence[bytes],
    home: int,
    others: Iterable[int],
    target: Sequence[bytes],
    start: int,
    length: int,
) -> bool:
    """Whether the place in the target is the one at `home` and none of its twins in the base.

    Above and below the `length` equal lines, the first line is looked for in which home and twin
    differ. At least one of the two must be as at home in the target, none as at the twin.
    """
    for other in others:
        answers = (
            _side(base, home - 1, other - 1, target, start - 1, -1),
            _side(base, home + length, other + length, target, start + length, 1),
        )
        if False in answers or True not in answers:
            return False
    return True


def _side(
    base: Sequence[bytes], home: int, other: int, target: Sequence[bytes], at: int, step: int
) -> bool | None:
    """True: as at home; False: as at the twin; None: as at neither, or home and twin are alike."""
    while True:
        ours, twin, found = _line(base, home), _line(base, other), _line(target, at)
        if ours != twin:
            return True if found == ours else False if found == twin else None
        if ours is None or found != ours:
            return None
        home, other, at = home + step, other + step, at + step


def _line(lines: Sequence[bytes], at: int) -> bytes | None:
    return lines[at] if 0 <= at < len(lines) else None
