"""What speaks against a certain verdict, so that it becomes `unsure`.

A verdict that drops a patch is reached by what was found. Here we look for what was not looked
for: the gate in other words or in a helper, the file under another name, a stranger that has the
function's name, code that we cannot see. Each reason is one sentence for the person who decides.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from stackpatch.model.diff import Change, FilePatch
from stackpatch.model.verdict import Word
from stackpatch.series.delegation import against_conflict
from stackpatch.series.edits import patched
from stackpatch.series.effects import judge_all
from stackpatch.series.grounds import (
    LONG,
    collapsed,
    counts,
    grounds_of,
    place,
    removed,
    says_nothing,
    shown,
)
from stackpatch.series.hunk_states import LANDED, made_on, symbol_of
from stackpatch.series.leftovers import against_obsolete
from stackpatch.series.remnants import (
    in_a_helper,
    in_a_sibling,
    in_another_file,
    reworded,
    rewrapped,
    said_again,
    still_there,
    unresolved,
)
from stackpatch.series.side import Side
from stackpatch.series.whereabouts import places_of, stood_before
from stackpatch.sources.objects import EXECUTABLE, REGULAR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackpatch.model.patch import Patch
    from stackpatch.model.verdict import HunkState
    from stackpatch.series.apply import PatchResult
    from stackpatch.series.effects import Finding
    from stackpatch.series.grounds import Ground
    from stackpatch.series.symbols import Symbol
    from stackpatch.sources.objects import Objects

# How much of a function must be left to call it the same one in another file.
_SAME_FUNCTION = 0.5
_PROSE = (".md", ".rst")


def doubt(
    objects: Objects,
    tree: str,
    patch: Patch,
    word: Word,
    findings: Sequence[Finding],
    hunks: Sequence[HunkState],
    applied: PatchResult,
    origin: str | None,
) -> str | None:
    """Why the verdict must not be certain; None when nothing was found against it.

    hunks: what became of each. origin: the tree that the patch was made on, where it is known.
    """
    match word:
        case Word.NEEDED:
            reasons = _against_needed(objects, tree, patch, applied, origin)
        case Word.UPSTREAMED:
            reasons = _against_upstreamed(objects, tree, patch, findings, hunks, origin)
        case Word.OBSOLETE:
            reasons = against_obsolete(objects, tree, patch, findings, origin)
        case Word.CONFLICT:
            reasons = against_conflict(objects, tree, findings, origin)
        case Word.PARTIAL | Word.MISPLACED | Word.UNSURE:
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
    for ground in grounds_of(objects, tree, patch):
        yield from _there_already(ground, imports=not patch.trailers.effects)
    if not patch.trailers.effects:
        for file in patch.files:
            yield from _defined_elsewhere(objects, tree, file)


def _there_already(ground: Ground, *, imports: bool) -> Iterator[str]:
    """A hunk that only adds, and all of whose lines upstream has put into the same symbol.

    An import may stand twice, and is there for something else; it counts where nothing else does.
    """
    for hunk in ground.file.hunks:
        if not imports and says_nothing(hunk, ground.base, ground.theirs):
            continue
        lines = [line for line in map(collapsed, hunk.added) if line]
        if hunk.removed or not any(len(line) >= LONG for line in lines):
            continue
        name = symbol_of(ground.base, hunk)
        found = [counts(ground, hunk, name, line) for line in lines]
        if all(now > was for was, _, now in found):
            first = max(lines, key=len)
            yield f"{shown(first)}, which it adds, is already in {place(ground, name)}"


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
    objects: Objects,
    tree: str,
    patch: Patch,
    findings: Sequence[Finding],
    hunks: Sequence[HunkState],
    origin: str | None,
) -> Iterator[str]:
    for finding in findings:
        if finding.path not in (None, finding.effect.path):
            yield from _stranger(objects, patch, finding)
    grounds = list(grounds_of(objects, tree, patch, findings))
    for ground in grounds:
        yield from _namesakes(ground, findings)
        yield from unresolved(ground)
        yield from still_there(ground)
        yield from rewrapped(ground)
        yield from said_again(ground, findings)
        yield from _split_off(objects, tree, ground, findings, origin)
    added = any(hunk.added for file in patch.files for hunk in file.hunks)
    positive = any(f.holds and not f.effect.absent for f in findings) or (not findings and added)
    for ground in grounds:
        yield from in_a_helper(objects, tree, ground, new=positive)
    if not positive:
        # Only an absence speaks for it; what is absent here may be elsewhere, or put otherwise.
        for ground in grounds:
            yield from _left(ground)
            yield from reworded(ground)
            yield from in_a_sibling(ground)
            if not findings:
                yield from in_another_file(objects, tree, ground)
    for file in patch.files:
        yield from _unshown(objects, file, findings, hunks)
        if file.change is Change.DELETE:
            yield from _moved(objects, tree, file)


def _unshown(
    objects: Objects, file: FilePatch, findings: Sequence[Finding], states: Sequence[HunkState]
) -> Iterator[str]:
    """A change that has not landed as it is, and at which no effect looks. Prose has none."""
    if file.path.lower().endswith(_PROSE):
        return
    looked = [
        finding.effect.symbol
        for finding in findings
        if finding.holds and finding.effect.path in (file.old_path, file.new_path)
    ]
    open_ = {hunk.line: hunk for hunk in states if hunk.path == file.path and hunk.state != LANDED}
    if not looked and file.line in open_:
        yield f"nothing shows that what it does to {file.path} is there"
    base = made_on(objects, file)
    theirs = patched(file, base) if base is not None else None
    for hunk in file.hunks:
        if hunk.line not in open_ or (looked and (base is None or theirs is None)):
            continue
        if (
            base is not None
            and theirs is not None
            and (
                says_nothing(hunk, base, theirs)
                or _looks_at(looked, base, hunk.old_start, hunk.old_count)
                or _looks_at(looked, theirs, hunk.new_start, hunk.new_count)
            )
        ):
            continue
        where = open_[hunk.line].symbol or "its top level"
        yield f"nothing shows that what it does in {where} of {file.path} is there"


def _looks_at(looked: Sequence[str], side: Side, start: int, length: int) -> bool:
    return any(
        start <= symbol.last and symbol.first < start + length
        for name in looked
        for symbol in side.symbols.named(name)
    )


def _namesakes(ground: Ground, findings: Sequence[Finding]) -> Iterator[str]:
    """An effect that was found in a namesake, which stood beside the patched one all along."""
    for finding in findings:
        if finding.path != ground.target.path or finding.effect.path != finding.path:
            continue
        for symbol in ground.base.symbols.named(finding.effect.symbol):
            changed = any(
                hunk.old_start <= symbol.last and symbol.first < hunk.old_start + hunk.old_count
                for hunk in ground.file.hunks
            )
            if changed and symbol.name and not ground.named(symbol.name):
                yield f"{symbol.name} is gone from {finding.path}; {finding.symbol} is another"


def _left(ground: Ground) -> Iterator[str]:
    """A symbol from which the patch removes something, and which is not in its file any more."""
    for name in dict.fromkeys(symbol_of(ground.base, hunk) for hunk, _ in removed(ground)):
        if name and not ground.named(name):
            yield f"{name}, which it changes, is not in {ground.target.path} any more"


def _split_off(
    objects: Objects, tree: str, ground: Ground, findings: Sequence[Finding], origin: str | None
) -> Iterator[str]:
    """A symbol that went to another file, where no effect was looked for: what is there is new."""
    seen = {finding.path for finding in findings}
    for name in dict.fromkeys(symbol_of(ground.base, hunk) for hunk, _ in removed(ground)):
        if name and not ground.named(name):
            for path, _ in places_of(objects, tree, name, ground.file.path):
                if path not in seen and not stood_before(objects, origin, name, path):
                    yield f"{name}, which it changes, is now in {path}, where no effect looks"


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
