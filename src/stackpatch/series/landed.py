"""Has a patch landed, does it still apply: the verdict, from layered evidence.

Every layer is asked and kept. Text alone never decides: a gate that reads like ours may be
another function's, lines that reverse-apply may never have been there. Where layers contradict
each other, or none decides, the verdict is `unsure`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.model.diff import Change, FilePatch
from stackpatch.model.hunk import Hunk
from stackpatch.model.verdict import Evidence, HunkState, Layer, Verdict, Word
from stackpatch.series.apply import PatchResult, apply_patch
from stackpatch.series.effects import Finding, judge, places_of
from stackpatch.series.merge import merge
from stackpatch.series.placement import Placed, Side, place_hunks, replace_at
from stackpatch.sources.objects import EXECUTABLE, REGULAR

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects

LANDED, APPLIES = "landed", "applies"


@dataclass(frozen=True, slots=True)
class _Look:
    """Everything that was seen of a patch in a tree."""

    patch: Patch
    findings: tuple[Finding, ...]
    applied: PatchResult
    hunks: tuple[HunkState, ...]
    covers: Callable[[str], bool]

    @property
    def all_landed(self) -> bool:
        return bool(self.hunks) and all(hunk.state == LANDED for hunk in self.hunks)

    def states(self, *wanted: str) -> tuple[HunkState, ...]:
        return tuple(hunk for hunk in self.hunks if hunk.state in wanted)

    @property
    def held(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.holds is True)

    @property
    def refuted(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.holds is False)

    @property
    def undecided(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.holds is None)


@dataclass(frozen=True, slots=True)
class Examined:
    """A verdict and what applying the patch came to.

    whole_tree: whether files were searched that the patch does not name, so that the verdict
    depends on more than the files it names.
    """

    verdict: Verdict
    applied: PatchResult
    whole_tree: bool


def decide(
    objects: Objects,
    tree: str,
    patch: Patch,
    *,
    history: Sequence[Evidence] = (),
    covers: Callable[[str], bool] = lambda _: True,
) -> Verdict:
    """The verdict on a patch at a tree; see `examine`."""
    return examine(objects, tree, patch, history=history, covers=covers).verdict


def examine(
    objects: Objects,
    tree: str,
    patch: Patch,
    *,
    history: Sequence[Evidence] = (),
    covers: Callable[[str], bool] = lambda _: True,
) -> Examined:
    """The verdict on a patch at a tree, and the result of applying it there.

    history: what a source with history showed (a named commit is an ancestor, a patch-id is in
    the range). covers: whether the tree can hold a path at all; a wheel has no tests and no
    build files, and what it cannot have is not "gone".
    Raises InputError for an `Effect:` pattern that runs away.
    """
    walks = objects.walks
    look = _Look(
        patch,
        tuple(judge(objects, tree, effect) for effect in patch.trailers.effects),
        apply_patch(objects, tree, patch),
        tuple(state for file in patch.files for state in _hunk_states(objects, tree, file)),
        covers,
    )
    evidence = [*history, *map(_of_finding, look.findings), *_of_apply(look)]
    uncovered = [path for path in patch.paths if not covers(path)]
    if uncovered:
        says = f"this kind of source does not carry {', '.join(uncovered)}"
        evidence.insert(0, Evidence(Layer.SEARCH, says))
        word, detail = Word.UNSURE, says
    else:
        word, detail = _weigh(objects, tree, look, history, evidence)
    verdict = Verdict(word, detail, tuple(evidence), look.hunks)
    return Examined(verdict, look.applied, objects.walks > walks)


def _weigh(
    objects: Objects,
    tree: str,
    look: _Look,
    history: Sequence[Evidence],
    evidence: list[Evidence],
) -> tuple[Word, str]:
    recorded = any(e.layer in (Layer.COMMIT, Layer.PATCH_ID) for e in history)
    if not look.findings:
        return _weigh_text(look, recorded)
    if look.refuted:
        return _weigh_absent(look, recorded)
    if not look.undecided:
        return _weigh_present(look)
    if look.all_landed and recorded:
        return Word.UPSTREAMED, "identical"
    if look.applied.applied:
        return Word.UNSURE, "it applies, but an Effect names a symbol that is not there"
    return _weigh_lost(objects, tree, look, evidence)


def _weigh_present(look: _Look) -> tuple[Word, str]:
    """Every `Effect:` line holds."""
    if look.all_landed:
        return Word.UPSTREAMED, "identical"
    if look.applied.applied:
        if _only_adds(look.patch):
            return Word.UPSTREAMED, "equivalent"
        return (
            Word.UNSURE,
            "the effect is there, and the patch would still apply: Effect too loose?",
        )
    waiting = look.states(APPLIES)
    if waiting and len(look.hunks) > 1:
        return Word.PARTIAL, _partial(waiting)
    positive = [finding for finding in look.findings if not finding.effect.absent]
    return Word.UPSTREAMED, "equivalent" if positive else "gone"


def _weigh_absent(look: _Look, recorded: bool) -> tuple[Word, str]:
    """At least one `Effect:` line does not hold."""
    if look.applied.applied:
        return Word.NEEDED, _where(look.applied)
    if look.all_landed:
        return Word.UNSURE, "its lines are there, but its effect is not"
    if recorded:
        return Word.UNSURE, "its commit is upstream, but its effect is not there"
    landed = look.states(LANDED)
    if landed or any(not finding.effect.absent for finding in look.held):
        return Word.PARTIAL, _partial(tuple(h for h in look.hunks if h.state != LANDED))
    return _unapplied(look)


def _weigh_text(look: _Look, recorded: bool) -> tuple[Word, str]:
    """No `Effect:` line to go by: only what the text proves."""
    if look.applied.applied:
        if recorded:
            return Word.UNSURE, "its commit is upstream, and it would still apply"
        return Word.NEEDED, _where(look.applied)
    if look.all_landed:
        return Word.UPSTREAMED, "identical"
    if look.states(LANDED):
        return Word.PARTIAL, _partial(tuple(h for h in look.hunks if h.state != LANDED))
    word, detail = _unapplied(look)
    if word is Word.MISPLACED:
        return word, detail
    return Word.UNSURE, f"{detail}; without an Effect line nothing shows whether it landed"


def _weigh_lost(
    objects: Objects, tree: str, look: _Look, evidence: list[Evidence]
) -> tuple[Word, str]:
    """No effect is refuted, but a symbol is nowhere to be judged."""
    for file in look.patch.files:
        for symbol in _symbols_changed(objects, file):
            for path, _ in places_of(objects, tree, symbol, file.path):
                says = f"{symbol} is now in {path}"
                evidence.append(Evidence(Layer.SEARCH, says, path, None, symbol))
                return Word.UNSURE, says
    traces = _traces(objects, tree, look.patch)
    if traces is None:
        return Word.UNSURE, "the code that it changes was not found"
    if traces:
        evidence += traces
        return Word.UNSURE, f"what it changes moved, perhaps to {traces[0].path}"
    return Word.OBSOLETE, "the code is gone, and none of its names is used any more"


def _unapplied(look: _Look) -> tuple[Word, str]:
    reasons = {failure.reason for failure in look.applied.failures}
    first = look.applied.failures[0]
    if reasons == {"misplaced"}:
        return Word.MISPLACED, first.detail
    return Word.CONFLICT, f"{first.path}: {first.detail}"


def _where(applied: PatchResult) -> str:
    return f"offset {applied.offset}" if applied.offset else "clean"


def _partial(waiting: Sequence[HunkState]) -> str:
    places = ", ".join(f"{hunk.path} ({hunk.symbol or 'top level'})" for hunk in waiting)
    return f"not upstream: {places}" if places else "some effects hold, others do not"


def _only_adds(patch: Patch) -> bool:
    hunks = [hunk for file in patch.files for hunk in file.hunks]
    return bool(hunks) and not any(hunk.removed for hunk in hunks)


# --- hunk by hunk -----------------------------------------------------------------------------


def _hunk_states(objects: Objects, tree: str, file: FilePatch) -> list[HunkState]:
    """Per hunk: landed, applies, or why not. A file without hunks counts as one."""
    before = objects.read(tree, file.old_path) if file.old_path is not None else b""
    after = objects.read(tree, file.new_path) if file.new_path is not None else b""
    if file.change is not Change.MODIFY:
        return [HunkState(file.path, file.line, "", _whole_file_state(file, before, after))]
    if not file.hunks:
        entry = objects.entry(tree, file.path)
        done = entry is not None and entry.mode == file.new_mode
        state = LANDED if done else APPLIES if entry is not None else "missing"
        return [HunkState(file.path, file.line, "", state)]
    blob = objects.find_blob(file.old_id) if file.old_id else None
    if before is None:
        return [
            HunkState(file.path, h.line, _named(objects, blob, file, h), "missing")
            for h in file.hunks
        ]
    target = Side(file.path, before)
    base = Side(file.path, objects.blob(blob)) if blob is not None else None
    return [
        HunkState(file.path, h.line, _named(objects, blob, file, h), _hunk_state(h, target, base))
        for h in file.hunks
    ]


def _whole_file_state(file: FilePatch, before: bytes | None, after: bytes | None) -> str:
    match file.change:
        case Change.ADD:
            wanted = b"".join(text for hunk in file.hunks for text in hunk.new)
            return LANDED if after == wanted else APPLIES if after is None else "exists"
        case Change.DELETE:
            return LANDED if before is None else APPLIES
        case _:
            if before is None and after is not None:
                return LANDED
            return APPLIES if before is not None and after is None else "conflict"


def _hunk_state(hunk: Hunk, target: Side, base: Side | None) -> str:
    placed, refused = place_hunks([hunk], target, base)
    if placed:
        return APPLIES
    if base is not None:
        home = hunk.old_start - (1 if hunk.old_count else 0)
        theirs = replace_at(base.lines, [(hunk, home)])
        undone, _ = place_hunks([_reversed(hunk, home)], target, Side(base.path, theirs))
        if undone and merge(base.content, target.content, theirs) in (target.content, None):
            return LANDED
    return refused[0].reason.value if refused else "conflict"


def _reversed(hunk: Hunk, home: int) -> Hunk:
    swap = {b"+": b"-", b"-": b"+", b" ": b" "}
    start = home + (1 if hunk.new_count else 0)
    lines = tuple((swap[tag], text) for tag, text in hunk.lines)
    return Hunk(
        start, hunk.new_count, hunk.old_start, hunk.old_count, hunk.heading, lines, hunk.line
    )


def _named(objects: Objects, blob: str | None, file: FilePatch, hunk: Hunk) -> str:
    if blob is None:
        return hunk.heading.decode("utf-8", "replace").strip()
    side = Side(file.path, objects.blob(blob))
    first = hunk.old_start + hunk.leading_context
    last = hunk.old_start + max(len(hunk.old) - hunk.trailing_context - 1, hunk.leading_context)
    return side.symbols.around(min(first, last), max(first, last)).name


def _symbols_changed(objects: Objects, file: FilePatch) -> list[str]:
    blob = objects.find_blob(file.old_id) if file.old_id else None
    if blob is None:
        return []
    names = [_named(objects, blob, file, hunk) for hunk in file.hunks]
    return [name for name in dict.fromkeys(names) if name]


# --- traces of code that is gone --------------------------------------------------------------

_WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_]{5,}")


def _traces(objects: Objects, tree: str, patch: Patch) -> list[Evidence] | None:
    """Where a name of the removed lines still stands, nearest first; None when they hold no names.

    Every name counts, also a common one: while anything of the code is left, something may have
    taken its place, and then the patch is not obsolete. One trace is enough to know that.
    """
    removed = [text for file in patch.files for hunk in file.hunks for text in hunk.removed]
    words = sorted({word for text in removed for word in _WORD.findall(text)})
    if not words:
        return None
    near = patch.files[0].path.rsplit("/", 1)[0]
    files = [(p, e) for p, e in objects.walk(tree) if e.mode in (REGULAR, EXECUTABLE)]
    files.sort(key=lambda item: (not item[0].startswith(near), item[0]))
    for path, entry in files:
        content = objects.blob(entry.id)
        for word in words:
            if word in content:
                line = content.count(b"\n", 0, content.index(word)) + 1
                says = f"{word.decode()} still stands in {path}"
                return [Evidence(Layer.SEARCH, says, path, line)]
    return []


# --- evidence ---------------------------------------------------------------------------------


def _of_finding(finding: Finding) -> Evidence:
    says = f"Effect {'?' if finding.holds is None else 'holds' if finding.holds else 'absent'}: "
    return Evidence(
        Layer.EFFECT, says + finding.says, finding.path, finding.line, finding.symbol, finding.text
    )


def _of_apply(look: _Look) -> list[Evidence]:
    found: list[Evidence] = []
    for file in look.applied.files:
        found += [_of_placed(file.path, placed) for placed in file.placed]
    for failure in look.applied.failures:
        line = failure.candidates[0][0] if failure.candidates else None
        symbol = failure.candidates[0][1] if failure.candidates else failure.expected
        found.append(Evidence(Layer.APPLY, failure.detail, failure.path, line, symbol))
    for hunk in look.states(LANDED):
        says = f"the hunk at line {hunk.line} of the patch is already there"
        found.append(Evidence(Layer.PICK, says, hunk.path, None, hunk.symbol))
    return found


def _of_placed(path: str, placed: Placed) -> Evidence:
    says = f"applies at line {placed.start + 1}, offset {placed.offset} ({placed.proof})"
    return Evidence(Layer.APPLY, says, path, placed.start + 1, placed.symbol)
