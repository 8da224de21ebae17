"""Which files of a tree define a symbol, when it is not where it was.

Reading every file of a release is what a verdict can cost most, so each file is read once for all
symbols that are known to be wanted, and never again for the same ones.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stackpatch.series.symbols import parse_symbols
from stackpatch.sources.objects import EXECUTABLE, REGULAR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stackpatch.sources.objects import Objects

_SUFFIX_GROUPS = (
    frozenset(("py", "pyi")),
    frozenset(("c", "cc", "cpp", "cxx", "cu", "cuh", "h", "hh", "hpp", "hxx", "inl", "inc")),
)

# By symbol: the words of its qualified name. Every one of them stands in a file that defines it;
# few files have them all.
_wanted: dict[str, tuple[bytes, ...]] = {}
# By blob: for each symbol that was wanted when it was read, whether the file has all its words.
_seen: dict[str, dict[str, bool]] = {}


def expect(symbols: Iterable[str]) -> None:
    """Say which symbols will be looked for, so that a file is read once for all of them."""
    for symbol in symbols:
        if symbol not in ("", "*") and symbol not in _wanted:
            _wanted[symbol] = tuple(word.encode() for word in re.findall(r"\w+", symbol))


def places_of(objects: Objects, tree: str, symbol: str, path: str) -> list[tuple[str, str]]:
    """Other files of `path`'s language that define the symbol: path and blob id, nearest first."""
    if symbol in ("*", ""):
        return []
    expect((symbol,))
    suffix = _suffix(path)
    group = next((g for g in _SUFFIX_GROUPS if suffix in g), frozenset((suffix,)))
    found = [
        (other, entry.id)
        for other, entry in objects.walk(tree)
        if _suffix(other) in group
        and other != path
        and entry.mode in (REGULAR, EXECUTABLE)
        and _mentions(objects, entry.id, symbol)
        and parse_symbols(other, objects.blob(entry.id)).named(symbol)
    ]
    parts = path.split("/")

    def distance(item: tuple[str, str]) -> tuple[int, str]:
        shared = 0
        for one, other in zip(parts, item[0].split("/"), strict=False):
            if one != other:
                break
            shared += 1
        return -shared, item[0]

    return sorted(found, key=distance)


def _suffix(path: str) -> str:
    return path.rpartition(".")[2].lower()


def _mentions(objects: Objects, blob: str, symbol: str) -> bool:
    seen = _seen.get(blob)
    if seen is None or symbol not in seen:
        content = objects.blob(blob)
        seen = _seen[blob] = {name: _has(content, words) for name, words in _wanted.items()}
    return seen[symbol]


def _has(content: bytes, words: tuple[bytes, ...]) -> bool:
    return all(word in content for word in words) and all(
        re.search(rb"\b%s\b" % word, content) for word in words
    )
