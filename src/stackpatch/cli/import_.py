"""`stackpatch import`: a fork's branch, or a pull request, as a series."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, RootOption
from stackpatch.errors import FindingError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.cli.origin import Origin
    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
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
    from stackpatch.cli.import_told import told
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
    document, lines = told(work, origin, found, rows, where, problem, dry=dry_run)
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
        from stackpatch.series.adopt import Target, Wish, adopt, choose
        from stackpatch.series.history import search

        work, objects = self.work, self.work.store.objects
        base = work.base(self.report)
        result = work.on_base(base)
        self.release_tree, self._start = base.tree, result.tree
        commits = found.commits
        left_out = choose(commits, leave_out)
        if squash and commits:
            commits = (_whole(found, left_out),)
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


def _whole(found: Foreign, left_out: frozenset[str]) -> Commit:
    """The branch as one commit. Raises InputError where it cannot be one."""
    from stackpatch.series.adopt import squashed

    if left_out:
        msg = "--squash takes the branch whole, and --leave-out takes commits out of it"
        raise InputError(msg, hint="say one of them")
    if found.merged is None:
        msg = "the branch's work stands on several commits at once; it cannot be one patch"
        raise InputError(msg, hint="leave --squash out")
    return squashed(found.commits[-1], found.merged, found.commits)
