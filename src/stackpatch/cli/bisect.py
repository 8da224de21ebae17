"""`stackpatch bisect`: the first upstream version at which a command fails."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, OfflineOption, RootOption
from stackpatch.errors import FindingError, InputError
from stackpatch.series.bisect import Found, Result, bisect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.patch import Patch
    from stackpatch.model.series import Series
    from stackpatch.sources.store import Stored

# `git bisect run`'s own: pass over this version. What could not be run judges nothing.
_SKIP = 125
_NOT_RUN = (126, 127)
_SIGNALS = 128


def command(
    stack: Annotated[str, typer.Argument(metavar="STACK[@RELEASE]", help="Whose series.")],
    words: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="Run in each patched tree.")
    ],
    *,
    good: Annotated[str, typer.Option("--good", metavar="REF", help="Version where it passes.")],
    bad: Annotated[str, typer.Option("--bad", metavar="REF", help="Later version where it fails.")],
    arch: Annotated[
        str | None,
        typer.Option("--arch", metavar="ARCH", help="Only the patches for this arch."),
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            "--leave-out",
            metavar="PATCH",
            help="A patch that is not needed for the command, such as 0005; may be repeated.",
            show_default=False,
        ),
    ] = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Find the first upstream version at which a command fails, the series moved to each.

    The command runs in a folder with the patched tree, with JIT caches of its own. Exit status 0
    is good, 125 passes the version over, up to 124 is bad; what is killed or cannot be run ends
    the search. A release of the recipe gets its own series. A version where the series conflicts
    is passed over.
    """
    from stackpatch.cli.progress import reporting
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.model.arch import parse_arch

    program = shutil.which(words[0])
    if program is None:
        msg = f"{words[0]} is not installed or not on PATH"
        raise InputError(msg, hint="the command stands behind `--`")
    work = open_workspace(stack, root, offline=offline)
    chosen = parse_arch(arch).name if arch is not None else None
    if chosen is not None:
        work.recipe.arch(chosen)
    left_out = frozenset(_patch(work, name).subject for name in leave_out or ())
    with reporting() as report:
        versions = _versions(work, good, bad, report)
        base = work.base(report)
    work.on_base(base)
    # `./test.sh` is meant from here, and runs in the tree.
    argv = [str(Path(program).absolute()) if "/" in words[0] else words[0], *words[1:]]
    trial = _Trial(work, base, versions, argv, chosen, left_out)
    found = bisect(len(versions), trial.test)
    document = {
        "stack": work.recipe.stack,
        "release": work.release.version,
        "arch": chosen,
        "command": words,
        "good": versions[0],
        "bad": versions[-1],
        "first_bad": _name(versions, found.first_bad),
        "last_good": _name(versions, found.low),
        "untested": [versions[one] for one in found.between],
        "steps": trial.steps,
    }
    failure = _failure(versions, found, trial.steps)
    output.emit("bisect", document, _text(versions, found, trial), json=json, failure=failure)


@dataclass(frozen=True, slots=True)
class _Patched:
    """A version with a series. rows: what became of each patch, the one that stops it last.
    tree: None where one does."""

    series: str
    rows: list[dict[str, str]]
    tree: str | None


@dataclass
class _Trial:
    """Runs the command at versions and keeps what came of it."""

    work: Workspace
    base: Stored
    versions: Sequence[str]
    words: Sequence[str]
    arch: str | None
    left_out: frozenset[str]  # by subject: another release's series may number them otherwise
    steps: list[dict[str, Any]] = field(default_factory=list)
    outcomes: dict[str, dict[str, str]] = field(default_factory=dict)

    def test(self, number: int) -> Result:
        """Move the series, write the tree, run the command. Raises FindingError where the command
        neither passes nor fails."""
        from stackpatch.cli.progress import reporting

        version = self.versions[number]
        with reporting() as report:
            target = self.work.bring(version, report)
        patched = self._patched(target)
        self.outcomes[version] = {one["name"]: one["outcome"] for one in patched.rows}
        step: dict[str, Any] = {
            "version": version,
            "source": target.label,
            "series": patched.series,
            "patches": patched.rows,
        }
        self.steps.append(step)
        if patched.tree is None:
            step |= {"result": Result.UNTESTED.value, "status": None, "seconds": None}
            step["why"] = f"{patched.rows[-1]['name']}: {patched.rows[-1]['detail']}"
            output.note(f"{version}: untested, {step['why']}")
            return Result.UNTESTED
        status, seconds = self._run(target, patched.tree)
        step |= {"status": status, "seconds": round(seconds, 3)}
        result, why = _judge(status)
        step |= {"result": result.value if result else None, "why": why}
        output.note(f"{version}: {result.value if result else 'no answer'}, {why}")
        if result is None:
            msg = f"at {version} the command gave no answer: {why}"
            hint = "0 is good, 1 to 124 bad, 125 passes over: `sh -c 'COMMAND || exit 1'` says so"
            raise FindingError(msg, hint=hint)
        return result

    def _patched(self, target: Stored) -> _Patched:
        """The version with its own series where the recipe has one, else with ours moved to it."""
        from stackpatch.model.reference import version_number
        from stackpatch.series.apply import apply_series
        from stackpatch.series.rebase import advance
        from stackpatch.series.rebase_state import State

        objects = self.work.store.objects
        number = version_number(target.version)
        for release in self.work.recipe.releases:
            if release.series is not None and release.version == number:
                own = self.work.at(release.version).series
                patches = [one for one in self._for_arch(own).patches if not self._left_out(one)]
                result = apply_series(objects, target.tree, patches, among=own.patches)
                rows = [
                    {
                        "name": one.patch.name,
                        "outcome": "own" if one.applied else "conflict",
                        "detail": "; ".join(f.detail for f in one.failures),
                    }
                    for one in result.results
                ]
                rows.sort(key=lambda row: row["outcome"] == "conflict")
                return _Patched(own.where, rows, result.tree if result.applied else None)
        series = self._for_arch(self.work.series)
        state = State(
            self.work.recipe.stack,
            self.work.release.version,
            target.label,
            target.tree,
            series.digest,
            target.tree,
            (),
            origin=self.base.tree,
        )
        patches = [one for one in series.patches if not self._left_out(one)]
        state = advance(objects, state, patches, covers=self.work.covers(target))
        rows = [
            {"name": one.name, "outcome": one.outcome.value, "detail": one.detail}
            for one in state.moves
        ]
        return _Patched(series.where, rows, None if state.waiting is not None else state.tree)

    def _for_arch(self, series: Series) -> Series:
        return series if self.arch is None else series.for_arch(self.arch)

    def _left_out(self, patch: Patch) -> bool:
        return patch.subject in self.left_out

    def _run(self, target: Stored, patched: str) -> tuple[int, float]:
        from stackpatch import proc
        from stackpatch.installed.private import private_caches
        from stackpatch.sources.checkout import write_tree

        with tempfile.TemporaryDirectory(prefix="stackpatch-bisect-") as folder:
            tree = Path(folder, "tree")
            write_tree(self.work.store.objects, patched, tree)
            env = {
                **private_caches(Path(folder, "caches")),
                "STACKPATCH_STACK": self.work.recipe.stack,
                "STACKPATCH_VERSION": target.version,
                "STACKPATCH_TREE": str(tree),
            }
            began = time.monotonic()
            status = proc.follow(self.words, output.note, cwd=tree, env=env)
            return status, time.monotonic() - began


def _patch(work: Workspace, name: str) -> Patch:
    """The one patch of the series whose file name begins so. Raises InputError for none or two."""
    meant = [one for one in work.series.patches if one.name.startswith(name)]
    if len(meant) != 1:
        what = "several patches" if meant else "no patch"
        msg = f"--leave-out {name}: {what} of {work.series.where} begins so"
        known = ", ".join(one.name for one in work.series.patches)
        raise InputError(msg, hint=f"it has {known}")
    return meant[0]


def _judge(status: int) -> tuple[Result | None, str]:
    """What an exit status says; None where it says nothing of the version."""
    if status == 0:
        return Result.GOOD, "exit status 0"
    if status == _SKIP:
        return Result.UNTESTED, "exit status 125: the command passes it over"
    if status < 0:
        return None, f"it was ended by signal {-status}"
    if status in _NOT_RUN:
        return None, f"exit status {status}: something could not be run"
    if status >= _SIGNALS:
        return None, f"exit status {status}, as of a program that a signal ended"
    return Result.BAD, f"exit status {status}"


def _versions(work: Workspace, good: str, bad: str, report: Report) -> list[str]:
    """The version numbers from good to bad, oldest first; release candidates only as the ends.

    Raises InputError for ends that are no version numbers or in the wrong order.
    """
    from packaging.version import Version

    from stackpatch.model.reference import VersionRef, version_number
    from stackpatch.sources.releases import index_versions

    ends = []
    for option, name in (("--good", good), ("--bad", bad)):
        number = version_number(work.resolve(VersionRef.parse(name), report).version)
        if number is None:
            msg = f"{option} {name} is no version number, and versions are what is searched"
            raise InputError(msg, hint="name two releases, such as 0.6.3 and 0.7.0")
        ends.append(Version(number))
    first, last = ends
    if first >= last:
        msg = f"--good {good} is not older than --bad {bad}"
        raise InputError(msg, hint="the search is for the first version that fails")
    known = {number for one in work.store.versions() if (number := version_number(one.version))}
    if not work.offline:
        known |= set(index_versions(work.recipe))
    inner = {one for one in map(Version, known) if first < one < last and not one.is_prerelease}
    return [str(one) for one in (first, *sorted(inner), last)]


def _name(versions: Sequence[str], number: int | None) -> str | None:
    return None if number is None else versions[number]


def _failure(
    versions: Sequence[str], found: Found, steps: Sequence[dict[str, Any]]
) -> FindingError | None:
    if found.first_bad is not None:
        return None
    if found.low is None or found.high is None:
        end = versions[0] if found.low is None else versions[-1]
        said = "--good" if found.low is None else "--bad"
        step = steps[-1]
        msg = f"nothing to search: at {said} {end} the command is {step['result']}: {step['why']}"
        return FindingError(msg, hint="name ends where it passes and where it fails")
    names = ", ".join(versions[one] for one in found.between)
    msg = f"it began at {versions[found.high]} or at one that could not be tested: {names}"
    return FindingError(msg, hint="the reasons stand beside them")


def _text(versions: Sequence[str], found: Found, trial: _Trial) -> list[str]:
    rows = [
        (step["version"], step["result"] or "-", _seconds(step), step["why"])
        for step in sorted(trial.steps, key=lambda step: versions.index(step["version"]))
    ]
    lines = output.table(("version", "result", "seconds", ""), rows)
    if found.first_bad is None or found.low is None:
        return lines
    newest, first = versions[found.low], versions[found.first_bad]
    lines += ["", f"first bad  {first}", f"last good  {newest}"]
    before, after = trial.outcomes[newest], trial.outcomes[first]
    lines += [
        f"patch      {name}: {before.get(name, '-')} there, {outcome} here"
        for name, outcome in after.items()
        if before.get(name) != outcome
    ]
    return lines


def _seconds(step: dict[str, Any]) -> str:
    return "-" if step["seconds"] is None else f"{step['seconds']:.1f}"
