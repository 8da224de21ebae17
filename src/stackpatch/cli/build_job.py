"""What `stackpatch build` has decided on: from a wheel, or of a release that is its commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stackpatch.artefacts.base import OpenRemote
    from stackpatch.artefacts.build import BuildResult, Planned
    from stackpatch.artefacts.images import RemoteImage
    from stackpatch.artefacts.tree_source import Source
    from stackpatch.cli.engines import EngineOptions
    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.arch import Arch

    Caches = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """The plan, and how it is carried out: below a folder, telling how far it is, with what to
    clear where the result is installed.

    open: what is not pinned yet. base_lines: what a person should know of the base.
    """

    plan: Planned
    run: Callable[[Path, Report, Caches], BuildResult]
    open: Sequence[str] = ()
    base_lines: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asked for. base, site, locked: None where nothing was said.

    locked: the engine's entry of the lock that the build is held to.
    """

    engine: str
    base: str | None
    site: str | None
    options: EngineOptions
    locked: Mapping[str, Any] | None
    offline: bool
    dry_run: bool


def plan_job(work: Workspace, arch: Arch, asked: Asked) -> Job:
    """Decide the build. Raises InputError where nothing can be built, and what the engine and the
    registry raise.
    """
    from stackpatch.artefacts.tree_plan import has_no_wheel

    return _from_git(work, arch, asked) if has_no_wheel(work.release) else _wheel(work, arch, asked)


def _wheel(work: Workspace, arch: Arch, asked: Asked) -> Job:
    from stackpatch.artefacts.release import build_release, plan_release
    from stackpatch.cli.engines import external

    recipe, release = work.recipe, work.release
    plan, base = plan_release(
        recipe,
        release,
        arch,
        work.series,
        engine=asked.engine,
        base=asked.base or "scratch",
        site=asked.site,
        remote=_remote(offline=asked.offline),
        collection=work.collection,
        external=external(
            asked.engine,
            asked.options,
            stack=recipe.stack,
            root=work.collection.root,
            arch=arch,
            locked=asked.locked,
        ),
    )

    def run(out: Path, report: Report, caches: Caches) -> BuildResult:
        return build_release(
            recipe,
            release,
            arch,
            plan,
            base,
            out=out,
            offline=asked.offline,
            report=report,
            caches=caches,
        )

    return Job(plan, run, base_lines=base.lines())


def _from_git(work: Workspace, arch: Arch, asked: Asked) -> Job:
    """A dry run opens no base that the recipe pins, and asks no engine that is not here."""
    from stackpatch.artefacts.tree_build import build_tree, plan_tree_release

    recipe, release = work.recipe, work.release
    plan, base = plan_tree_release(
        recipe,
        release,
        arch,
        work.series,
        engine=asked.engine,
        base=asked.base,
        site=asked.site,
        remote=_remote(offline=asked.offline),
        collection=work.collection,
        source=_source(work, arch, asked),
        look=not asked.dry_run,
    )
    if base is None and not asked.dry_run:
        msg = f"{recipe.stack} {release.version}: {plan.open[0]}"
        raise InputError(msg, hint="the recipe knows no image of this release for the platform")

    def run(out: Path, report: Report, caches: Caches) -> BuildResult:
        assert base is not None  # noqa: S101 - only a dry run opens none
        return build_tree(
            recipe, arch, plan, base, out=out, offline=asked.offline, report=report, caches=caches
        )

    return Job(plan, run, plan.open)


def _source(work: Workspace, arch: Arch, asked: Asked) -> Source | None:
    """The engine that compiles the sources, where the series needs one or a person wants it."""
    from stackpatch.artefacts.plan import Engine
    from stackpatch.artefacts.tree_plan import choose_tree_engine
    from stackpatch.cli.engines import from_source

    chosen, _ = choose_tree_engine(work.recipe, arch, work.series, asked.engine)
    if chosen is Engine.OVERLAY:
        asked.options.refuse()
        return None
    return from_source(
        chosen,
        asked.options,
        work.recipe,
        root=work.collection.root,
        arch=arch,
        locked=asked.locked,
        planning=asked.dry_run,
    )


def _remote(*, offline: bool) -> OpenRemote:
    """Opens an image in a registry; imports what speaks with one only when it is called."""

    def remote(text: str) -> RemoteImage:
        from stackpatch.cli.images import opener

        return opener(offline=offline)(text)

    return remote
