"""`stackpatch upstream`: has each patch been upstreamed, and what shows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, OfflineOption, RootOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
    from stackpatch.errors import EnvironmentProblem
    from stackpatch.model.patch import Patch
    from stackpatch.model.verdict import Verdict
    from stackpatch.sources.store import Stored
    from stackpatch.sources.tracker import LinkState, Tracker
    from stackpatch.sources.watch import Trigger


def command(
    stack: Annotated[str, typer.Argument(metavar="STACK[@RELEASE]", help="Whose series.")],
    *,
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="REF",
            help="Upstream version to judge at; may be repeated. Without one, the newest.",
            show_default=False,
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Fetch upstream's whole git history first.")
    ] = False,
    offline: OfflineOption = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Say whether each patch has been upstreamed, with the evidence."""
    from stackpatch.cli.progress import reporting
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.errors import EnvironmentProblem
    from stackpatch.sources.tracker import Tracker
    from stackpatch.sources.watch import index_versions, triggers
    from stackpatch.storage import cache_root

    work = open_workspace(stack, root, offline=offline)
    with reporting() as report:
        if history:
            work.fetch_history()
        tracker = Tracker(cache_root() / "links.json", offline=offline)
        reports: list[tuple[dict[str, Any], list[str]]] = []
        failure = None
        names: Sequence[str | None] = at or [None]
        for name in names:
            try:
                target, unknown = _target(work, name, report)
                failure = failure or unknown
                base = work.base(report, like=target)
                work.on_base(base)
                reports.append(_judge(work, base, target, tracker))
            except EnvironmentProblem as error:
                # No sources, no verdict; other versions, and what the recipe waits for, are asked
                # for at other places.
                if name is not None:
                    output.warn(f"{name}: not judged: {error.message}")
                failure = failure or error
        watched = triggers(work.recipe, tracker, index_versions(offline=offline))
        tracker.save()
    if failure is not None and not (reports or watched):
        raise failure
    documents = [document for document, _ in reports]
    texts = [line for _, lines in reports for line in lines]
    texts = texts or [f"{work.recipe.stack} {work.release.version}: not judged"]
    revisit = [_trigger(one) for one in watched]
    texts += [line for one in watched for line in _trigger_lines(one)]
    document = {**_together(work, documents), "revisit": revisit}
    output.emit("upstream", document, texts, json=json, failure=failure)


def _together(work: Workspace, documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One document: `at` is a label, or with several versions a list; each row says its own.

    Where nothing could be judged, `at` is null and there are no rows.
    """
    labels = [document["at"] for document in documents]
    rows = [{**row, "at": one["at"]} for one in documents for row in one["patches"]]
    match labels:
        case []:
            at = None
        case [only]:
            at = only
        case _:
            at = labels
    return {
        "stack": work.recipe.stack,
        "release": work.release.version,
        "at": at,
        "patches": rows,
    }


def _target(
    work: Workspace, name: str | None, report: Report
) -> tuple[Stored, EnvironmentProblem | None]:
    """Where to judge. With an error: the newest version cannot be had, and this is the newest that
    the store has."""
    from stackpatch.errors import EnvironmentProblem
    from stackpatch.model.reference import VersionRef

    if name is not None:
        return work.resolve(VersionRef.parse(name), report), None
    try:
        return work.newest(report), None
    except EnvironmentProblem as error:
        stored = work.newest_stored()
        if stored is None:
            raise
        output.warn(f"judged at the newest version in the store, {stored.label}")
        return stored, error


def _judge(
    work: Workspace, base: Stored, target: Stored, tracker: Tracker
) -> tuple[dict[str, Any], list[str]]:
    from stackpatch.cli.workspace import one_each
    from stackpatch.model.verdict import Word
    from stackpatch.series.history import search
    from stackpatch.series.landed import examine
    from stackpatch.sources.store import version_key

    objects = work.store.objects
    tree = target.tree
    both_git = base.kind.value == target.kind.value == "git"
    rows: list[dict[str, Any]] = []
    lines = [f"{work.recipe.stack} {work.release.version} at {target.label}"]
    between = [
        stored
        for stored in one_each(work.store.versions())
        if version_key(base.version) <= version_key(stored.version) <= version_key(target.version)
    ]
    memo = work.memo()
    for patch in work.series.patches:
        home = work.recipe.upstream.git
        history = search(objects, base.commit, target.commit, patch, home=home) if both_git else ()
        found = examine(
            objects,
            tree,
            patch,
            origin=base.tree,
            history=history,
            covers=work.covers(target),
        )
        if found.verdict.word is Word.NEEDED:
            tree = found.applied.tree
        since = _Since(None, None)
        if found.verdict.word is Word.UPSTREAMED:
            since = _since(work, base, patch, between)
        links = [tracker.state(url) for url in patch.trailers.links]
        meant = patch.trailers.meant_for(target.version)
        rows.append({**_row(patch, found.verdict, since, links), "meant": meant})
        lines += _lines(patch, found.verdict, since, links, meant=meant)
    memo.save()
    return {"at": target.label, "patches": rows}, lines


@dataclass(frozen=True, slots=True)
class _Since:
    """first: the first version in the store that has it. before: the one in the store before that,
    where it is surely not there; of those between the two nothing is known."""

    first: str | None
    before: str | None


def _since(work: Workspace, base: Stored, patch: Patch, between: Sequence[Stored]) -> _Since:
    """The first of the versions in the store from which on every later one has it."""
    from stackpatch.model.verdict import Word

    memo = work.memo()
    first = before = None
    for stored in between:
        found = memo.examine(
            work.store.objects,
            stored.tree,
            patch,
            origin=base.tree,
            covers=work.covers(stored),
        )
        if found.verdict.word is Word.UPSTREAMED:
            first = first or stored.version
        else:
            absent = found.verdict.word in (Word.NEEDED, Word.CONFLICT)
            first, before = None, stored.version if absent else None
    memo.save()
    return _Since(first, before if first else None)


def _row(
    patch: Patch, verdict: Verdict, since: _Since, links: Sequence[LinkState]
) -> dict[str, Any]:
    return {
        "name": patch.name,
        "subject": patch.subject,
        **verdict.to_json(),
        "since": since.first,
        "since_after": since.before,
        "links": [
            {
                "url": link.url,
                "state": link.state.value,
                "title": link.title,
                "checked": link.checked.isoformat() if link.checked else None,
                "why": link.why,
            }
            for link in links
        ],
    }


def _lines(
    patch: Patch,
    verdict: Verdict,
    since: _Since,
    links: Sequence[LinkState],
    *,
    meant: bool | None,
) -> list[str]:
    now = datetime.now(UTC)
    landed = f", first in {since.first} of the versions in the store" if since.first else ""
    landed += f", not in {since.before}" if since.before else ""
    lines = ["", f"{patch.name}", f"  {verdict.word.value}: {verdict.detail}{landed}"]
    if meant is False:
        lines.append(f"  not meant for this version: Applies-To: {patch.trailers.applies_to}")
    for piece in verdict.evidence:
        place = ":".join(str(part) for part in (piece.path, piece.line) if part is not None)
        symbol = f" in {piece.symbol}" if piece.symbol else ""
        text = f": {piece.text}" if piece.text and piece.text not in piece.says else ""
        where = f" [{place}{symbol}]" if place else ""
        lines.append(f"    {piece.layer.value:9} {piece.says}{text}{where}")
    if len({hunk.state for hunk in verdict.hunks}) > 1:
        lines += [
            f"    hunk      {hunk.state}: line {hunk.line} of the patch"
            f" [{hunk.path}{f' in {hunk.symbol}' if hunk.symbol else ''}]"
            for hunk in verdict.hunks
        ]
    for link in links:
        why = f"; {link.why}" if link.why else ""
        lines.append(f"    link      {link.url}: {link.state.value} ({link.age(now)}{why})")
    return lines


def _trigger(one: Trigger) -> dict[str, Any]:
    return {
        "why": one.why,
        "issue": one.subject,
        "revisit": one.due.value,
        "evidence": [seen.to_json() for seen in one.evidence],
    }


def _trigger_lines(one: Trigger) -> list[str]:
    at = f" [{one.subject}]" if one.subject else ""
    lines = ["", f"revisit: {one.due.value}: {one.why}{at}"]
    words = {True: "yes", False: "no", None: "unknown"}
    return lines + [
        f"    {words[seen.holds]:9} {seen.what} {seen.subject}: {seen.says}"
        for seen in one.evidence
    ]
