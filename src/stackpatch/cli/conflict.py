"""The patch that a rebase stops at, for a person.

What it is for, which hunks have no place, who changed those lines upstream.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.hunk import Hunk
    from stackpatch.model.patch import Patch
    from stackpatch.model.verdict import Evidence
    from stackpatch.series.rebase import State
    from stackpatch.sources.store import Stored


def describe(work: Workspace, state: State, target: Stored) -> tuple[dict[str, Any], list[str]]:
    """The waiting patch as JSON and as lines."""
    from stackpatch.series.suggest import suggest

    patch = next(p for p in work.series.patches if p.name == state.waiting)
    left = _hunks_left(state, patch)
    culprits = _culprits(work, state, target, patch, left)
    suggestions = suggest(work.store.objects, state.tree, patch)
    intent = patch.message.split("\n\n")
    lines = [f"what {patch.name} is for:", f"  {patch.subject}"]
    lines += [f"  {line}" for line in (intent[1].splitlines() if len(intent) > 1 else [])]
    for path, hunk, why in left:
        lines += ["", f"this hunk of {path} has no place ({why}):"]
        lines += ["  " + line for line in _shown(hunk)]
    lines.append("")
    for one in culprits:
        lines.append(f"upstream: {one.says}" + (f": {one.text}" if one.text else ""))
    if not culprits:
        lines.append("nothing in the source store shows when upstream changed these lines")
    for each in suggestions:
        lines += ["", f"{each.tool} suggests for {each.path} (look at it; it is not applied):"]
        lines += ["  " + line for line in each.diff.splitlines()]
    document = {
        "patch": patch.name,
        "subject": patch.subject,
        "hunks": [{"path": p, "why": why, "text": "\n".join(_shown(h))} for p, h, why in left],
        "culprits": [asdict(one) | {"layer": one.layer.value} for one in culprits],
        "suggestions": [{"tool": s.tool, "path": s.path, "diff": s.diff} for s in suggestions],
    }
    return document, lines


def _hunks_left(state: State, patch: Patch) -> list[tuple[str, Hunk, str]]:
    """The hunks without a place and, in a word, why."""
    stopped = state.moves[-1]
    found = []
    for file in patch.files:
        for hunk in file.hunks:
            states = {h.state for h in stopped.hunks if h.path == file.path and h.line == hunk.line}
            if not states or not states <= {"landed", "applies"}:
                found.append((file.path, hunk, ", ".join(sorted(states)) or "conflict"))
    return found


def _shown(hunk: Hunk) -> list[str]:
    return [(tag + text).decode("utf-8", "replace").rstrip("\r\n") for tag, text in hunk.lines]


def _culprits(
    work: Workspace,
    state: State,
    target: Stored,
    patch: Patch,
    left: list[tuple[str, Hunk, str]],
) -> list[Evidence]:
    """The upstream commits that changed the lines; without a history, the first version."""
    from stackpatch.model.reference import SourceKind
    from stackpatch.series.history import changed_by

    base = work.store.find(SourceKind.GIT, work.release.version)
    found: dict[str, Evidence] = {}
    if base is not None and target.kind is SourceKind.GIT:
        for path, hunk, _ in left:
            removed = [text for tag, text in hunk.lines if tag == b"-"]
            lines = removed or [text for tag, text in hunk.lines if tag == b" "]
            for one in changed_by(work.store.objects, base.commit, target.commit, path, lines):
                found.setdefault(one.says, one)
    return list(found.values()) or _first_version(work, state, target, patch)


def _first_version(work: Workspace, state: State, target: Stored, patch: Patch) -> list[Evidence]:
    """The first version in the store at which the patch stopped applying."""
    from stackpatch.cli.workspace import one_each
    from stackpatch.model.verdict import Evidence, Layer
    from stackpatch.series.rebase import culprit
    from stackpatch.sources.store import version_key

    between = [
        (stored.version, stored.tree)
        for stored in one_each(work.store.versions())
        if version_key(state.release) <= version_key(stored.version) <= version_key(target.version)
    ]
    memo = work.memo()
    found = culprit(
        patch, between, lambda tree, p: memo.examine(work.store.objects, tree, p).verdict
    )
    memo.save()
    if found is None:
        return []
    version, verdict = found
    says = f"{version} is the first version in the store where it is {verdict.word.value}"
    return [Evidence(Layer.SEARCH, says, text=verdict.detail)]
