"""Where code went that is not where it was: renamed files, moved functions, what is left of it.

Nothing here decides a verdict for a patch; it keeps one from being dropped, and tells the person
where to look.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stackpatch.model.verdict import Evidence, Layer
from stackpatch.series.hunk_states import symbols_changed
from stackpatch.series.side import Side
from stackpatch.series.whereabouts import places_of, stood_before
from stackpatch.sources.objects import DIRECTORY, EXECUTABLE, REGULAR, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stackpatch.model.diff import FilePatch
    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects

_WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_]{5,}")
_MOST = 3  # of the files that one may be now: `__init__.py` is everywhere


def departures(objects: Objects, tree: str, patch: Patch, origin: str | None) -> Iterator[Evidence]:
    """Where the files and symbols that a patch changes are now, as far as they are elsewhere.

    origin: the tree of the release that the patch was made for, where it is known: what stood
    there already did not come from here.
    """
    for file in patch.files:
        if file.old_path is None:
            continue
        content = objects.read(tree, file.old_path)
        if objects.entry(tree, file.old_path) is None:
            yield from _renamed(objects, tree, file, file.old_path, origin)
        here = Side(file.old_path, content).symbols if content is not None else None
        for symbol in symbols_changed(objects, file):
            if here is not None and here.named(symbol):
                continue
            for path, blob in places_of(objects, tree, symbol, file.old_path):
                if not stood_before(objects, origin, symbol, path):
                    found = Side(path, objects.blob(blob)).symbols.named(symbol)[0]
                    says = f"{symbol} is now in {path}"
                    yield Evidence(Layer.SEARCH, says, path, found.first, found.name)


def _renamed(
    objects: Objects, tree: str, file: FilePatch, path: str, origin: str | None
) -> Iterator[Evidence]:
    """The same content, or the same name in another folder, where neither was before."""
    was = objects.entry(origin, path) if origin is not None else None
    blob = was.id if was is not None else objects.find_blob(file.old_id) if file.old_id else None
    name = path.rsplit("/", 1)[-1]
    same: list[str] = []
    alike: list[str] = []
    for other, entry in objects.walk(tree):
        kind = same if entry.id == blob else alike if other.rsplit("/", 1)[-1] == name else None
        if kind is not None and (origin is None or objects.entry(origin, other) is None):
            kind.append(other)
    for other in same[:_MOST]:
        yield Evidence(Layer.SEARCH, f"{path} is now {other}", other)
    for other in () if same else alike[:_MOST]:
        yield Evidence(Layer.SEARCH, f"{path} may now be {other}", other)


def remains(objects: Objects, tree: str, patch: Patch) -> list[Evidence] | None:
    """Where a name of the removed lines still stands, nearest first; None when they hold no names.

    Every name counts, also a common one: while anything of the code is left, something may have
    taken its place, and then the patch is not obsolete. One is enough to know that.
    """
    removed = [text for file in patch.files for hunk in file.hunks for text in hunk.removed]
    words = sorted({word for text in removed for word in _WORD.findall(text)})
    if not words:
        return None
    near = patch.files[0].path.rsplit("/", 1)[0]
    for path, blob in _from(near, objects, tree):
        content = objects.blob(blob)
        for word in words:
            if word in content:
                line = content.count(b"\n", 0, content.index(word)) + 1
                says = f"{word.decode()} still stands in {path}"
                return [Evidence(Layer.SEARCH, says, path, line)]
    return []


def _from(near: str, objects: Objects, tree: str) -> Iterator[tuple[str, str]]:
    """The files of the tree and their contents' ids, those first whose path begins like `near`.

    The rest of the tree is walked only when it is asked for.
    """
    above, _, begins = near.rpartition("/")
    folder = objects.entry(tree, above) if above else Entry(DIRECTORY, tree)
    first: list[tuple[str, Entry]] = []
    for name, entry in (
        objects.children(folder.id).items() if folder and folder.mode == DIRECTORY else ()
    ):
        path = f"{above}/{name}" if above else name
        if name.startswith(begins):
            first += (
                objects.walk(entry.id, f"{path}/") if entry.mode == DIRECTORY else [(path, entry)]
            )
    yield from _files(first)
    yield from _files((p, e) for p, e in objects.walk(tree) if not p.startswith(near))


def _files(found: Iterable[tuple[str, Entry]]) -> list[tuple[str, str]]:
    return sorted((path, e.id) for path, e in found if e.mode in (REGULAR, EXECUTABLE))
