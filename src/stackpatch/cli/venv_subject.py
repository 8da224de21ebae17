"""What the `venv` commands work on: a release of a recipe, and where it is installed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stackpatch.cli.workspace import open_workspace
from stackpatch.errors import FindingError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stackpatch.artefacts.build import Prepared
    from stackpatch.artefacts.plan import Plan
    from stackpatch.cli.workspace import Workspace
    from stackpatch.installed.distribution import Distribution
    from stackpatch.installed.inplace import Change, Identity
    from stackpatch.installed.journal import Journal
    from stackpatch.model.arch import Arch
    from stackpatch.model.recipe import Recipe, Release


@dataclass(frozen=True)
class Subject:
    """An installed package and the release that it is. asked: the arch that was named."""

    work: Workspace
    python: Path
    distribution: Distribution
    asked: Arch | None

    @property
    def shown(self) -> str:
        """For messages: name, version and place."""
        one = self.distribution
        return f"{one.name} {one.version} in {one.site}"

    @cached_property
    def arch(self) -> Arch:
        """The arch whose series is meant. Raises InputError where it makes a difference."""
        from stackpatch.model.arch import parse_arch

        if self.asked is not None:
            if self.asked.name not in self.work.recipe.archs:
                known = ", ".join(self.work.recipe.archs)
                msg = f"{self.work.recipe.stack} has no recipe for {self.asked.name}"
                raise InputError(msg, hint=f"it has {known}")
            return self.asked
        names = list(self.work.recipe.archs)
        if len({self.work.series.for_arch(name).digest for name in names}) > 1:
            msg = f"the series of {self.work.recipe.stack} {self.work.release.version} differs"
            msg += " by arch"
            raise InputError(msg, hint=f"name yours with --arch: {', '.join(names)}")
        return parse_arch(names[0])

    @cached_property
    def plan(self) -> Plan:
        """The build whose files are wanted here. Raises InputError for a release without wheel."""
        from stackpatch.artefacts.release import plan_release

        work = self.work
        if work.release.series is None:
            msg = f"{work.recipe.stack} {work.release.version} has no series"
            have = [one.version for one in work.recipe.releases if one.series is not None]
            raise InputError(msg, hint=f"these have one: {', '.join(have)}")
        plan, _ = plan_release(
            work.recipe, work.release, self.arch, work.series, engine="overlay", base="scratch"
        )
        return plan

    def prepared(self) -> Prepared:
        """The released wheel and what the series makes of its files."""
        from stackpatch.artefacts.release import prepare_release
        from stackpatch.cli.progress import reporting

        work = self.work
        with reporting() as report:
            return prepare_release(
                work.recipe,
                work.release,
                self.arch,
                self.plan,
                offline=work.offline,
                report=report,
            )

    @property
    def identity(self) -> Identity:
        """Whose changes those are."""
        from stackpatch.installed.inplace import Identity

        inputs = self.plan.inputs
        return Identity(
            inputs.stack, inputs.version, self.arch.name, inputs.series_sha256, inputs.patched
        )

    @property
    def patched_wheel(self) -> bool:
        """Whether a wheel of ours is installed, by its local version."""
        return "+" in self.distribution.version and "sp." in self.distribution.version

    def refuse_patched_wheel(self) -> None:
        """Raise FindingError where a patched wheel is installed: nothing goes on top of it."""
        if self.patched_wheel:
            msg = f"{self.shown} is a patched wheel already"
            raise FindingError(
                msg, hint="`stackpatch venv status` says of which series; install a wheel over it"
            )

    def journal(self) -> Journal | None:
        """What `venv apply` has left."""
        from stackpatch.installed import journal

        return journal.read(self.distribution.dist_info)

    def stale_caches(self) -> list[str]:
        """The caches with entries that can have been made from other sources."""
        from stackpatch.installed import clear, interpreter
        from stackpatch.installed.surroundings import surroundings

        around = surroundings(versions=interpreter.ask(self.python).versions)
        plan = clear.plan(clear.request(self.work.recipe.stack, ()), around)
        return list(dict.fromkeys(item.cache.name for item in plan.taken))

    def document(self) -> dict[str, Any]:
        """What every document of `venv` begins with."""
        one = self.distribution
        return {
            "stack": self.work.recipe.stack,
            "release": self.work.release.version,
            "python": str(self.python),
            "distribution": one.name,
            "version": one.version,
            "site": str(one.site),
        }


def open_subject(
    stack: str,
    python: Path,
    arch: str | None,
    root: Path | None,
    *,
    offline: bool,
    tolerant: bool = False,
) -> Subject:
    """The release that is installed where `python` imports from.

    tolerant: of an installed version that is none of the recipe's. Raises InputError for what is
    no interpreter or release, FindingError where the package is missing, editable, shadowed or of
    another version than the one named.
    """
    from stackpatch.installed import distribution
    from stackpatch.model.arch import parse_arch

    asked = parse_arch(arch) if arch is not None else None
    work = open_workspace(stack, root, offline=offline)
    recipe = work.recipe
    found = distribution.find(python, recipe.upstream.pypi, recipe.upstream.package)
    if found is None:
        msg = f"{recipe.upstream.pypi} is not installed in {python}"
        raise FindingError(msg, hint=f"pip install {recipe.upstream.pypi}=={work.release.version}")
    if found.editable is not None:
        msg = f"{found.name} is an editable install of {found.editable}"
        hint = "its files are a work tree: `stackpatch apply` writes a patched one"
        raise FindingError(msg, hint=hint)
    release = _release(recipe, found.version)
    if "@" in stack:
        if not tolerant and release is not work.release:
            msg = f"{found.name} {found.version} is installed, not {work.release.version}"
            raise FindingError(msg, hint=f"pip install {found.name}=={work.release.version}")
    elif release is not None:
        work = work.at(release.version)
    elif not tolerant:
        have = ", ".join(one.version for one in recipe.releases)
        msg = f"the recipe has no release {found.version} of {found.name}"
        raise FindingError(
            msg, hint=f"it has {have}; `stackpatch rebase` moves a series to another"
        )
    return Subject(work, python, found, asked)


def changes_of(subject: Subject) -> Mapping[str, Change]:
    """What the series makes of the installed files, the version stamp with them."""
    from stackpatch.checks.wanted import wanted_of
    from stackpatch.installed.inplace import Change

    prepared = subject.prepared()
    modes = prepared.shipped.executable
    return {
        path: Change(one.content, one.released, modes.get(path))
        for path, one in wanted_of(subject.plan, prepared).files.items()
    }


def _release(recipe: Recipe, installed: str) -> Release | None:
    """The release that an installed version is, patched or not."""
    from packaging.version import InvalidVersion, Version

    try:
        version = Version(installed)
    except InvalidVersion:
        return None
    for release in recipe.releases:
        wanted = Version(release.version)
        local = version.local or ""
        if version == wanted or (local.startswith("sp.") and Version(version.public) == wanted):
            return release
    return None
