"""Smoke checks on an installed stack: each passed, failed or not run, because …, never blurred.

Programs run through `run_all.py` in the recipe's folder, the same file that a person runs by hand:
it kills what does not end, with everything that it started. What is built in runs here.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

from stackpatch.checks.places import Job, Place, ask
from stackpatch.checks.smoke_files import installed_files, installed_site
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.recipe_smoke import Builtin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from stackpatch.model.arch import Arch
    from stackpatch.model.recipe import Recipe
    from stackpatch.model.recipe_smoke import SmokeCheck

RUNNER = "run_all.py"
# Variables with which a person tells the programs something; they go wherever these go.
_SETTINGS = "SMOKE_"
# How the runner's result lines begin.
_RESULT = '{"name":'
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
    """What is checked: where the stack is, and what is said to be there.

    version: what must be imported; None: whatever is there. wheel: the file that it was installed
    from, whose bytes the installed files are held against; None: its own RECORD.
    """

    place: Place
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
            result = _builtin(check.builtin, check, recipe, arch, subject)
        else:
            result = _program(check, recipe, arch, subject, programs)
        report(result)
        results.append(result)
    return Smoke(tuple(results))


def _builtin(
    kind: Builtin, check: SmokeCheck, recipe: Recipe, arch: Arch, subject: Subject
) -> Result:
    name = check.name
    match kind:
        case Builtin.FILES:
            found = installed_files(subject.place, recipe.upstream.pypi, subject.wheel)
            if found.trouble:
                return Result(name, Status.FAILED, found.why, found.figures)
            return Result(name, Status.PASSED, found.why, found.figures)
        case Builtin.AUDIT:
            return _audit(check, recipe, arch, subject)
        case Builtin.SHADOWING:
            return _shadowing(name, recipe, subject)
    assert_never(kind)


def _audit(check: SmokeCheck, recipe: Recipe, arch: Arch, subject: Subject) -> Result:
    """The GPU code in the package's own folder; what is compiled later is not there yet."""
    from stackpatch.checks.audit import Policy, Standing, audit_members
    from stackpatch.checks.targets import TargetKind

    name = check.name
    site = installed_site(subject.place, recipe.upstream.pypi)
    if site is None:
        why = f"{recipe.upstream.pypi} is not installed, so there is no folder to look into"
        return Result(name, Status.NOT_RUN, why)
    folder = f"{site.rstrip('/')}/{recipe.upstream.package.replace('.', '/')}"
    members = subject.place.members(folder)
    policy = Policy(ignore=tuple(one.path for one in check.ignore))
    found = audit_members(folder, TargetKind.FOLDER, members, arch, policy)
    figures = {
        "files": len(found.files),
        "native": len(found.standing(Standing.NATIVE)),
        "ptx": len(found.standing(Standing.PTX)),
        "missing": list(found.missing)[:20],
        "unknown": len(found.standing(Standing.UNKNOWN)),
        "unread": len(found.unread),
        "ignored": found.ignored,
    }
    if found.missing:
        why = f"{len(found.missing)} files with GPU code have none for {arch.name}"
        return Result(name, Status.FAILED, f"{why}, such as {found.missing[0]}", figures)
    if found.unread:
        first = found.unread[0]
        why = f"not all could be read: {first.path}: {first.why}"
        return Result(name, Status.FAILED, why, figures)
    if not found.files:
        why = "no compiled GPU code is installed: the package compiles it when it is first used"
        if found.ignored:
            why += f"; {found.ignored} files are for other arches only, as the recipe says"
        return Result(name, Status.NOT_RUN, why, figures)
    if found.standing(Standing.UNKNOWN):
        return Result(name, Status.FAILED, f"not known whether all runs on {arch.name}", figures)
    return Result(name, Status.PASSED, f"{len(found.files)} files run on {arch.name}", figures)


def _shadowing(name: str, recipe: Recipe, subject: Subject) -> Result:
    """What Python or the stack would load instead of the patched sources; cached modules are the
    `cache` check's."""
    from stackpatch.checks.shadow import Effect, shadows
    from stackpatch.checks.shadow_scene import listed_scene

    told = ask(subject.place, "listing.py", recipe.upstream.package)
    if told["loaded"] is None:
        why = f"Python finds no {recipe.upstream.package} there"
        return Result(name, Status.FAILED, why)
    found = shadows(listed_scene(told, recipe), recipe)
    figures = {"loaded": told["loaded"], "findings": [one.json() for one in found]}
    wins = [one for one in found if one.effect is Effect.WINS]
    if wins:
        first = wins[0]
        why = f"loaded instead of the patched source: {first.what} ({first.where}); {first.todo}"
        return Result(name, Status.FAILED, why, figures)
    if unsure := [one for one in found if one.effect is Effect.UNKNOWN]:
        first = unsure[0]
        why = f"it cannot be told whether {first.what} ({first.where}) is loaded instead"
        return Result(name, Status.NOT_RUN, f"{why}: {first.why}", figures)
    return Result(name, Status.PASSED, f"nothing lies before {told['loaded']}", figures)


def _program(
    check: SmokeCheck, recipe: Recipe, arch: Arch, subject: Subject, programs: Path
) -> Result:
    """One program through run_all.py; what is wrong with the runner itself is no finding."""
    if not (programs / RUNNER).is_file():
        msg = f"{programs / RUNNER} is missing"
        raise EnvironmentProblem(msg, hint="the recipe's folder is not whole; fetch it again")
    words = [RUNNER, "--arch", arch.name, "--stream"]
    words += ["--python", subject.place.python, "--stack", recipe.stack]
    words += ["--check", f"{check.name}={check.program}:{check.timeout}"]
    if subject.version is not None:
        words += ["--version", subject.version]
    settings = recipe.archs.get(arch.name)
    for name, value in (settings.env if settings is not None else {}).items():
        words += ["--env", f"{name}={value}"]
    files = {path.name: path.read_bytes() for path in sorted(programs.glob("*.py"))}
    own = {name: value for name, value in os.environ.items() if name.startswith(_SETTINGS)}
    done = subject.place.run(Job(files, tuple(words), check.timeout + _GRACE, own))
    told = [json.loads(line) for line in done.text().splitlines() if line.startswith(_RESULT)]
    if len(told) != 1:
        said = done.error_text().splitlines()
        msg = f"{RUNNER} gave {len(told)} results for {check.name}: {said[-1:] or done.status}"
        raise EnvironmentProblem(msg)
    found = told[0]
    return Result(
        str(found["name"]),
        Status(found["status"]),
        str(found["why"]),
        {**found["figures"], **({"stderr": found["stderr"]} if found.get("stderr") else {})},
        float(found["seconds"]),
    )
