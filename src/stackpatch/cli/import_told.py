"""What an import says: what became of each foreign commit, as a document and for people."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackpatch.sources.forks import relation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.cli.origin import Origin
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.verdict import Evidence
    from stackpatch.series.adopt import Adopted
    from stackpatch.sources.forks import Foreign

_STANDS = {
    "same": "which is the release's",
    "before": "which is before the release",
    "after": "which is after the release",
    "beside": "which is neither before nor after the release",
    "unknown": "and how the release stands to it is not known: it has no history here",
}


def told(
    work: Workspace,
    origin: Origin,
    found: Foreign,
    rows: Sequence[Adopted],
    where: Path | None,
    problem: str | None,
    *,
    dry: bool,
) -> tuple[dict[str, Any], list[str]]:
    """The document and the lines for people. where: the series, None when nothing was written.

    problem: why the patches together were refused, although each one could be taken.
    """
    base = (origin.base or found.base) if origin.since == found.base else found.base
    stands = relation(work.store, base, work.release.commit)
    stops = problem is not None or any(row.stops for row in rows)
    document = {
        "stack": work.recipe.stack,
        "release": work.release.version,
        "source": {"kind": origin.kind, "url": origin.shown, "ref": found.ref},
        "base": base,
        "base_is": stands,
        "since": origin.since,
        "head": found.head,
        "outcome": "conflict" if stops else "clean" if rows else "nothing-new",
        "problem": problem,
        "upstream_unknown": found.upstream,
        "commits": [_row(row) for row in rows],
        "series": None if where is None else str(where),
        "dry_run": dry,
    }
    lines = [
        f"{origin.shown} at {found.head[:12]} into {work.recipe.stack} {work.release.version}",
        f"it starts from upstream's {base[:12]}, {_STANDS[stands]}",
    ]
    if found.upstream is not None:
        lines.append(f"which of its commits are upstream's is not known: {found.upstream}")
    if origin.since is not None and found.commits:
        lines.append(f"new since {origin.since[:12]}:")
    lines += [line for row in rows for line in _lines(row)]
    if not rows:
        lines.append("nothing new: every commit is in the series or upstream")
    silent = [row.name for row in rows if row.mail is not None and not _says_status(row)]
    if silent:
        lines.append(f"without Upstream-Status (lint says so too): {', '.join(map(str, silent))}")
    if where is not None:
        lines.append(f"series     {where}")
    return document, lines


def _says_status(row: Adopted) -> bool:
    return re.search(rb"^Upstream-Status: ", row.mail or b"", re.MULTILINE) is not None


def _row(row: Adopted) -> dict[str, Any]:
    verdict = row.moved.verdict.to_json() if row.moved is not None else {}
    return {
        "commit": row.commit.id,
        "subject": row.commit.subject,
        "outcome": row.outcome,
        "detail": row.detail,
        "notes": list(row.notes),
        "name": row.name,
        "verdict": verdict.get("verdict"),
        "evidence": [*verdict.get("evidence", []), *(_shown(one) for one in row.history)],
        "hunks": verdict.get("hunks", []),
    }


def _shown(one: Evidence) -> dict[str, Any]:
    return {**asdict(one), "layer": one.layer.value}


def _lines(row: Adopted) -> list[str]:
    detail = f"  ({row.detail})" if row.detail else ""
    what = row.name or row.commit.subject
    lines = [f"  {row.outcome:11} {row.commit.id[:12]} {what}{detail}"]
    if row.outcome == "landed" and row.moved is not None:
        shown = [*row.moved.verdict.evidence[:3], *row.history]
        lines += [f"    {one.layer.value:9} {one.says}" for one in shown]
    return [*lines, *(f"    note      {note}" for note in row.notes)]
