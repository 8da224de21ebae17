"""A file that a patch changes, three times: what a doubt about a verdict looks at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.series.edits import patched
from stackpatch.series.hunk_states import made_on
from stackpatch.series.rewording import words
from stackpatch.series.side import Side
from stackpatch.series.symbols import lies_within
from stackpatch.series.twins import headings

NAME = re.compile(rb"[A-Za-z_]\w{3,}")  # one that is worth looking for
LONG = 8  # a line to go by: shorter ones (`}`, `else:`) stand everywhere
_IMPORT = re.compile(rb"(?:import|from|using)\b|# ?include\b")

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackpatch.model.diff import FilePatch
    from stackpatch.model.hunk import Hunk
    from stackpatch.model.patch import Patch
    from stackpatch.series.effects import Finding
    from stackpatch.series.symbols import Symbol
    from stackpatch.sources.objects import Objects


@dataclass(frozen=True, slots=True)
class Ground:
    """One changed file: as the patch was made on it, as the patch makes it, as it is now."""

    file: FilePatch
    base: Side
    theirs: Side
    target: Side

    def named(self, name: str) -> tuple[Symbol, ...]:
        """What the symbol of the base is now: of the same name, or put into or out of a scope.

        A namesake that the base had beside it (`Other.moe` beside `moe`) is another one.
        """
        exact = self.target.symbols.exactly(name)
        if exact or not name:
            return exact
        known = {symbol.name for symbol in self.base.symbols.all}
        return tuple(
            s
            for s in self.target.symbols.all
            if s.name not in known and (lies_within(s.name, name) or lies_within(name, s.name))
        )


def grounds_of(
    objects: Objects, tree: str, patch: Patch, findings: Sequence[Finding] = ()
) -> Iterator[Ground]:
    """The changed files that can be compared, where they were and where an effect was found."""
    for file in patch.files:
        base = made_on(objects, file)
        if base is None or file.new_path is None or file.binary or not file.hunks:
            continue
        theirs = patched(file, base)
        content = objects.read(tree, file.new_path)
        if content is not None:
            yield Ground(file, base, theirs, Side(file.path, content))
        moved = {
            found.path: found.blob
            for found in findings
            if found.effect.path in (file.old_path, file.new_path) and found.path and found.blob
        }
        for path, blob in moved.items():
            yield Ground(file, base, theirs, Side(path, objects.blob(blob)))


def removed(ground: Ground) -> Iterator[tuple[Hunk, bytes]]:
    """The removed lines that say something of their own, and are not added again."""
    for hunk in ground.file.hunks:
        added = {collapsed(text) for text in hunk.added}
        for text in hunk.removed:
            line = collapsed(text)
            if line not in added and says_something(line):
                yield hunk, line


def says_something(line: bytes) -> bool:
    """Whether a line is one of its own, and not a bracket or an `else:`."""
    return len(line) >= LONG and len(set(words(line))) >= 2


def _count(
    side: Side, symbols: Sequence[Symbol], name: str, under: Sequence[bytes], line: bytes
) -> int:
    """How often the line stands in the symbols of this name.

    Without a name: outside of all symbols; in a file that no grammar reads, below these headings.
    """
    total = 0
    for number in side.plain.lines_like(line):
        if side.symbols.language is None:
            total += headings(side.lines, number - 1) == under
        elif name:
            total += any(symbol.first <= number <= symbol.last for symbol in symbols)
        else:
            total += side.symbols.at(number).name == ""
    return total


def says_nothing(hunk: Hunk, base: Side, theirs: Side) -> bool:
    """Whether a hunk changes comments and imports only: what needs an import is another hunk."""
    at, now = hunk.home + 1, hunk.new_start + (0 if hunk.new_count else 1)
    changed = []
    for tag, _ in hunk.lines:
        if tag == b"-":
            changed.append(base.plain.line(at))
        elif tag == b"+":
            changed.append(theirs.plain.line(now))
        at += tag != b"+"
        now += tag != b"-"
    return all(not line or _IMPORT.match(line) for line in changed)


def counts(ground: Ground, hunk: Hunk, name: str, line: bytes) -> tuple[int, int, int]:
    """How often the line stands in the symbol: in the base, as the patch makes it, and now."""
    under: tuple[bytes, ...] = ()
    if ground.base.symbols.language is None:
        under = headings(ground.base.lines, hunk.old_start + hunk.leading_context - 1)
    base, theirs = (
        _count(side, side.symbols.exactly(name), name, under, line)
        for side in (ground.base, ground.theirs)
    )
    return base, theirs, _count(ground.target, ground.named(name), name, under, line)


def others(ground: Ground, name: str, line: bytes) -> list[bytes]:
    """The symbol's lines that neither are this one nor stand in it as the patch makes it."""
    meant = {b"", line, *scope(ground.theirs, name).split(b"\n")}
    return [found for found in scope_now(ground, name).split(b"\n") if found not in meant]


def scope(side: Side, name: str) -> bytes:
    """The symbol's lines without comments; the file's own, outside of symbols, for no name."""
    return _text(side, side.symbols.exactly(name), name)


def scope_now(ground: Ground, name: str) -> bytes:
    """`scope` in the target, under the name that the symbol has there."""
    return _text(ground.target, ground.named(name), name)


def _text(side: Side, symbols: Sequence[Symbol], name: str) -> bytes:
    lines = side.plain.lines
    if not name:
        return b"\n".join(
            text for number, text in enumerate(lines, 1) if side.symbols.at(number).name == ""
        )
    return b"\n".join(text for s in symbols for text in lines[s.first - 1 : s.last])


def collapsed(line: bytes) -> bytes:
    """The line with its white space collapsed."""
    return b" ".join(line.split())


def shown(line: bytes) -> str:
    """The line for a person."""
    return repr(line.decode("utf-8", "replace"))


def place(ground: Ground, name: str) -> str:
    """The file and the symbol for a person."""
    return f"{ground.target.path} ({name})" if name else ground.target.path
