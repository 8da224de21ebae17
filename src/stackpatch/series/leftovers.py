"""What speaks against `obsolete`: is nothing of the code left, and can we see everything?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.series.grounds import LONG, NAME, collapsed, scope
from stackpatch.series.hunk_states import made_on, symbol_of
from stackpatch.sources.objects import EXECUTABLE, REGULAR, SUBMODULE, SYMLINK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackpatch.model.diff import FilePatch
    from stackpatch.model.patch import Patch
    from stackpatch.series.effects import Finding
    from stackpatch.sources.objects import Objects

_MOST = 0.5  # of a symbol's lines: it lives on under another name


def against_obsolete(
    objects: Objects,
    tree: str,
    patch: Patch,
    findings: Sequence[Finding],
    origin: str | None,
) -> Iterator[str]:
    """Each reason as a sentence; see `doubts.doubt`."""
    if any(finding.holds for finding in findings):
        yield "a part of it is there, and the code of the rest is gone"
    for top in sorted({path.partition("/")[0] for path in patch.paths if "/" in path}):
        if origin is not None and objects.entry(origin, top) and not objects.entry(tree, top):
            # Archives leave out tests and the like; that is no news of the code there.
            yield f"nothing of {top}/ is in this version; its archive may leave it out"
    names: set[bytes] = set()
    for file in patch.files:
        parts = file.path.split("/")
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            entry = objects.entry(tree, above)
            if entry is not None and entry.mode in (SUBMODULE, SYMLINK):
                kind = "submodule" if entry.mode == SUBMODULE else "link"
                yield f"{above} is a {kind} now; what it holds cannot be seen here"
        base = made_on(objects, file)
        if base is not None:
            symbols = (symbol_of(base, hunk).encode() for hunk in file.hunks)
            names.update(name for symbol in symbols for name in NAME.findall(symbol))
    for effect in patch.trailers.effects:
        names.update(NAME.findall(effect.symbol.encode()))
    bodies = [body for file in patch.files for body in _bodies(objects, file)]
    last = {file.path.rsplit("/", 1)[-1] for file in patch.files}
    for path, entry in objects.walk(tree):
        if path.rsplit("/", 1)[-1] in last and path not in patch.paths:
            yield f"{path} has the name of the file that is gone"
        if entry.mode in (REGULAR, EXECUTABLE):
            content = objects.blob(entry.id)
            words = set(NAME.findall(content)) & names if names else set()
            for word in sorted(words):
                yield f"{word.decode()} is still named in {path}"
            if bodies and (origin is None or objects.entry(origin, path) != entry):
                # Under another name, with the changed lines in other words, it may live on.
                lines = {collapsed(line) for line in content.split(b"\n")}
                if any(len(body & lines) >= len(body) * _MOST for body in bodies):
                    yield f"most lines of what it changes stand in {path}"


def _bodies(objects: Objects, file: FilePatch) -> Iterator[set[bytes]]:
    """The lines of each symbol that a patch changes, without those that it removes."""
    base = made_on(objects, file)
    if base is None:
        return
    for hunk in file.hunks:
        name = symbol_of(base, hunk)
        lines = scope(base, name).split(b"\n") if name else hunk.old
        gone = {collapsed(text) for text in hunk.removed}
        body = {collapsed(text) for text in lines} - gone
        body = {line for line in body if len(line) >= LONG}
        if body:
            yield body
