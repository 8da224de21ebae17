"""Has a patch landed, does it still apply: the verdict, from layered evidence.

Every layer is asked and kept. Text alone never decides: a gate that reads like ours may be
another function's, lines that reverse-apply may never have been there. Where layers contradict
each other, or none decides, the verdict is `unsure`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.model.verdict import Evidence, HunkState, Layer, Verdict, Word
from stackpatch.series.apply import PatchResult, apply_patch
from stackpatch.series.doubts import doubt
from stackpatch.series.effects import Finding, judge
from stackpatch.series.hunk_states import APPLIES, LANDED, hunk_states, symbols_changed
from stackpatch.series.whereabouts import places_of
from stackpatch.sources.objects import DIRECTORY, EXECUTABLE, REGULAR, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from stackpatch.model.patch import Patch
    from stackpatch.series.placement import Placed
    from stackpatch.sources.objects import Objects


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
    walks, asked = objects.walks, len(objects.asked)
    look = _Look(
        patch,
        tuple(judge(objects, tree, effect) for effect in patch.trailers.effects),
        apply_patch(objects, tree, patch),
        tuple(state for file in patch.files for state in hunk_states(objects, tree, file)),
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
        against = doubt(objects, tree, patch, word, look.findings, look.applied)
        if against is not None:
            evidence.append(Evidence(Layer.SEARCH, against))
            word, detail = Word.UNSURE, against
    verdict = Verdict(word, detail, tuple(evidence), look.hunks)
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
        after = [judge(objects, look.applied.tree, finding.effect) for finding in look.undecided]
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
    """No effect is refuted, but a symbol is nowhere to be judged."""
    for file in look.patch.files:
        for symbol in symbols_changed(objects, file):
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
        found.append(Evidence(Layer.APPLY, failure.detail, failure.path, line, symbol))
    for hunk in look.states(LANDED):
        says = f"the hunk at line {hunk.line} of the patch is already there"
        found.append(Evidence(Layer.PICK, says, hunk.path, None, hunk.symbol))
    return found


def _of_placed(path: str, placed: Placed) -> Evidence:
    says = f"applies at line {placed.start + 1}, offset {placed.offset} ({placed.proof})"
    return Evidence(Layer.APPLY, says, path, placed.start + 1, placed.symbol)
