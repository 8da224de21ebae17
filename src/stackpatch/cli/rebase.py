"""`stackpatch rebase`: a series on a new upstream version."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, OfflineOption, RootOption
from stackpatch.errors import FindingError, InputError, WaitingError

if TYPE_CHECKING:
    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
    from stackpatch.series.pick import Move
    from stackpatch.series.rebase import Rebase
    from stackpatch.series.rebase_state import State
    from stackpatch.sources.store import Stored


class _Step(StrEnum):
    """What the person asked of a rebase under way."""

    CONTINUE = "--continue"
    SKIP = "--skip"
    ABORT = "--abort"
    RESTART = "--restart"
    STATUS = "--status"


def command(
    stack: Annotated[str, typer.Argument(metavar="STACK[@RELEASE]", help="Whose series.")],
    *,
    onto: Annotated[
        str | None,
        typer.Option("--onto", metavar="REF", help="Upstream version to move the series to."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Report what would happen; change nothing. Without --onto: onto the newest.",
        ),
    ] = False,
    continue_: Annotated[
        bool, typer.Option("--continue", help="Take the work tree as resolved and go on.")
    ] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Drop the waiting patch and go on.")] = False,
    abort: Annotated[
        bool, typer.Option("--abort", help="End the rebase; nothing changes.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Begin again from the start.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show where it stands.")] = False,
    history: Annotated[
        bool, typer.Option("--history", help="Fetch upstream's whole git history first.")
    ] = False,
    offline: OfflineOption = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Move a series onto another upstream version."""
    from stackpatch.cli.progress import reporting
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.storage import lock

    asked = {
        _Step.CONTINUE: continue_,
        _Step.SKIP: skip,
        _Step.ABORT: abort,
        _Step.RESTART: restart,
        _Step.STATUS: status,
    }
    steps = [step for step, wanted in asked.items() if wanted]
    if len(steps) + (onto is not None or dry_run) != 1:
        msg = "say one of --onto REF, --continue, --skip, --abort, --restart, --status"
        hint = "--dry-run goes with --onto; alone it tries the newest version"
        raise InputError(msg, hint=hint)
    work = open_workspace(stack, root, offline=offline)
    folder = work.root.path if dry_run else work.writable()
    home = folder / ".stackpatch" / "rebase" / work.recipe.stack
    with reporting() as report:
        if history:
            work.fetch_history()
        if dry_run:
            state, target = _dry_run(work, onto, report)
            _tell(work, state, target, None, json=json, dry=True)
            return
        _own_folder(folder)
        guard = lock(
            home.parent / f"{work.recipe.stack}.lock",
            wait=0.2,
            what=f"another rebase of {work.recipe.stack}",
        )
        with guard:
            if onto is not None:
                _begin(work, home, onto, report, json=json)
            else:
                _go_on(work, home, steps[0], report, named="@" in stack, json=json)


def _own_folder(folder: Path) -> None:
    """`.stackpatch/` is nobody's business but ours: git is told so."""
    from stackpatch.storage import write_atomically

    ignore = folder / ".stackpatch" / ".gitignore"
    if not ignore.exists():
        write_atomically(ignore, b"*\n")


def _rebase(work: Workspace, home: Path) -> Rebase:
    from stackpatch.series.rebase import Rebase

    return Rebase(home, work.store.objects, work.series, tuple(work.recipe.archs))


def _dry_run(work: Workspace, onto: str | None, report: Report) -> tuple[State, Stored]:
    from stackpatch.model.reference import VersionRef
    from stackpatch.series.rebase import advance
    from stackpatch.series.rebase_state import State

    target = work.newest(report) if onto is None else work.resolve(VersionRef.parse(onto), report)
    base = work.base(report, like=target)
    _refuse_home(work, base, target)
    work.on_base(base)
    state = State(
        work.recipe.stack,
        work.release.version,
        target.label,
        target.tree,
        work.series.digest,
        target.tree,
        (),
        origin=base.tree,
    )
    patches, covers = work.series.patches, work.covers(target)
    archs = tuple(work.recipe.archs)
    return advance(work.store.objects, state, patches, covers=covers, archs=archs), target


def _refuse_home(work: Workspace, base: Stored, target: Stored) -> None:
    """A series stays where it is. Another version with the same tree is another release."""
    from stackpatch.model.reference import version_number

    if target.tree == base.tree and version_number(target.version) in (
        None,
        version_number(base.version),
    ):
        msg = f"{work.recipe.stack} {work.release.version} is on {target.label} already"
        raise InputError(msg, hint="name another version with --onto")


def _begin(work: Workspace, home: Path, onto: str, report: Report, *, json: bool) -> None:
    from stackpatch.model.reference import VersionRef

    target = work.resolve(VersionRef.parse(onto), report)
    base = work.base(report, like=target)
    _refuse_home(work, base, target)
    rebase = _rebase(work, home)
    state = rebase.state()
    if state is not None and _same_rebase(work, state, target):
        # The same command again, after a kill or for another look: it goes on where it stands.
        _restore(work, rebase, state, base)
        _proceed(work, rebase, state, target, json=json)
        return
    _check_free(work, target)
    work.on_base(base)
    state = rebase.start(
        work.recipe.stack,
        work.release.version,
        target.label,
        target.tree,
        origin=base.tree,
        covers=work.covers(target),
    )
    _settle(work, rebase, state, target, json=json)


def _restore(work: Workspace, rebase: Rebase, state: State, base: Stored) -> None:
    """What an earlier run put into the store, where the store was cleared since."""
    rebase.restore(state)
    work.on_base(base)


def _same_rebase(work: Workspace, state: State, target: Stored) -> bool:
    return (
        state.release == work.release.version
        and state.series == work.series.digest
        and state.onto == target.label
        and state.onto_tree == target.tree
    )


def _proceed(work: Workspace, rebase: Rebase, state: State, target: Stored, *, json: bool) -> None:
    """Go on with a rebase that was killed; one that waits for a person waits on."""
    if state.waiting is None:
        state = rebase.proceed(state, covers=work.covers(target))
    elif not rebase.worktree.exists():
        rebase.reopen(state)
    _settle(work, rebase, state, target, json=json)


def _go_on(
    work: Workspace, home: Path, step: _Step, report: Report, *, named: bool, json: bool
) -> None:
    """Do a step of the rebase under way. named: whether the person said of which release."""
    from stackpatch.model.reference import VersionRef

    if step is _Step.ABORT:
        _abort(work, home, json=json)
        return
    rebase = _rebase(work, home)
    state = rebase.state()
    if state is None:
        msg = f"no rebase of {work.recipe.stack} is under way"
        raise InputError(msg, hint="begin one with --onto REF")
    if state.release != work.release.version and not named:
        work = work.at(state.release)
        rebase = _rebase(work, home)
    if state.release != work.release.version:
        msg = f"the rebase under way is of {work.recipe.stack}@{state.release}"
        raise InputError(
            msg, hint=f"name it: stackpatch rebase {work.recipe.stack}@{state.release}"
        )
    target = work.resolve(VersionRef.parse(state.onto), report)
    if target.tree != state.onto_tree and step is not _Step.RESTART:
        msg = f"{state.onto} is not what it was when the rebase began"
        raise FindingError(msg, hint="--restart begins anew, --abort ends it")
    if step is not _Step.RESTART:
        _restore(work, rebase, state, work.base(report, like=target))
    covers = work.covers(target)
    match step:
        case _Step.STATUS:
            _tell(work, state, target, rebase.worktree, json=json, dry=False)
        case _Step.RESTART:
            rebase.forget()
            _begin(work, home, state.onto, report, json=json)
        case _Step.CONTINUE:
            if state.waiting is None:  # a kill came between the last patch and the new series
                state = rebase.proceed(state, covers=covers)
            else:
                state = rebase.resume(state, covers=covers)
            _settle(work, rebase, state, target, json=json)
        case _Step.SKIP:
            state = rebase.skip(state, covers=covers)
            _settle(work, rebase, state, target, json=json)


def _abort(work: Workspace, home: Path, *, json: bool) -> None:
    """End it. That needs neither series nor store nor a readable state: it is always possible."""
    from stackpatch.cli.release import left_behind
    from stackpatch.series.rebase import forget
    from stackpatch.series.rebase_state import State

    text = "no rebase was under way"
    if home.exists():
        text = "the rebase is gone; recipes and patches are as they were"
        try:
            onto = State.from_json((home / "state.json").read_bytes(), "").onto
        except (OSError, InputError):
            onto = ""
        if (left := left_behind(work, onto)) is not None:
            text = f"the rebase is gone; no release names {left}: look at it, then remove it"
    forget(home)
    document = {"stack": work.recipe.stack, "outcome": "aborted", "patches": []}
    output.emit("rebase", document, text, json=json)


def _check_free(work: Workspace, target: Stored) -> None:
    """The new series must not take another one's place; found out before any work is done."""
    from stackpatch.cli.release import release_number
    from stackpatch.model.reference import version_number

    number = release_number(target)
    known = next((r for r in work.recipe.releases if version_number(r.version) == number), None)
    if known is not None and known.series is not None:
        msg = f"{work.recipe.stack} {number} already has the series {known.series}"
        raise InputError(msg, hint="--dry-run compares; remove that series to make it anew")


def _settle(work: Workspace, rebase: Rebase, state: State, target: Stored, *, json: bool) -> None:
    """Write the new series and release when everything moved; else tell what waits."""
    if state.waiting is not None:
        _tell(work, state, target, rebase.worktree, json=json, dry=False)
        return
    from stackpatch.cli.release import write_release

    where = write_release(work, state, target)
    rebase.forget()
    _tell(work, state, target, None, json=json, dry=False, series=where)


def _tell(
    work: Workspace,
    state: State,
    target: Stored,
    worktree: Path | None,
    *,
    json: bool,
    dry: bool,
    series: Path | None = None,
) -> None:
    waiting = state.waiting
    stopped = waiting is None and series is None and not dry  # by a kill, or before the end
    rows = [_row(one) for one in state.moves]
    rows += [
        {"name": patch.name, "outcome": "pending", "detail": "", "hunks": []}
        for patch in work.series.patches[len(state.moves) :]
    ]
    document: dict[str, Any] = {
        "stack": state.stack,
        "from": state.release,
        "onto": state.onto,
        "outcome": "conflict" if waiting else "stopped" if stopped else "clean",
        "patches": rows,
        "series": None if series is None else str(series),
        "worktree": None if waiting is None or worktree is None else str(worktree),
        "dry_run": dry,
        "conflict": None,
    }
    lines = [f"{state.stack} {state.release} onto {state.onto}"]
    lines += [
        f"  {row['outcome']:10} {row['name']}" + (f"  ({row['detail']})" if row["detail"] else "")
        for row in rows
    ]
    failure: WaitingError | FindingError | None = None
    if waiting is not None:
        from stackpatch.cli.conflict import describe

        document["conflict"], told = describe(work, state, target)
        lines += ["", *told]
        if dry:
            failure = FindingError(f"{waiting} needs a person", hint="run it without --dry-run")
        else:
            hint = f"edit {worktree}, then: stackpatch rebase {state.stack} --continue (or --skip)"
            failure = WaitingError(f"{waiting} needs a person", hint=hint)
    elif stopped:
        msg = "no patch waits, but the new series is not written"
        hint = f"stackpatch rebase {state.stack} --continue goes on, --abort ends it"
        failure = WaitingError(msg, hint=hint)
    elif series is not None:
        lines.append(f"  series     {series}")
    output.emit("rebase", document, lines, json=json, failure=failure)


def _row(one: Move) -> dict[str, Any]:
    return {
        "name": one.name,
        "outcome": one.outcome.value,
        "detail": one.detail,
        "verdict": one.verdict.word.value,
        "evidence": one.verdict.to_json()["evidence"],
        "hunks": one.verdict.to_json()["hunks"],
    }
