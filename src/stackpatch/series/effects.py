"""Whether a patch's `Effect:` lines hold in a tree, wherever the symbol now lives.

An effect is decided only in the symbol that it names. A symbol that is nowhere decides nothing:
neither that its text is there nor, for `!`, that it is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from stackpatch.errors import InputError
from stackpatch.model.trailers import compile_pattern
from stackpatch.series.side import Side
from stackpatch.series.whereabouts import places_of, stood_before

if TYPE_CHECKING:
    import regex

    from stackpatch.model.patch import Patch
    from stackpatch.model.trailers import Effect
    from stackpatch.series.symbols import Symbol, Symbols
    from stackpatch.sources.objects import Objects

# Long enough for any sensible pattern on a whole file, short enough that a person waits for it.
PATTERN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one effect came to. holds: None where the symbol is nowhere to be judged.

    blob: the id of the file's content, where that file is not the one that the effect names.
    """

    effect: Effect
    holds: bool | None
    path: str | None
    line: int | None
    symbol: str | None
    text: str | None
    says: str
    blob: str | None = None


def judge(objects: Objects, tree: str, effect: Effect, origin: str | None = None) -> Finding:
    """Judge one effect in a tree.

    origin: the tree that the patch was made on, where it is known. A file that had the symbol
    there already, beside the one that the effect names, is not where it moved to.
    Raises InputError for a pattern that runs away.
    """
    content = objects.read(tree, effect.path)
    if content is not None:
        found = judge_file(effect, effect.path, content)
        if found.symbol is not None:
            return found
    places = places_of(objects, tree, effect.symbol, effect.path)
    moved = [
        replace(judge_file(effect, path, objects.blob(blob)), blob=blob)
        for path, blob in places
        if not stood_before(objects, origin, effect.symbol, path)
    ]
    if not moved:
        beside = effect.path if content is not None else f"{effect.path}, which is gone,"
        says = f"{effect.symbol} is neither in {beside} nor anywhere else in the tree"
        if places:
            says = (
                f"{effect.symbol} is not in {beside} and moved nowhere: "
                f"the one in {places[0][0]} was there before"
            )
        return Finding(effect, None, None, None, None, None, says)
    first = moved[0]
    if any(other.holds is not first.holds for other in moved):
        copies = ", ".join(str(other.path) for other in moved)
        says = f"{effect.symbol} moved, and its copies differ: {copies}"
        return replace(first, holds=None, says=says)
    if effect.absent and first.holds:
        # Any function of that name elsewhere lacks the text; that proves nothing about ours.
        return replace(first, holds=None, says=f"{effect.symbol} is now in {first.path}")
    return replace(first, says=f"moved to {first.path}: {first.says}")


def judge_all(
    objects: Objects, tree: str, patch: Patch, origin: str | None = None
) -> tuple[Finding, ...]:
    """Judge every effect of a patch; see `judge`. An error names the line of the patch."""
    findings = []
    for effect in patch.trailers.effects:
        try:
            findings.append(judge(objects, tree, effect, origin))
        except InputError as error:
            where = f"{patch.name}:{effect.line}"
            raise InputError(error.message, hint=error.hint, where=where) from None
    return tuple(findings)


def judge_file(effect: Effect, path: str, content: bytes) -> Finding:
    """Judge one effect in one file's content.

    Where several definitions share the name (overloads, `#if` branches), all of them must agree;
    one that is never compiled has no say, and alone decides nothing. A finding without a symbol
    means that the file does not define it.
    """
    side = Side(path, content)
    symbols, plain = side.symbols, side.plain
    named = symbols.named(effect.symbol)
    if not named:
        return Finding(effect, None, path, None, None, None, f"no {effect.symbol} in {path}")
    texts = [(symbol, plain.of(symbol)) for symbol in named]
    alive = [(symbol, text) for symbol, text in texts if text or symbol.name == ""]
    if not alive:
        symbol = named[0]
        says = f"{symbol.name} is in {path}, where it is never compiled"
        return Finding(effect, None, path, symbol.first, symbol.name, None, says)
    named = tuple(symbol for symbol, _ in alive)
    hits = [(symbol, _search(effect, path, text)) for symbol, text in alive]
    with_text = [(symbol, match) for symbol, match in hits if match is not None]
    if with_text:
        symbol, match = with_text[0]
        line = plain.line_of(symbol, match.start())
        name, text = symbol.name or path, match[0][:200]
        holds: bool | None = not effect.absent
        says = f"{name} {'still ' if effect.absent else ''}has {text!r}"
        if not effect.absent and len(with_text) < len(hits):
            holds = None
            says = f"only {len(with_text)} of {len(hits)} definitions of {name} have {text!r}"
        return Finding(effect, holds, path, line, symbol.name, text, says)
    symbol = named[0]
    says = f"{symbol.name or path} has no text like `{effect.pattern}`"
    holds = effect.absent
    if _unread_inside(symbols, named):
        holds = None
        says = f"{symbol.name or path} could not be read completely"
    return Finding(effect, holds, path, symbol.first, symbol.name, None, says)


def _search(effect: Effect, path: str, text: str) -> regex.Match[str] | None:
    try:
        return _compiled(effect.pattern).search(text, timeout=PATTERN_SECONDS)
    except TimeoutError:
        msg = (
            f"Effect: the regular expression `{effect.pattern}` runs for more than "
            f"{PATTERN_SECONDS:g} s on {path}"
        )
        raise InputError(msg, hint="write it without nested repetitions") from None


def _unread_inside(symbols: Symbols, named: tuple[Symbol, ...]) -> bool:
    return any(
        first <= symbol.last and last >= symbol.first and last - first > 5
        for symbol in named
        for first, last in symbols.unread
    )


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> regex.Pattern[str]:
    return compile_pattern(pattern)
