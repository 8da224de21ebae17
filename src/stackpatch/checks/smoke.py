"""Smoke checks on an installed stack: each passed, failed or not run, because …, never blurred.

Programs run through `run_all.py` in the recipe's folder, the same file that a person runs by hand:
it kills what does not end, with everything that it started. What is built in runs here.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

from stackpatch.checks.smoke_files import installed_files
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.recipe_smoke import Builtin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from stackpatch.model.arch import Arch
    from stackpatch.model.recipe import Recipe
    from stackpatch.model.recipe_smoke import SmokeCheck

RUNNER = "run_all.py"
# Seconds that the runner itself may need beside its check's limit: starting, killing.
_GRACE = 60


class Status(StrEnum):
    """What became of a check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not-run"


@dataclass(frozen=True, slots=True)
class Result:
    """One check: what became of it, why, and the figures. seconds: how long it took."""

    name: str
    status: Status
    why: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked: an interpreter and what the recipe calls its package.

    version: what must be imported; None: whatever is there. wheel: the file that it was installed
    from, whose bytes the installed files are held against; None: its own RECORD.
    """

    python: Path
    version: str | None = None
    wheel: Path | None = None


@dataclass(frozen=True, slots=True)
class Smoke:
    """All results, in the recipe's order."""

    results: tuple[Result, ...]

    def of(self, status: Status) -> tuple[Result, ...]:
        """The results with this status."""
        return tuple(result for result in self.results if result.status is status)

    @property
    def ran_on_device(self) -> bool:
        """Whether the GPU was seen to be the arch and some kernel's numbers were judged there."""
        good = {result.name for result in self.of(Status.PASSED)}
        return "device" in good and any(name.startswith("numbers") for name in good)

    @property
    def device(self) -> Mapping[str, Any] | None:
        """What the device check found out about the GPU."""
        found = next((r.figures for r in self.results if r.name == "device"), None)
        return found or None

    @property
    def summary(self) -> str:
        """`3 passed, 0 failed, 6 not run`."""
        counts = (len(self.of(status)) for status in Status)
        return "{} passed, {} failed, {} not run".format(*counts)


def smoke(
    recipe: Recipe,
    arch: Arch,
    subject: Subject,
    programs: Path,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    report: Callable[[Result], None] = lambda _: None,
) -> Smoke:
    """Run the recipe's checks in order. programs: the folder with them.

    only, skip: names of checks; what they leave out is told as not run. report: called with each
    result as it comes. Raises InputError for a recipe without checks, or a name that is none.
    """
    if not recipe.smoke:
        msg = f"the recipe of {recipe.stack} has no smoke checks"
        raise InputError(msg, hint="`smoke:` in the recipe lists them (docs/smoke.md)")
    names = [check.name for check in recipe.smoke]
    for option, wanted in (("--only", only), ("--skip", skip)):
        if unknown := sorted(set(wanted) - set(names)):
            msg = f"{option} {unknown[0]}: {recipe.stack} has no such check"
            raise InputError(msg, hint=f"there are {', '.join(names)}")
    results = []
    for check in recipe.smoke:
        if check.name in skip or (only and check.name not in only):
            option = "--skip" if check.name in skip else "--only"
            result = Result(check.name, Status.NOT_RUN, f"left out ({option})")
        elif check.builtin is not None:
            result = _builtin(check.builtin, check.name, recipe, arch, subject)
        else:
            result = _program(check, recipe, arch, subject, programs)
        report(result)
        results.append(result)
    return Smoke(tuple(results))


def _builtin(kind: Builtin, name: str, recipe: Recipe, arch: Arch, subject: Subject) -> Result:
    match kind:
        case Builtin.FILES:
            found = installed_files(subject.python, recipe.upstream.pypi, subject.wheel)
            if found.trouble:
                return Result(name, Status.FAILED, found.why, found.figures)
            return Result(name, Status.PASSED, found.why, found.figures)
        case Builtin.AUDIT:
            return _audit(name, recipe, arch, subject)
    assert_never(kind)


def _audit(name: str, recipe: Recipe, arch: Arch, subject: Subject) -> Result:
    """The GPU code in the package's own folder; what is compiled later is not there yet."""
    from stackpatch.checks.audit import Policy, Standing, audit

    installed = installed_files(subject.python, recipe.upstream.pypi, None)
    folder = installed.folder_of(recipe.upstream.package)
    if folder is None:
        return Result(name, Status.NOT_RUN, f"{recipe.upstream.package} has no folder to look into")
    found = audit(str(folder), arch, Policy(accept_ptx=True, ignore=(), strict=False))
    figures = {
        "files": len(found.files),
        "native": len(found.standing(Standing.NATIVE)),
        "ptx": len(found.standing(Standing.PTX)),
        "missing": list(found.missing)[:20],
        "unknown": len(found.standing(Standing.UNKNOWN)),
        "unread": len(found.unread),
    }
    if found.missing:
        why = f"{len(found.missing)} files with GPU code have none for {arch.name}"
        return Result(name, Status.FAILED, f"{why}, such as {found.missing[0]}", figures)
    if not found.files:
        why = "no compiled GPU code is installed: the package compiles it when it is first used"
        return Result(name, Status.NOT_RUN, why, figures)
    if found.standing(Standing.UNKNOWN) or found.unread:
        return Result(name, Status.FAILED, f"not known whether all runs on {arch.name}", figures)
    return Result(name, Status.PASSED, f"{len(found.files)} files run on {arch.name}", figures)


def _program(
    check: SmokeCheck, recipe: Recipe, arch: Arch, subject: Subject, programs: Path
) -> Result:
    """One program through run_all.py; what is wrong with the runner itself is no finding."""
    runner = programs / RUNNER
    if not runner.is_file():
        msg = f"{runner} is missing"
        raise EnvironmentProblem(msg, hint="the recipe's folder is not whole; fetch it again")
    argv = [sys.executable, "-I", str(runner), "--arch", arch.name, "--stream"]
    argv += ["--python", str(subject.python), "--stack", recipe.stack]
    argv += ["--check", f"{check.name}={check.program}:{check.timeout}"]
    if subject.version is not None:
        argv += ["--version", subject.version]
    settings = recipe.archs.get(arch.name)
    for name, value in (settings.env if settings is not None else {}).items():
        argv += ["--env", f"{name}={value}"]
    told = list(_lines(argv, check.timeout + _GRACE))
    if len(told) != 1:
        msg = f"{runner} gave {len(told)} results for one check"
        raise EnvironmentProblem(msg)
    found = told[0]
    return Result(
        str(found["name"]),
        Status(found["status"]),
        str(found["why"]),
        {**found["figures"], **({"stderr": found["stderr"]} if found.get("stderr") else {})},
        float(found["seconds"]),
    )


def _lines(argv: Sequence[str], limit: float) -> Iterator[dict[str, Any]]:
    """The JSON lines that the runner prints. On an interruption it is told to kill its check."""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            said = child.communicate(timeout=limit)[0]
        except BaseException:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
            raise
    for line in said.decode("utf-8", "replace").splitlines():
        yield json.loads(line)
