"""Has a patch landed, does it still apply: the verdict, from layered evidence.

Every layer is asked and kept. Text alone never decides: a gate that reads like ours may be
another function's, lines that reverse-apply may never have been there. Where layers contradict
each other, or none decides, the verdict is `unsure`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.model.diff import Change
from stackpatch.model.verdict import Evidence, HunkState, Layer, Verdict, Word
from stackpatch.series.apply import PatchResult, apply_patch
from stackpatch.series.departures import departures, remains
from stackpatch.series.doubts import doubt
from stackpatch.series.edits import patched
from stackpatch.series.effects import Finding, judge, judge_all
from stackpatch.series.hunk_states import APPLIES, LANDED, hunk_states, made_on
from stackpatch.series.merge import merge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackpatch.model.diff import FilePatch
    from stackpatch.model.patch import Patch
    from stackpatch.series.placement import Placed
    from stackpatch.sources.objects import Objects

_STRENGTH = {layer: number for number, layer in enumerate(Layer)}


@dataclass(frozen=True, slots=True)
class _Look:
    """Everything that was seen of a patch in a tree."""

    patch: Patch
    findings: tuple[Finding, ...]
    applied: PatchResult
    hunks: tuple[HunkState, ...]
    gone: tuple[Evidence, ...]
    origin: str | None

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

    The verdict depends on the files that the patch names and, beyond them, on the answers for
    the symbols that were searched in the tree (asked: symbol and path, see `whereabouts`), or,
    with whole_tree, on everything.
    """

    verdict: Verdict
    applied: PatchResult
    asked: tuple[tuple[str, str], ...]
    whole_tree: bool


def decide(
    objects: Objects,
    tree: str,
    patch: Patch,
    *,
    origin: str | None = None,
    history: Sequence[Evidence] = (),
    covers: Callable[[str], bool] = lambda _: True,
) -> Verdict:
    """The verdict on a patch at a tree; see `examine`."""
    return examine(objects, tree, patch, origin=origin, history=history, covers=covers).verdict


def examine(
    objects: Objects,
    tree: str,
    patch: Patch,
    *,
    origin: str | None = None,
    history: Sequence[Evidence] = (),
    covers: Callable[[str], bool] = lambda _: True,
) -> Examined:
    """The verdict on a patch at a tree, and the result of applying it there.

    origin: the tree of the release that the series is for, where it is known: what stood there
    already did not move anywhere since.
    history: what a source with history showed (a named commit is an ancestor, a patch-id is in
    the range). covers: whether the tree can hold a path at all; a wheel has no tests and no
    build files, and what it cannot have is not "gone".
    Raises InputError for an `Effect:` pattern that runs away.
    """
    walks, asked = objects.walks, len(objects.asked)
    uncovered = [path for path in patch.paths if not covers(path)]
    applied = apply_patch(objects, tree, patch)
    elsewhere = not applied.applied and not uncovered
    look = _Look(
        patch,
        judge_all(objects, tree, patch, origin),
        applied,
        tuple(state for file in patch.files for state in hunk_states(objects, tree, file)),
        tuple(departures(objects, tree, patch, origin)) if elsewhere else (),
        origin,
    )
    evidence = [
        *history,
        *_of_pick(objects, tree, look),
        *map(_of_finding, look.findings),
        *_of_apply(look),
        *look.gone,
    ]
    if uncovered:
        says = f"this kind of source does not carry {', '.join(uncovered)}"
        evidence.insert(0, Evidence(Layer.SEARCH, says))
        word, detail = Word.UNSURE, says
    else:
        word, detail = _weigh(objects, tree, look, history, evidence)
        against = doubt(objects, tree, patch, word, look.findings, look.hunks, look.applied, origin)
        if against is not None:
            evidence.append(Evidence(Layer.SEARCH, against))
            word, detail = Word.UNSURE, against
    strongest_first = sorted(evidence, key=lambda piece: _STRENGTH[piece.layer])
    verdict = Verdict(word, detail, tuple(strongest_first), look.hunks)
    questions = tuple(dict.fromkeys(objects.asked[asked:]))
    return Examined(verdict, look.applied, questions, objects.walks > walks)


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
        # A symbol that is nowhere, and that the patch itself defines, is an effect not there yet.
        after = [judge(objects, look.applied.tree, f.effect, look.origin) for f in look.undecided]
        if all(f.symbol is None for f in look.undecided) and all(f.holds for f in after):
            return Word.NEEDED, _where(look.applied)
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
    landed = look.states(LANDED)
    if landed or any(not finding.effect.absent for finding in look.held):
        return Word.PARTIAL, _partial(tuple(h for h in look.hunks if h.state != LANDED))
    if recorded:
        return Word.UNSURE, "its commit is upstream, but its effect is not there"
    return _unapplied(look)


def _weigh_text(look: _Look, recorded: bool) -> tuple[Word, str]:
    """No `Effect:` line to go by: only what the text proves."""
    if look.applied.applied:
        if recorded:
            return Word.UNSURE, "its commit is upstream, and it would still apply"
        return Word.NEEDED, _where(look.applied)
    if look.all_landed:
        return Word.UPSTREAMED, "identical"
    word, detail = _unapplied(look)
    if look.states(LANDED):
        waiting = tuple(hunk for hunk in look.hunks if hunk.state != LANDED)
        if all(hunk.state == APPLIES for hunk in waiting):
            return Word.PARTIAL, _partial(waiting)
    elif word is Word.MISPLACED:
        return word, detail
    return Word.UNSURE, f"{detail}; without an Effect line nothing shows whether it landed"


def _weigh_lost(
    objects: Objects, tree: str, look: _Look, evidence: list[Evidence]
) -> tuple[Word, str]:
    """No effect is refuted, but one cannot be judged: mostly a symbol that is nowhere."""
    for finding in look.undecided:
        if finding.symbol is not None:
            return Word.UNSURE, finding.says
    if look.gone:
        return Word.UNSURE, look.gone[0].says
    left = remains(objects, tree, look.patch)
    if left is None:
        return Word.UNSURE, "the code that it changes was not found"
    if left:
        evidence += left
        return Word.UNSURE, f"the code that it changes is not there, but {left[0].says}"
    return Word.OBSOLETE, "the code is gone, and none of its names is used any more"


def _unapplied(look: _Look) -> tuple[Word, str]:
    reasons = {failure.reason for failure in look.applied.failures}
    first = look.applied.failures[0]
    if reasons == {"misplaced"}:
        return Word.MISPLACED, first.detail
    if first.detail.startswith(first.path):
        return Word.CONFLICT, first.detail
    return Word.CONFLICT, f"{first.path}: {first.detail}"


def _where(applied: PatchResult) -> str:
    return f"offset {applied.offset}" if applied.offset else "clean"


def _partial(waiting: Sequence[HunkState]) -> str:
    places = ", ".join(f"{hunk.path} ({hunk.symbol or 'top level'})" for hunk in waiting)
    return f"not upstream: {places}" if places else "some effects hold, others do not"


def _only_adds(patch: Patch) -> bool:
    hunks = [hunk for file in patch.files for hunk in file.hunks]
    return bool(hunks) and not any(hunk.removed for hunk in hunks)


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
        if not file.placed:
            found.append(Evidence(Layer.APPLY, f"{file.change.value} applies", file.path))
    for failure in look.applied.failures:
        line = failure.candidates[0][0] if failure.candidates else None
        symbol = failure.candidates[0][1] if failure.candidates else failure.expected
        says = f"{failure.detail} (line {failure.line} of the patch)"
        found.append(Evidence(Layer.APPLY, says, failure.path, line, symbol))
    return found


def _of_pick(objects: Objects, tree: str, look: _Look) -> list[Evidence]:
    found = [
        Evidence(
            Layer.PICK,
            f"the hunk at line {hunk.line} of the patch is already there",
            hunk.path,
            None,
            hunk.symbol,
        )
        for hunk in look.states(LANDED)
    ]
    if look.all_landed and all(_picks_nothing(objects, tree, file) for file in look.patch.files):
        found.insert(0, Evidence(Layer.PICK, "picking it leaves the tree as it is"))
    return found


def _picks_nothing(objects: Objects, tree: str, file: FilePatch) -> bool:
    """Whether a three-way merge of the file is the file as it is; for a file that has landed."""
    base = made_on(objects, file)
    content = objects.read(tree, file.new_path) if file.new_path is not None else None
    if file.change in (Change.ADD, Change.DELETE) or base is None or content is None:
        return base is not None
    return merge(base.content, content, patched(file, base).content) == content


def _of_placed(path: str, placed: Placed) -> Evidence:
    says = f"applies at line {placed.start + 1}, offset {placed.offset} ({placed.proof})"
    return Evidence(Layer.APPLY, says, path, placed.start + 1, placed.symbol)
