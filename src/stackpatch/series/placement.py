"""Where a hunk goes: exact text, and only in the place that it was written for.

Identical lines stand in sibling functions more often than one thinks (four `[10]` gates in one
FlashInfer file), and every line-based tool relaxes the sibling when upstream reworked the real
one. So a match of the text is only a candidate. It is taken when the changed lines are in the
same symbol as in the file that the patch was made on, and a three-way merge, of the file or of the
symbol alone, gives the same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from stackpatch.series.edits import alone, find_matches, replace_at
from stackpatch.series.merge import merge
from stackpatch.series.symbols import Symbol, same_symbol
from stackpatch.series.twins import headings, told_apart, twins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.model.hunk import Hunk
    from stackpatch.series.side import Side


class Reason(StrEnum):
    """Why a hunk was not placed."""

    NO_MATCH = "no-match"
    MISPLACED = "misplaced"
    AMBIGUOUS = "ambiguous"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Placed:
    """A hunk's place. start: 0-based line in the file as found; offset: against the hunk header.

    symbol is None where it was not looked up: in the very file that the patch was made on.
    """

    hunk: Hunk
    start: int
    offset: int
    symbol: str | None
    proof: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A hunk without a place, why, and where its text stands. Lines are 1-based."""

    hunk: Hunk
    reason: Reason
    detail: str
    expected: str | None
    candidates: tuple[tuple[int, str], ...]


def place_hunks(
    hunks: Sequence[Hunk], target: Side, base: Side | None
) -> tuple[list[Placed], list[Refused]]:
    """Find a place for every hunk, or say why there is none; all of them, not only the first.

    base: the file that the patch was made on, None when the store does not have it.
    """
    if base is not None and base.content == target.content:
        return _place_at_home(hunks, target)
    base_starts = _home(hunks, base) if base is not None else None
    placed: list[Placed] = []
    refused: list[Refused] = []
    for number, hunk in enumerate(hunks):
        if base is None or base_starts is None:
            answer = _place_by_heading(hunk, target, find_matches(target.content, hunk))
        else:
            answer = _place_by_base(hunk, base_starts[number], base, target)
        if isinstance(answer, Placed):
            placed.append(answer)
        else:
            refused.append(answer)
    return placed, refused + _overlapping(placed)


def _overlapping(placed: Sequence[Placed]) -> list[Refused]:
    """Functions may change places, and hunks with them; no two may take the same lines."""
    refused = []
    end = 0
    for one in sorted(placed, key=lambda item: item.start):
        if one.start < end:
            detail = "another hunk of the patch goes to the same lines"
            refused.append(Refused(one.hunk, Reason.AMBIGUOUS, detail, one.symbol, ()))
        end = max(end, one.start + len(one.hunk.old))
    return refused


def _home(hunks: Sequence[Hunk], base: Side) -> list[int] | None:
    """Where the hunks stand in their own base; None when the patch does not fit it."""
    starts = []
    lines = base.lines
    for hunk in hunks:
        start = hunk.home
        if tuple(lines[start : start + len(hunk.old)]) != hunk.old:
            return None
        starts.append(start)
    return starts


def _place_at_home(hunks: Sequence[Hunk], target: Side) -> tuple[list[Placed], list[Refused]]:
    lines = target.lines
    placed: list[Placed] = []
    refused: list[Refused] = []
    for hunk in hunks:
        start = hunk.home
        if tuple(lines[start : start + len(hunk.old)]) == hunk.old:
            placed.append(Placed(hunk, start, 0, None, "the very file that it was made on"))
        else:
            detail = "does not match the file that it says it was made on: the patch was edited"
            where = tuple((s + 1, "") for s in find_matches(target.content, hunk))
            refused.append(Refused(hunk, Reason.NO_MATCH, detail, None, where))
    return placed, refused


# Applying asks for each place, and so does what became of each hunk.
@lru_cache(maxsize=256)
def _place_by_base(hunk: Hunk, home: int, base: Side, target: Side) -> Placed | Refused:
    matches = find_matches(target.content, hunk)
    expected = _symbol_of(hunk, home, base)
    if not matches:
        return Refused(hunk, Reason.NO_MATCH, "its old lines stand nowhere", _shown(expected), ())
    judged = [(start, _agreement(hunk, home, base, start, target)) for start in matches]
    shown = tuple((start + 1, _shown(_symbol_of(hunk, start, target))) for start in matches)
    possible = [start for start, agreement in judged if agreement is not False]
    if not possible:
        found = ", ".join(sorted({name for _, name in shown}))
        detail = f"its text stands only in {found}, but it was written for {_shown(expected)}"
        return Refused(hunk, Reason.MISPLACED, detail, _shown(expected), shown)
    if all(_idle(hunk, home, base, start, target) for start in possible):
        detail = f"its text stands in a comment or in dead code of {_shown(expected)}"
        return Refused(hunk, Reason.UNPROVEN, detail, _shown(expected), shown)
    possible = [start for start in possible if not _idle(hunk, home, base, start, target)]
    proven = []
    for start in possible:
        proof = _merge_proof(hunk, home, base, start, target)
        if proof is not None and _is_no_twin(hunk, home, base, start, target):
            proven.append((start, proof))
    if len(proven) == 1:
        start, proof = proven[0]
        name = _shown(_symbol_of(hunk, start, target))
        return Placed(hunk, start, start - home, name, proof)
    if len(proven) > 1:
        detail = f"its text stands {len(proven)} times in {_shown(expected)}"
        return Refused(hunk, Reason.AMBIGUOUS, detail, _shown(expected), shown)
    detail = (
        f"its text stands in {_shown(_symbol_of(hunk, possible[0], target))}, "
        "but upstream changed the lines that it was written for"
    )
    certain = all(agreement is True for _, agreement in judged if agreement is not False)
    reason = Reason.MISPLACED if certain else Reason.UNPROVEN
    return Refused(hunk, reason, detail, _shown(expected), shown)


@lru_cache(maxsize=256)
def _changed_lines(hunk: Hunk) -> Sequence[int]:
    """Indices into the old lines whose symbols tell where the change is: deleted lines, and the
    neighbours of what is inserted without a deletion."""
    indices: list[int] = []
    at = 0
    previous = b" "
    count = sum(tag != b"+" for tag, _ in hunk.lines)
    for position, (tag, _) in enumerate(hunk.lines):
        if tag == b"+":
            following = next((t for t, _ in hunk.lines[position:] if t != b"+"), b" ")
            if previous != b"-" and following != b"-":
                indices += [i for i in (at - 1, at) if 0 <= i < count]
        else:
            if tag == b"-":
                indices.append(at)
            at += 1
            previous = tag
    return list(dict.fromkeys(indices))


def _agreement(hunk: Hunk, home: int, base: Side, start: int, target: Side) -> bool | None:
    """Whether the changed lines are in the same symbols on both sides; None: cannot be told."""
    ours, theirs = base.symbols, target.symbols
    decided: bool | None = True
    for index in _changed_lines(hunk):
        one, other = home + 1 + index, start + 1 + index
        if ours.language is None and theirs.language is None:
            if headings(base.lines, one - 1) != headings(target.lines, other - 1):
                return False
            decided = None
            continue
        if not (ours.certain(one) and theirs.certain(other)):
            decided = None
            continue
        here, there = ours.at(one), theirs.at(other)
        if not same_symbol(here, ours, there, theirs):
            return False
        if here.name == "":
            decided = None
    return decided


def same_place(hunk: Hunk, home: int, base: Side, start: int, target: Side) -> bool:
    """Whether the hunk's lines at `start` of the target are those at `home` of its base.

    Both 0-based; the lines themselves are equal. False also where nothing shows it.
    """
    return (
        _agreement(hunk, home, base, start, target) is not False
        and not _idle(hunk, home, base, start, target)
        and _is_no_twin(hunk, home, base, start, target)
    )


def _idle(hunk: Hunk, home: int, base: Side, start: int, target: Side) -> bool:
    """Whether lines that did something in the base do nothing here, or the other way round."""
    ours, theirs = base.plain, target.plain
    return any(
        ours.line(home + 1 + index) != theirs.line(start + 1 + index)
        for index in _changed_lines(hunk)
    )


def _is_no_twin(hunk: Hunk, home: int, base: Side, start: int, target: Side) -> bool:
    """Whether the place is not another one of the base where the same lines stand.

    Symbols of other names or parameters are already told apart. Within one symbol only its own
    lines tell the places apart, wherever it moved.
    """
    ours, theirs = _symbol_of(hunk, home, base), _symbol_of(hunk, start, target)
    length = len(hunk.old)
    inside: list[int] = []
    beside: list[int] = []
    for other in twins(base.lines, hunk.old, home):
        symbol = _symbol_of(hunk, other, base)
        if ours.name and symbol == ours:
            inside.append(other - (ours.first - 1))
        elif (symbol.name, symbol.signature) == (ours.name, ours.signature) or not ours.name:
            beside.append(other)
    apart = told_apart(base.lines, home, beside, target.lines, start, length)
    if not inside or not apart:
        return apart
    first, at = home - (ours.first - 1), start - (theirs.first - 1)
    lines = base.lines[ours.first - 1 : ours.last]
    return told_apart(
        lines, first, inside, target.lines[theirs.first - 1 : theirs.last], at, length
    )


def _symbol_of(hunk: Hunk, start: int, side: Side) -> Symbol:
    lines = [start + 1 + index for index in _changed_lines(hunk)] or [start + 1]
    return side.symbols.around(min(lines), max(lines))


def _shown(symbol: Symbol) -> str:
    return symbol.name or "the file's top level"


def _merge_proof(hunk: Hunk, home: int, base: Side, start: int, target: Side) -> str | None:
    """What a three-way merge says of this place; None when it says otherwise or conflicts.

    Only this hunk is merged, so that a conflict elsewhere in the patch does not hide its answer.
    """
    theirs = alone(hunk, home, base)
    wanted = replace_at(target.lines, [(hunk, start)])
    if merge(base.content, target.content, theirs) == wanted:
        return "same symbol, and the merge of the file agrees"
    # A function that moved within its file conflicts there; alone it merges.
    one, other = _symbol_of(hunk, home, base), _symbol_of(hunk, start, target)
    if one.name == "" or other.name == "":
        return None
    if not (base.symbols.certain(home + 1) and target.symbols.certain(start + 1)):
        return None
    base_lines, target_lines = base.lines, target.lines

    first = min(0, home - (one.first - 1), start - (other.first - 1))
    last = max(0, home + len(hunk.old) - one.last, start + len(hunk.old) - other.last)
    base_from, target_from = one.first - 1 + first, other.first - 1 + first
    base_cut = base_lines[base_from : one.last + last]
    target_cut = target_lines[target_from : other.last + last]
    merged = merge(
        b"".join(base_cut),
        b"".join(target_cut),
        replace_at(base_cut, [(hunk, home - base_from)]),
    )
    if merged == replace_at(target_cut, [(hunk, start - target_from)]):
        return "same symbol, and the merge of the symbol agrees"
    return None


def _place_by_heading(hunk: Hunk, target: Side, matches: list[int]) -> Placed | Refused:
    """Without the file that the patch was made on, only an unmoved, unique, named place counts."""
    heading = hunk.heading.decode("utf-8", "replace").strip()
    shown = tuple((start + 1, _shown(_symbol_of(hunk, start, target))) for start in matches)
    if not matches:
        return Refused(hunk, Reason.NO_MATCH, "its old lines stand nowhere", heading or None, ())
    home = hunk.home
    lines = target.lines
    if not target.content:
        return Placed(hunk, 0, 0, "", "an empty file")
    if len(matches) == 1 and matches[0] == home and heading:
        symbol = _symbol_of(hunk, home, target)
        # git's heading of a method may be its class; then the method is any of the class's.
        innermost = symbol.name != "" and symbol.first <= home
        heads = {
            lines[s.first - 1].decode("utf-8", "replace").strip()
            for s in target.symbols.all
            if s.first <= home + 1 and s.last >= symbol.first
            if s == symbol or not innermost
        }
        if any(line.startswith(heading) or heading.startswith(line) for line in heads if line):
            proof = "unmoved, unique, and under the heading that the patch names"
            return Placed(hunk, home, 0, _shown(symbol), proof)
    detail = (
        "its text is there, but the file that it was made on is not in the source store, "
        "so nothing shows that this is the place it was written for"
    )
    return Refused(hunk, Reason.UNPROVEN, detail, heading or None, shown)
