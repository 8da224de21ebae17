"""The patch that a rebase stops at, for a person.

What it is for, which hunks have no place, who changed those lines upstream.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.diff import Change
    from stackpatch.model.hunk import Hunk
    from stackpatch.model.patch import Patch
    from stackpatch.model.verdict import Evidence
    from stackpatch.series.rebase_state import State
    from stackpatch.sources.store import Stored


def describe(work: Workspace, state: State, target: Stored) -> tuple[dict[str, Any], list[str]]:
    """The waiting patch as JSON and as lines."""
    from stackpatch.series.suggest import suggest

    patch = next(p for p in work.series.patches if p.name == state.waiting)
    left = _without_place(state, patch)
    culprits = _culprits(work, state, target, left)
    suggestions = suggest(work.store.objects, state.tree, patch, {one.path for one in left})
    lines = [f"what {patch.name} is for:", f"  {patch.subject}"]
    lines += [f"  {line}".rstrip() for line in _intent(patch).splitlines()]
    for one in left:
        what = "this hunk" if one.hunk is not None else "this change"
        lines += ["", f"{what} of {one.path} has no place ({one.why}):"]
        lines += ["  " + line for line in one.text.splitlines()]
    lines.append("")
    for found in culprits:
        lines.append(f"upstream: {found.says}" + (f": {found.text}" if found.text else ""))
    if left and not culprits:
        lines.append("nothing in the source store shows when upstream changed these lines")
    for each in suggestions:
        lines += ["", f"{each.tool} suggests for {each.path} (look at it; it is not applied):"]
        lines += ["  " + line for line in each.diff.splitlines()]
    document = {
        "patch": patch.name,
        "subject": patch.subject,
        "intent": _intent(patch),
        "hunks": [{"path": one.path, "why": one.why, "text": one.text} for one in left],
        "culprits": [asdict(one) | {"layer": one.layer.value} for one in culprits],
        "suggestions": [{"tool": s.tool, "path": s.path, "diff": s.diff} for s in suggestions],
    }
    return document, lines


def _intent(patch: Patch) -> str:
    """What the message says below the subject, without the trailers."""
    from stackpatch.model.trailers import Trailers

    paragraphs = patch.message.strip("\n").split("\n\n")[1:]
    return "\n\n".join(paragraphs if patch.trailers == Trailers() else paragraphs[:-1])


@dataclass(frozen=True, slots=True)
class _Left:
    """What of the patch has no place, and why in a word. hunk: None for a rename or a new mode."""

    path: str
    why: str
    hunk: Hunk | None
    change: Change

    @property
    def text(self) -> str:
        if self.hunk is None:
            return f"{self.change.value} of the file"
        lines = ((tag + text).decode("utf-8", "replace") for tag, text in self.hunk.lines)
        return "\n".join(line.rstrip("\r\n") for line in lines)


def _without_place(state: State, patch: Patch) -> list[_Left]:
    settled = {"landed", "applies"}
    states = {(hunk.path, hunk.line): hunk.state for hunk in state.moves[-1].hunks}
    found = []
    for file in patch.files:
        # A file that comes or goes has one state for all of it, at the file's own line.
        whole = states.get((file.path, file.line), "applies")
        if whole not in settled and not file.hunks:
            found.append(_Left(file.path, whole, None, file.change))
        for hunk in file.hunks:
            why = states.get((file.path, hunk.line), whole)
            if why not in settled:
                found.append(_Left(file.path, why, hunk, file.change))
    return found


def _culprits(
    work: Workspace,
    state: State,
    target: Stored,
    left: list[_Left],
) -> list[Evidence]:
    """The upstream commits that changed the lines; without a history, the first version."""
    from stackpatch.model.reference import SourceKind
    from stackpatch.series.history import changed_by

    base = work.store.find(SourceKind.GIT, work.release.version)
    found: dict[str, Evidence] = {}
    if base is not None and target.kind is SourceKind.GIT:
        for one in left:
            lines = (one.hunk.removed or one.hunk.old) if one.hunk is not None else ()
            between = (base.commit, target.commit)
            for piece in changed_by(work.store.objects, *between, one.path, lines):
                found.setdefault(piece.says, piece)
    return list(found.values()) or _first_version(work, state, target)


def _first_version(work: Workspace, state: State, target: Stored) -> list[Evidence]:
    """The first version in the store at which the patch stopped applying, on those before it."""
    from stackpatch.cli.workspace import one_each
    from stackpatch.model.verdict import Evidence, Layer
    from stackpatch.series.matrix import Series, compute_all
    from stackpatch.series.rebase import culprit
    from stackpatch.sources.store import version_key

    between = [
        stored
        for stored in one_each(work.store.versions())
        if version_key(state.release) <= version_key(stored.version) <= version_key(target.version)
    ]
    memo = work.memo()
    covers = {id(stored): work.covers(stored) for stored in between}
    asked = Series(
        work.store.objects,
        work.series.patches[: len(state.moves)],
        between,
        memo,
        lambda stored: covers[id(stored)],
        state.origin,
    )
    (matrix,) = compute_all([asked], processes=1)
    memo.save()
    found = culprit(tuple(zip(matrix.versions, matrix.rows[-1].verdicts, strict=True)))
    if found is None:
        return []
    version, verdict = found
    says = f"{version} is the first version in the store where it is {verdict.word.value}"
    return [Evidence(Layer.SEARCH, says, text=verdict.detail)]
