"""Which files of a tree define a symbol, when it is not where it was.

The store's name index says which files may; those are parsed. Each question is noted with the
objects, so that a verdict can be remembered together with what it was told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.series.side import Side
from stackpatch.series.symbols import Language, language_of
from stackpatch.sources.words import words_of_name

if TYPE_CHECKING:
    from stackpatch.sources.objects import Objects


def places_of(objects: Objects, tree: str, symbol: str, path: str) -> list[tuple[str, str]]:
    """Other files of `path`'s language that define the symbol: path and blob id, nearest first."""
    language = language_of(path)
    if symbol in ("*", "") or language is None:
        return []
    objects.asked.append((symbol, path))
    return search(objects, tree, symbol, path, language)


def stood_before(objects: Objects, origin: str | None, symbol: str, path: str) -> bool:
    """Whether the file defined the symbol at `origin` already: then nothing moved there since."""
    content = objects.read(origin, path) if origin is not None else None
    return content is not None and bool(Side(path, content).symbols.named(symbol))


def search(
    objects: Objects, tree: str, symbol: str, path: str, language: Language
) -> list[tuple[str, str]]:
    """`places_of`, without a note that it was asked."""
    wanted = words_of_name(symbol)
    found = []
    for other, blob in objects.names.files(tree, wanted):
        if other == path or language_of(other) is not language:
            continue
        content = objects.blob(blob)
        if all(word in content for word in wanted) and Side(other, content).symbols.named(symbol):
            found.append((other, blob))
    parts = path.split("/")

    def distance(item: tuple[str, str]) -> tuple[int, str]:
        shared = 0
        for one, other in zip(parts, item[0].split("/"), strict=False):
            if one != other:
                break
            shared += 1
        return -shared, item[0]

    return sorted(found, key=distance)
