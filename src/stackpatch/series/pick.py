"""Moving one patch onto another tree: what becomes of it, and the mail it is afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from stackpatch.errors import InputError
from stackpatch.model.diff import Change, FilePatch
from stackpatch.model.patch import parse_patch
from stackpatch.model.verdict import HunkState, Verdict, Word
from stackpatch.series.apply import guard_result
from stackpatch.series.edits import patched
from stackpatch.series.effects import judge_all
from stackpatch.series.export import Mails
from stackpatch.series.hunk_states import LANDED
from stackpatch.series.landed import examine
from stackpatch.series.merge import merge
from stackpatch.series.side import Side
from stackpatch.series.strays import astray
from stackpatch.sources.objects import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects


class Outcome(StrEnum):
    """What a rebase made of a patch."""

    UNTOUCHED = "untouched"
    MOVED = "moved"
    CHANGED = "changed"
    SHRUNK = "shrunk"
    LANDED = "landed"
    CONFLICT = "conflict"
    MISPLACED = "misplaced"
    RESOLVED = "resolved"
    SKIPPED = "skipped"

    @property
    def stops(self) -> bool:
        """Whether a person must decide."""
        return self in (Outcome.CONFLICT, Outcome.MISPLACED)


# The patches that go on with another diff than they had.
_REWRITTEN = (Outcome.MOVED, Outcome.CHANGED, Outcome.SHRUNK)


@dataclass(frozen=True, slots=True)
class Move:
    """One patch moved. mail: its new bytes, None when it was dropped or waits for a person.

    tree: the tree with it. hunks: what became of each hunk.
    """

    name: str
    outcome: Outcome
    detail: str
    verdict: Verdict
    tree: str
    mail: bytes | None
    hunks: tuple[HunkState, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """A patch moved from the tree `before`, its mail not written where it has another diff now."""

    patch: Patch
    before: str
    move: Move

    @property
    def unwritten(self) -> bool:
        """Whether the mail is still to be written."""
        return self.move.outcome in _REWRITTEN and self.move.mail is None

    @property
    def goes_on(self) -> bool:
        """Whether the patch is part of the moved series."""
        return self.unwritten or self.move.mail is not None

    def stopped(self, detail: str) -> Step:
        """The same, but a person must decide."""
        move = replace(
            self.move, outcome=Outcome.CONFLICT, detail=detail, tree=self.before, mail=None
        )
        return replace(self, move=move)


def move(
    objects: Objects,
    tree: str,
    patch: Patch,
    *,
    origin: str | None = None,
    covers: Callable[[str], bool] = lambda _: True,
) -> Move:
    """Move a patch onto a tree, as `step` does it, and write its mail."""
    one = step(objects, tree, patch, origin=origin, covers=covers)
    return write(objects, [one])[0]


def write(objects: Objects, steps: Iterable[Step]) -> list[Move]:
    """The moves with their mails. git writes those while the next steps are still being made."""
    made = []
    with Mails(objects) as mails:
        for one in steps:
            made.append(one)
            if one.unwritten:
                mails.ask(one.patch, one.before, one.move.tree)
        written = iter(mails.written())
    return [_written(one, next(written)) if one.unwritten else one.move for one in made]


def _written(one: Step, mail: bytes) -> Move:
    if one.move.outcome is not Outcome.CHANGED:
        return replace(one.move, mail=mail)
    before, after = _size(one.patch), _size(parse_patch(one.patch.name, mail))
    outcome = Outcome.SHRUNK if after < before else Outcome.CHANGED
    detail = f"three-way merge; {before} changed lines before, {after} after"
    return replace(one.move, mail=mail, outcome=outcome, detail=detail)


def step(
    objects: Objects,
    tree: str,
    patch: Patch,
    *,
    origin: str | None = None,
    covers: Callable[[str], bool] = lambda _: True,
) -> Step:
    """Move a patch onto a tree.

    The exact text in the right place is tried first; then a three-way merge from the file that
    the patch was made on, accepted only where it changes no other symbol than the patch did, the
    result parses and every `Effect:` holds in it. origin, covers: as `landed.examine` takes them.
    """
    examined = examine(objects, tree, patch, origin=origin, covers=covers)
    verdict, applied = examined.verdict, examined.applied

    def ends(outcome: Outcome, detail: str, result: str = tree, mail: bytes | None = None) -> Step:
        moved = Move(patch.name, outcome, detail, verdict, result, mail, verdict.hunks)
        return Step(patch, tree, moved)

    if verdict.word.may_drop:
        return ends(Outcome.LANDED, f"{verdict.word.value}: {verdict.detail}")
    if verdict.word is Word.NEEDED:
        if missing := _effect_missing(objects, applied.tree, patch, origin):
            return ends(Outcome.CONFLICT, f"it applies, but {missing}")
        if _at_home(objects, tree, patch):
            return ends(Outcome.UNTOUCHED, "", applied.tree, patch.raw)
        return ends(Outcome.MOVED, verdict.detail, applied.tree)
    if verdict.word is Word.UNSURE and applied.applied:
        # It would go on, and something speaks against it: no merge knows better.
        return ends(Outcome.CONFLICT, f"unsure: {verdict.detail}")
    # Text that stands only in another function says nothing about a merge, which goes by where
    # the lines were and is held to the patch's own symbols.
    merged = _merge_files(objects, tree, patch)
    if isinstance(merged, str):
        if verdict.word is Word.MISPLACED:
            return ends(Outcome.MISPLACED, verdict.detail)
        return ends(Outcome.CONFLICT, f"{verdict.word.value}: {verdict.detail}; {merged}")
    result = objects.with_changes(tree, merged)
    if result == tree:
        return ends(Outcome.CONFLICT, f"{verdict.word.value}: {verdict.detail}")
    if missing := _effect_missing(objects, result, patch, origin):
        return ends(Outcome.CONFLICT, f"a three-way merge is clean, but {missing}")
    if verdict.word is Word.UNSURE and patch.trailers.effects:
        return ends(Outcome.CONFLICT, f"unsure: {verdict.detail}")
    landed = [hunk for hunk in verdict.hunks if hunk.state == LANDED]
    if landed:
        places = ", ".join(f"{hunk.path} ({hunk.symbol or 'top level'})" for hunk in landed)
        return ends(Outcome.SHRUNK, f"already upstream: {places}", result)
    return ends(Outcome.CHANGED, "", result)  # or shrunk: its mail will tell


def _at_home(objects: Objects, tree: str, patch: Patch) -> bool:
    """Whether every file is the very file that the patch was made on."""
    for file in patch.files:
        if file.old_path is None:
            continue
        entry = objects.entry(tree, file.old_path)
        if file.old_id is None:
            if file.hunks:
                return False
        elif entry is None or not entry.id.startswith(file.old_id):
            return False
    return True


def _effect_missing(objects: Objects, tree: str, patch: Patch, origin: str | None) -> str | None:
    try:
        findings = judge_all(objects, tree, patch, origin)
    except InputError as error:
        return error.message
    for finding in findings:
        if finding.holds is not True:
            return f"its effect is not there afterwards: {finding.says}"
    return None


def _merge_files(objects: Objects, tree: str, patch: Patch) -> Mapping[str, Entry | None] | str:
    """Every file merged, or why one cannot be."""
    changes: dict[str, Entry | None] = {}
    for file in patch.files:
        if file.change is not Change.MODIFY or file.binary:
            return f"{file.path}: a {file.change.value} is not merged"
        merged = merge_file(objects, tree, file)
        if isinstance(merged, str):
            return merged
        changes[file.path] = merged
    return changes


def merge_file(objects: Objects, tree: str, file: FilePatch) -> Entry | str:
    """One file that a patch changes, merged under every guard; or why it cannot be."""
    entry = objects.entry(tree, file.path)
    content = objects.read(tree, file.path)
    if entry is None or content is None:
        return f"{file.path} is gone"
    blob = objects.find_blob(file.old_id) if file.old_id else None
    if blob is None:
        return f"{file.path}: the file that the patch was made on is not in the source store"
    base = Side(file.path, objects.blob(blob))
    theirs = patched(file, base)
    merged = merge(base.content, content, theirs.content)
    if merged is None:
        return f"{file.path}: upstream changed the same lines"
    ours, result = Side(file.path, content), Side(file.path, merged)
    if broken := guard_result(file, ours, base, merged):
        return f"{file.path}: {broken[1]}"
    strangers = symbols_touched(ours, result) - symbols_touched(base, theirs)
    if strangers:
        return f"{file.path}: the merge would change {', '.join(sorted(strangers))}"
    if wrong := astray(base, theirs, ours, result):
        return f"{file.path}: {wrong}"
    mode = entry.mode
    if file.new_mode is not None and file.new_mode != file.old_mode:
        if mode not in (file.old_mode, file.new_mode):
            return f"{file.path} has mode {mode:o}, not {file.old_mode:o}"
        mode = file.new_mode
    return Entry(mode, objects.write_blob(merged))


def symbols_touched(before: Side, after: Side) -> set[str]:
    """The symbols whose lines differ, by the same diff that git makes."""
    import pygit2

    patch = pygit2.Patch.create_from(before.content, after.content, context_lines=0)
    touched: set[str] = set()
    for hunk in patch.hunks:
        if hunk.old_lines:
            for line in range(hunk.old_start, hunk.old_start + hunk.old_lines):
                touched.add(before.symbols.at(line).name)
        else:
            touched.add(before.symbols.around(hunk.old_start, hunk.old_start + 1).name)
    return touched


def _size(patch: Patch) -> int:
    return sum(file.size for file in patch.files)
