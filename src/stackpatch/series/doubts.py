"""What speaks against a certain verdict, so that it becomes `unsure`.

A verdict that drops a patch is reached by what was found. Here we look for what was not looked
for: the gate in other words or in a helper, the file under another name, a stranger that has the
function's name, code that we cannot see. Each reason is one sentence for the person who decides.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.model.diff import Change, FilePatch
from stackpatch.model.verdict import Word
from stackpatch.series.edits import patched
from stackpatch.series.effects import judge_all
from stackpatch.series.hunk_states import made_on, symbol_of
from stackpatch.series.rewording import reads_like, says_more, words
from stackpatch.series.side import Side
from stackpatch.series.symbols import language_of
from stackpatch.series.twins import headings
from stackpatch.series.whereabouts import places_of
from stackpatch.sources.objects import EXECUTABLE, REGULAR, SUBMODULE, SYMLINK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackpatch.model.hunk import Hunk
    from stackpatch.model.patch import Patch
    from stackpatch.series.apply import PatchResult
    from stackpatch.series.effects import Finding
    from stackpatch.series.symbols import Symbol
    from stackpatch.sources.objects import Objects

# How much of a function must be left to call it the same one in another file.
_SAME_FUNCTION = 0.5
_CALL = re.compile(rb"([A-Za-z_]\w{2,})\s*\(")
_NAME = re.compile(rb"[A-Za-z_]\w{3,}")


@dataclass(frozen=True, slots=True)
class _Ground:
    """One changed file: as the patch was made on it, as the patch makes it, as it is now."""

    file: FilePatch
    base: Side
    theirs: Side
    target: Side


def doubt(
    objects: Objects,
    tree: str,
    patch: Patch,
    word: Word,
    findings: Sequence[Finding],
    applied: PatchResult,
    origin: str | None,
) -> str | None:
    """Why the verdict must not be certain; None when nothing was found against it.

    origin: the tree that the patch was made on, where it is known.
    """
    match word:
        case Word.NEEDED:
            reasons = _against_needed(objects, tree, patch, applied, origin)
        case Word.UPSTREAMED:
            reasons = _against_upstreamed(objects, tree, patch, findings)
        case Word.OBSOLETE:
            reasons = _against_obsolete(objects, tree, patch, findings, origin)
        case Word.CONFLICT | Word.PARTIAL | Word.MISPLACED | Word.UNSURE:
            return None
    return next(reasons, None)


# --- needed: would it do what it says, and is it really not there? ----------------------------


def _against_needed(
    objects: Objects,
    tree: str,
    patch: Patch,
    applied: PatchResult,
    origin: str | None,
) -> Iterator[str]:
    for after in judge_all(objects, applied.tree, patch, origin):
        if after.holds is not True:
            yield f"it applies, but its effect is not there afterwards: {after.says}"
    if patch.trailers.effects:
        return
    for file in patch.files:
        yield from _defined_elsewhere(objects, tree, file)


def _defined_elsewhere(objects: Objects, tree: str, file: FilePatch) -> Iterator[str]:
    """A definition that the patch adds, with the same text in another file already."""
    base = made_on(objects, file)
    if base is None or file.new_path is None or file.binary:
        return
    theirs = patched(file, base)
    if file.change is Change.ADD and theirs.content:
        blob = objects.write_blob(theirs.content)
        for path, entry in objects.walk(tree):
            if entry.id == blob:
                yield f"the file that it adds is already there as {path}"
    known = {symbol.name for symbol in base.symbols.all}
    for symbol in theirs.symbols.all:
        if symbol.name in known or symbol.last - symbol.first < 1:
            continue
        text = theirs.plain.of(symbol)
        for path, other in places_of(objects, tree, symbol.name, file.path):
            side = Side(path, objects.blob(other))
            if any(side.plain.of(found) == text for found in side.symbols.named(symbol.name)):
                yield f"{symbol.name}, which it adds, is already in {path}"


# --- upstreamed: is what the patch removes really gone? ---------------------------------------


def _against_upstreamed(
    objects: Objects, tree: str, patch: Patch, findings: Sequence[Finding]
) -> Iterator[str]:
    for finding in findings:
        if finding.path not in (None, finding.effect.path):
            yield from _stranger(objects, patch, finding)
    grounds = list(_grounds(objects, tree, patch))
    for ground in grounds:
        yield from _still_there(ground)
    added = any(hunk.added for file in patch.files for hunk in file.hunks)
    positive = any(f.holds and not f.effect.absent for f in findings) or (not findings and added)
    if not positive:
        # Only an absence speaks for it; what is absent here may be elsewhere, or put otherwise.
        for ground in grounds:
            yield from _reworded(ground)
            yield from _in_a_helper(objects, tree, ground)
            if not findings:
                yield from _in_another_file(objects, tree, ground)
    for file in patch.files:
        if file.change is Change.DELETE:
            yield from _moved(objects, tree, file)


def _grounds(objects: Objects, tree: str, patch: Patch) -> Iterator[_Ground]:
    for file in patch.files:
        base = made_on(objects, file)
        content = objects.read(tree, file.new_path) if file.new_path is not None else None
        if base is not None and content is not None and not file.binary and file.hunks:
            yield _Ground(file, base, patched(file, base), Side(file.path, content))


def _still_there(ground: _Ground) -> Iterator[str]:
    """A removed line that stands in the symbol, or in a new helper of it, more often than meant."""
    for hunk, line in _removed(ground):
        name = symbol_of(ground.base, hunk)
        at = hunk.old_start + hunk.leading_context - 1
        if _count(ground.target, name, ground.base, at, line) > _count(
            ground.theirs, name, ground.base, at, line
        ):
            yield f"{_text(line)!r}, which it removes, still stands in {_place(ground, name)}"
        for other in _others(ground, name, line):
            if says_more(line, other):
                yield f"{_text(other)!r} in {_place(ground, name)} is what it removes, and more"
        if name and (helper := _new_helper(ground, name, line)):
            yield f"{_text(line)!r}, which it removes, now stands in {helper}, which {name} uses"


def _removed(ground: _Ground) -> Iterator[tuple[Hunk, bytes]]:
    """The removed lines that say something of their own, and are not added again."""
    for hunk in ground.file.hunks:
        added = {_collapsed(text) for text in hunk.added}
        for text in hunk.removed:
            line = _collapsed(text)
            if line not in added and len(line) >= 8 and len(set(words(line))) >= 2:
                yield hunk, line


def _count(side: Side, name: str, base: Side, at: int, line: bytes) -> int:
    """How often the line stands in the symbol, or under the headings of `at` in the base."""
    spans = [(s.first, s.last) for s in side.symbols.all if s.name == name]
    total = 0
    for number in side.plain.lines_like(line):
        if side.symbols.language is None:
            total += headings(side.lines, number - 1) == headings(base.lines, at)
        elif name:
            total += any(first <= number <= last for first, last in spans)
        else:
            total += side.symbols.at(number).name == ""
    return total


def _others(ground: _Ground, name: str, line: bytes) -> list[bytes]:
    """The symbol's lines that neither are this one nor stand in it as the patch makes it."""
    meant = {b"", line, *_scope(ground.theirs, name).split(b"\n")}
    return [found for found in _scope(ground.target, name).split(b"\n") if found not in meant]


def _new_helper(ground: _Ground, name: str, line: bytes) -> str | None:
    known = {symbol.name for symbol in ground.base.symbols.all}
    used = set(_NAME.findall(_scope(ground.target, name)))
    for symbol in ground.target.symbols.all:
        last = re.split(r"::|\.", symbol.name)[-1].encode()
        if symbol.name not in known and last in used:
            lines = ground.target.plain.lines[symbol.first - 1 : symbol.last]
            if line in lines:
                return symbol.name
    return None


def _reworded(ground: _Ground) -> Iterator[str]:
    """A line that upstream wrote into the symbol and that reads almost like a removed one."""
    for hunk, line in _removed(ground):
        name = symbol_of(ground.base, hunk)
        for other in _others(ground, name, line):
            if reads_like(line, other):
                yield f"{_text(other)!r} in {_place(ground, name)} reads like what it removes"


def _in_a_helper(objects: Objects, tree: str, ground: _Ground) -> Iterator[str]:
    """A removed line in another file, in a function that upstream made the symbol call."""
    for name in dict.fromkeys(symbol_of(ground.base, hunk) for hunk, _ in _removed(ground)):
        lines = [line for hunk, line in _removed(ground) if symbol_of(ground.base, hunk) == name]
        meant = set(_CALL.findall(_scope(ground.theirs, name)))
        for called in sorted(set(_CALL.findall(_scope(ground.target, name))) - meant):
            helper = called.decode()
            for path, blob in places_of(objects, tree, helper, ground.file.path):
                side = Side(path, objects.blob(blob))
                for symbol in side.symbols.named(helper):
                    inside = side.plain.lines[symbol.first - 1 : symbol.last]
                    if any(line in inside for line in lines):
                        yield f"what it removes now stands in {helper} in {path}"


def _in_another_file(objects: Objects, tree: str, ground: _Ground) -> Iterator[str]:
    """A removed line anywhere else: without an `Effect:`, nothing tells it from the one meant."""
    lines = {line for _, line in _removed(ground)}
    language = ground.target.symbols.language
    for path, entry in objects.walk(tree):
        if path != ground.file.path and language_of(path) is language:
            content = objects.blob(entry.id) if entry.mode in (REGULAR, EXECUTABLE) else b""
            if any(line.split()[0] in content for line in lines):
                for line in sorted(lines & set(Side(path, content).plain.lines)):
                    yield f"{_text(line)!r}, which it removes, stands in {path}"


def _stranger(objects: Objects, patch: Patch, finding: Finding) -> Iterator[str]:
    """A function of the name in another file counts only when it is the function that moved."""
    name, path = finding.effect.symbol, finding.effect.path
    says = f"{name} was found in {finding.path}, and nothing shows that it is the one from {path}"
    file = next((f for f in patch.files if path in (f.old_path, f.new_path)), None)
    base = made_on(objects, file) if file is not None else None
    if file is None or base is None or finding.blob is None:
        yield says
        return
    theirs = patched(file, base)
    there = Side(finding.path or path, objects.blob(finding.blob))
    if not any(
        _alike(theirs, one, there, other) >= _SAME_FUNCTION
        for one in theirs.symbols.named(name)
        for other in there.symbols.named(name)
    ):
        yield says


def _alike(side: Side, one: Symbol, there: Side, other: Symbol) -> float:
    ours = side.plain.lines[one.first - 1 : one.last]
    found = there.plain.lines[other.first - 1 : other.last]
    return difflib.SequenceMatcher(None, ours, found, autojunk=False).ratio()


def _moved(objects: Objects, tree: str, file: FilePatch) -> Iterator[str]:
    """A deleted file that is still there under another name."""
    base = made_on(objects, file)
    if base is None:
        yield f"{file.path} is not there, and what it held is not in the source store"
        return
    blob, last = objects.write_blob(base.content), file.path.rsplit("/", 1)[-1]
    for path, entry in objects.walk(tree):
        if entry.mode in (REGULAR, EXECUTABLE) and base.content and entry.id == blob:
            yield f"{file.path}, which it deletes, is now {path}"
        if path.rsplit("/", 1)[-1] == last and path != file.path:
            yield f"{file.path}, which it deletes, may now be {path}"
    for symbol in base.symbols.all:
        for path, _ in places_of(objects, tree, symbol.name, file.path):
            yield f"{symbol.name} of {file.path}, which it deletes, is now in {path}"


# --- obsolete: is nothing left, and can we see everything? ------------------------------------


def _against_obsolete(
    objects: Objects,
    tree: str,
    patch: Patch,
    findings: Sequence[Finding],
    origin: str | None,
) -> Iterator[str]:
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
            names.update(name for symbol in symbols for name in _NAME.findall(symbol))
    for effect in patch.trailers.effects:
        names.update(_NAME.findall(effect.symbol.encode()))
    last = {file.path.rsplit("/", 1)[-1] for file in patch.files}
    for path, entry in objects.walk(tree):
        if path.rsplit("/", 1)[-1] in last and path not in patch.paths:
            yield f"{path} has the name of the file that is gone"
        if entry.mode in (REGULAR, EXECUTABLE):
            words = set(_NAME.findall(objects.blob(entry.id))) & names if names else set()
            for word in sorted(words):
                yield f"{word.decode()} is still named in {path}"


# --- text -------------------------------------------------------------------------------------


def _scope(side: Side, name: str) -> bytes:
    """The symbol's lines without comments; the file's own, outside of symbols, for no name."""
    lines = side.plain.lines
    if not name:
        return b"\n".join(
            text for number, text in enumerate(lines, 1) if side.symbols.at(number).name == ""
        )
    spans = [(s.first, s.last) for s in side.symbols.all if s.name == name]
    return b"\n".join(text for first, last in spans for text in lines[first - 1 : last])


def _collapsed(line: bytes) -> bytes:
    return b" ".join(line.split())


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _place(ground: _Ground, name: str) -> str:
    return f"{ground.file.path} ({name})" if name else ground.file.path
