"""`stackpatch import`: a fork's branch, or a pull request, as a series."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, RootOption
from stackpatch.errors import FindingError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.cli.origin import Origin
    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.verdict import Evidence
    from stackpatch.series.adopt import Adopted
    from stackpatch.sources.forks import Commit, Foreign


def command(
    stack: Annotated[str, typer.Argument(metavar="STACK[@RELEASE]", help="Into whose series.")],
    *,
    from_fork: Annotated[
        str | None,
        typer.Option("--from-fork", metavar="URL", help="Repository of a fork of the upstream."),
    ] = None,
    branch: Annotated[
        str | None, typer.Option("--branch", metavar="B", help="The fork's branch.")
    ] = None,
    from_pr: Annotated[
        str | None,
        typer.Option(
            "--from-pr", metavar="URL", help="A pull request, https://github.com/O/R/pull/N."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="COMMIT|TAG",
            help="Upstream commit that the work starts from; without it, found out by git.",
        ),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option("--release", metavar="VERSION", help="The release whose series it becomes."),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="TEXT",
            help='Upstream-Status of every new patch: Pending, "Submitted [URL]". Without it, '
            "asked for on a terminal, else left to lint.",
        ),
    ] = None,
    squash: Annotated[
        bool, typer.Option("--squash", help="One patch of the whole branch, not one a commit.")
    ] = False,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            "--leave-out",
            metavar="COMMIT",
            help="Commit that becomes no patch, or merge whose own changes are not wanted; may be "
            "repeated.",
            show_default=False,
        ),
    ] = None,
    skip_path: Annotated[
        list[str] | None,
        typer.Option(
            "--skip-path",
            metavar="PATH",
            help="File or folder of the git tree whose changes are not imported; may be repeated.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would be written; change nothing.")
    ] = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Turn a fork's commits or a pull request into a series."""
    from stackpatch.cli import imported
    from stackpatch.cli.origin import find_origin
    from stackpatch.cli.progress import reporting
    from stackpatch.cli.workspace import open_workspace

    _check_status(status)
    for path in skip_path or []:
        _check_path(path)
    if release is not None:
        named = stack.partition("@")[2]
        if named and named != release:
            msg = f"two releases: {named} and --release {release}"
            raise InputError(msg, hint="say one of them")
        stack = f"{stack.partition('@')[0]}@{release}"
    work = open_workspace(stack, root)
    with reporting() as report, imported.guard(work, dry_run=dry_run):
        work = open_workspace(stack, root)  # what an interrupted run left has been finished now
        origin = find_origin(
            work, from_fork, branch, from_pr, base=base, named=release is not None or "@" in stack
        )
        if origin.release != work.release.version:
            work = open_workspace(f"{work.recipe.stack}@{origin.release}", root)
        run = _Run(work, origin, report, status, json=json)
        found = run.bring(base)
        rows, tree = run.adopt(found, squash, leave_out or [], skip_path or [])
        problem = run.lost(found, rows, tree, skip_path or [])
        stopped = [row for row in rows if row.stops]
        where = None
        failure = _failure(stopped, problem)
        if failure is None and not dry_run:
            if any(row.mail is not None for row in rows):
                rows = run.ask(rows)
            where = imported.write(work, origin, found, rows, (run.release_tree, tree))
    document, lines = _told(work, origin, found, rows, where, problem, dry=dry_run)
    output.emit("import", document, lines, json=json, failure=failure)


def _check_status(status: str | None) -> None:
    from stackpatch.model.trailers import parse_trailers

    if status is not None:
        _, problems = parse_trailers(f"Upstream-Status: {status}")
        if problems:
            msg = f"--status: {problems[0][1].partition(': ')[2]}"
            raise InputError(msg)


def _check_path(path: str) -> None:
    from stackpatch.model.git_path import unsafe

    if wrong := unsafe(path.removesuffix("/")):
        msg = f"--skip-path {path}: {wrong}"
        raise InputError(msg, hint="write it as it stands in the git tree, like tests/unit")


def _failure(stopped: Sequence[Adopted], problem: str | None) -> FindingError | None:
    if stopped:
        count = len(stopped)
        msg = f"{count} commit{'s' * (count != 1)} cannot be taken as they are; nothing was written"
        hint = "change the branch, or leave single commits out with --leave-out COMMIT"
        return FindingError(msg, hint=hint)
    if problem is not None:
        return FindingError(problem, hint="nothing was written; --squash takes the branch whole")
    return None


class _Run:
    """One import: what all its steps need."""

    def __init__(
        self, work: Workspace, origin: Origin, report: Report, status: str | None, *, json: bool
    ) -> None:
        self.work = work
        self.origin = origin
        self.report = report
        self.status = status
        self._json = json
        self.release_tree = self._start = ""

    def bring(self, base: str | None) -> Foreign:
        """The foreign commits in the store."""
        from stackpatch.sources.forks import bring

        origin, work = self.origin, self.work
        label = f"git fetch {origin.ref.removeprefix('refs/')}"
        return bring(
            work.store,
            origin.url,
            origin.ref,
            upstream=work.recipe.upstream.git,
            release=work.release.commit,
            base=base,
            since=None if base is not None else origin.since,
            progress=lambda done, total: self.report(label, done, total),
        )

    def adopt(
        self, found: Foreign, squash: bool, leave_out: Sequence[str], skipped: Sequence[str]
    ) -> tuple[tuple[Adopted, ...], str]:
        """Every commit on the release and the series that it has."""
        from stackpatch.series.adopt import Target, Wish, adopt, choose, squashed
        from stackpatch.series.history import search

        work, objects = self.work, self.work.store.objects
        base = work.base(self.report)
        result = work.on_base(base)
        self.release_tree, self._start = base.tree, result.tree
        commits = found.commits
        left_out = choose(commits, leave_out)
        if squash and commits:
            commits = (_squash(found, squashed, left_out),)
        pinned = work.release.commit
        target = Target(
            result.tree,
            base.tree,
            work.covers(base),
            (lambda patch: search(objects, found.base, pinned, patch))
            if pinned is not None and objects.has(pinned)
            else lambda _: (),
        )
        numbers = [int(patch.name[:4]) for patch in work.series.patches if patch.name[:4].isdigit()]
        wish = Wish(
            lambda commit: self._trailers(commit, found, skipped),
            left_out,
            tuple(skipped),
            max(numbers, default=0) + 1,
        )
        return adopt(objects, commits, target, wish)

    def _trailers(
        self, commit: Commit, found: Foreign, skipped: Sequence[str]
    ) -> list[tuple[str, str]]:
        from stackpatch.series.mail import status_of

        trailers = []
        status = self.status or self.origin.status
        if status is not None and status_of(commit) is None:
            trailers.append(("Upstream-Status", status))
        without = f", without {' '.join(skipped)}" if skipped else ""
        said = self.origin.trailer(commit.id, found.head)
        return [*trailers, ("Origin", f"{said}{without}")]

    def lost(
        self, found: Foreign, rows: Sequence[Adopted], tree: str, skipped: Sequence[str]
    ) -> str | None:
        """Where all of a branch was taken on its own base, the tree must be the branch's."""
        objects = self.work.store.objects
        if (
            not found.commits
            or found.merged != found.base
            or self._start != objects.tree_of(found.base)
            or skipped
            or any(row.stops or row.outcome in ("left-out", "landed") for row in rows)
            or tree == objects.tree_of(found.head)
        ):
            return None
        return "the patches, one after the other, do not give the tree that the branch has"

    def ask(self, rows: tuple[Adopted, ...]) -> tuple[Adopted, ...]:
        """The trailers that nobody gave, from the person at the terminal; else nothing."""
        from stackpatch.cli import asking, terminal

        watched = terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stderr)
        if self.status is not None or self._json or not watched:
            return rows
        return asking.ask(self.work.store.objects, rows, self._start)


def _squash(found: Foreign, squashed: Any, left_out: frozenset[str]) -> Commit:
    if left_out:
        msg = "--squash takes the branch whole, and --leave-out takes commits out of it"
        raise InputError(msg, hint="say one of them")
    if found.merged is None:
        msg = "the branch's work stands on several commits at once; it cannot be one patch"
        raise InputError(msg, hint="leave --squash out")
    made: Commit = squashed(found.commits[-1], found.merged, found.commits)
    return made


def _told(
    work: Workspace,
    origin: Origin,
    found: Foreign,
    rows: Sequence[Adopted],
    where: Path | None,
    problem: str | None,
    *,
    dry: bool,
) -> tuple[dict[str, Any], list[str]]:
    from stackpatch.sources.forks import relation

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
    words = {
        "same": "which is the release's",
        "before": "which is before the release",
        "after": "which is after the release",
        "beside": "which is neither before nor after the release",
        "unknown": "and how the release stands to it is not known: it has no history here",
    }
    lines = [
        f"{origin.shown} at {found.head[:12]} into {work.recipe.stack} {work.release.version}",
        f"it starts from upstream's {base[:12]}, {words[stands]}",
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
