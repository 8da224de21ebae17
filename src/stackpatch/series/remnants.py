"""What a patch removes, and is still about: where it stands now, or under which other words.

Each reason is one sentence for the person who decides; see `doubts`.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from stackpatch.series.grounds import (
    NAME,
    collapsed,
    counts,
    others,
    place,
    removed,
    scope,
    scope_now,
    shown,
)
from stackpatch.series.hunk_states import symbol_of
from stackpatch.series.rewording import reads_like, says_again, says_more
from stackpatch.series.side import Side
from stackpatch.series.symbols import language_of, last_part
from stackpatch.series.whereabouts import places_of
from stackpatch.sources.objects import EXECUTABLE, REGULAR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackpatch.series.effects import Finding
    from stackpatch.series.grounds import Ground
    from stackpatch.sources.objects import Objects

_CALL = re.compile(rb"([A-Za-z_]\w{2,})\s*\(")


def still_there(ground: Ground) -> Iterator[str]:
    """A removed line that stands in the symbol, or in a new helper of it, more often than meant."""
    for hunk, line in removed(ground):
        name = symbol_of(ground.base, hunk)
        _, meant, now = counts(ground, hunk, name, line)
        if now > meant:
            yield f"{shown(line)}, which it removes, still stands in {place(ground, name)}"
        for other in others(ground, name, line):
            if says_more(line, other):
                yield f"{shown(other)} in {place(ground, name)} is what it removes, and more"
        if name and (helper := _new_helper(ground, name, line)):
            yield f"{shown(line)}, which it removes, now stands in {helper}, which {name} uses"


def rewrapped(ground: Ground) -> Iterator[str]:
    """A removed line that stands in the symbol over several lines: formatters wrap."""
    for hunk, line in removed(ground):
        name = symbol_of(ground.base, hunk)
        wanted = _squeezed(line)
        if _wrapped(scope_now(ground, name), wanted) > _wrapped(scope(ground.theirs, name), wanted):
            yield f"{shown(line)}, which it removes, stands in {place(ground, name)} over lines"


def _wrapped(text: bytes, wanted: bytes) -> int:
    """How often some lines in a row, two or more, say this when their breaks are taken out."""
    lines = [squeezed for line in text.split(b"\n") if (squeezed := _squeezed(line))]
    found = 0
    for at, first in enumerate(lines):
        said, after = first, at + 1
        while len(said) < len(wanted) and wanted.startswith(said) and after < len(lines):
            said += lines[after]
            after += 1
        found += said == wanted and after > at + 1
    return found


def _squeezed(line: bytes) -> bytes:
    """The line without what a formatter adds where it breaks one: spaces, brackets, commas."""
    return line.translate(None, b" \t\r(),\\")


def unresolved(ground: Ground) -> Iterator[str]:
    """Conflict markers that upstream left: both sides' lines are there, and neither is code."""
    for mark in (b"<<<<<<< ", b">>>>>>> "):
        base, target = (
            side.content.startswith(mark) or b"\n" + mark in side.content
            for side in (ground.base, ground.target)
        )
        if target and not base:
            yield f"{ground.target.path} has conflict markers of its own"


def _new_helper(ground: Ground, name: str, line: bytes) -> str | None:
    known = {symbol.name for symbol in ground.base.symbols.all}
    used = set(NAME.findall(scope_now(ground, name)))
    for symbol in ground.target.symbols.all:
        if symbol.name not in known and last_part(symbol.name).encode() in used:
            lines = ground.target.plain.lines[symbol.first - 1 : symbol.last]
            if line in lines:
                return symbol.name
    return None


def said_again(ground: Ground, findings: Sequence[Finding]) -> Iterator[str]:
    """A removed line that upstream wrote anew into the symbol, beside what the effect asks for."""
    texts = [finding.text.encode() for finding in findings if finding.text]
    for hunk, line in removed(ground):
        name = symbol_of(ground.base, hunk)
        for other in others(ground, name, line):
            if not says_again(line, other) or any(text in other for text in texts):
                continue
            if not any(says_again(collapsed(ours), other) for ours in hunk.added):
                yield f"{shown(other)} in {place(ground, name)} says again what it removes"


def reworded(ground: Ground) -> Iterator[str]:
    """A line that upstream wrote into the symbol and that reads almost like a removed one."""
    for hunk, line in removed(ground):
        name = symbol_of(ground.base, hunk)
        for other in others(ground, name, line):
            if reads_like(line, other):
                yield f"{shown(other)} in {place(ground, name)} reads like what it removes"


def in_a_sibling(ground: Ground) -> Iterator[str]:
    """A removed line that came into another function of the file, which was there before."""
    known = {"", *(symbol.name for symbol in ground.base.symbols.all)}
    for hunk, line in removed(ground):
        if ground.target.symbols.language is None:
            continue
        meant, now = (_spread(side, line) for side in (ground.theirs, ground.target))
        mine = symbol_of(ground.base, hunk)
        for name in sorted((now - meant).keys() & known - {mine}):
            yield f"{shown(line)}, which it removes, now stands in {place(ground, name)}"


def _spread(side: Side, line: bytes) -> Counter[str]:
    """How often the line stands in each symbol."""
    return Counter(side.symbols.at(number).name for number in side.plain.lines_like(line))


def in_a_helper(objects: Objects, tree: str, ground: Ground, *, new: bool) -> Iterator[str]:
    """A removed line, or the same again, in a function that upstream made the symbol call.

    new: only in functions of the file that were not there before. One that was may have had such
    a line all along, which says something against an absence and nothing against an effect that
    is there; and to ask the whole tree for every call of a function that landed takes minutes.
    """
    known = {symbol.name for symbol in ground.base.symbols.all}
    for name in dict.fromkeys(symbol_of(ground.base, hunk) for hunk, _ in removed(ground)):
        lines = [line for hunk, line in removed(ground) if symbol_of(ground.base, hunk) == name]
        # By number: a method's own head reads like one call of it, `super().init()` is a second.
        meant = Counter(_CALL.findall(scope(ground.theirs, name)))
        own = {symbol.name for symbol in ground.named(name)} | (known if new else set())
        for called in sorted(Counter(_CALL.findall(scope_now(ground, name))) - meant):
            helper = called.decode()
            places = [] if new else places_of(objects, tree, helper, ground.target.path)
            sides = [ground.target, *(Side(path, objects.blob(blob)) for path, blob in places)]
            for side in sides:
                for symbol in side.symbols.named(helper):
                    if side is ground.target and symbol.name in own:
                        continue
                    inside = side.plain.lines[symbol.first - 1 : symbol.last]
                    if any(says_again(line, other) for line in lines for other in inside):
                        yield f"what it removes now stands in {symbol.name} in {side.path}"


def in_another_file(objects: Objects, tree: str, ground: Ground) -> Iterator[str]:
    """A removed line anywhere else: without an `Effect:`, nothing tells it from the one meant."""
    lines = {line for _, line in removed(ground)}
    language = ground.target.symbols.language
    for path, entry in objects.walk(tree):
        if path != ground.target.path and language_of(path) is language:
            content = objects.blob(entry.id) if entry.mode in (REGULAR, EXECUTABLE) else b""
            if any(line.split()[0] in content for line in lines):
                for line in sorted(lines & set(Side(path, content).plain.lines)):
                    yield f"{shown(line)}, which it removes, stands in {path}"
