"""A build, decided before anything is done: every input by digest, the engine and why.

Pure: recipe, release, arch and series in, `Plan` out. `plan.key` names the result, so a second
run knows from the plan alone that there is nothing to do.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from packaging.utils import parse_wheel_filename

import stackpatch
from stackpatch.artefacts.lock import (
    Inputs,
    Pinned,
    PinnedBase,
    PinnedPatch,
    PinnedStack,
    rfc3339,
)
from stackpatch.artefacts.stamp import patched_version
from stackpatch.errors import InputError
from stackpatch.model.layout import Layout
from stackpatch.model.reference import SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stackpatch.artefacts.base import Base
    from stackpatch.artefacts.external import External
    from stackpatch.model.arch import Arch
    from stackpatch.model.patch import Patch
    from stackpatch.model.recipe import Recipe, Release
    from stackpatch.model.series import Series

# Of the bytes that the overlay engine writes for the same inputs; raise it when they change.
OVERLAY_VERSION = "4"
_COMPILED = (
    *(".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hh", ".hpp", ".inc", ".inl", ".proto"),
    *(".pyx", ".pxd", ".pxi", ".rs", ".go", ".f", ".f90", ".s", ".asm", ".cmake"),
)
_BUILD_FILES = ("CMakeLists.txt", "Cargo.toml", "Cargo.lock", "meson.build", "BUILD", "Makefile")


class Engine(StrEnum):
    """What makes the image."""

    OVERLAY = "overlay"
    BUILDX = "buildx"
    BUILDAH = "buildah"


@dataclass(frozen=True, slots=True)
class Plan:
    """One build. patches: those for the arch, in order. why: one sentence about the engine.

    companions: the plans of the patched stacks that this one stands on, whose wheels go into the
    same result, below it in the image. external: the engine that makes the image where it is not
    the built-in one. same_version: distributions that must be of the stack's version. series: the
    patches of all arches.
    """

    inputs: Inputs
    engine: Engine
    why: str
    patches: tuple[Patch, ...]
    layout: Layout
    companions: tuple[Companion, ...] = ()
    external: External | None = None
    same_version: tuple[str, ...] = ()
    series: tuple[Patch, ...] = ()

    @property
    def key(self) -> str:
        """64 hex digits that name the result."""
        return self.inputs.key

    @property
    def released(self) -> Pinned:
        """The released wheel. Only a plan that `make_plan` made: others have none."""
        assert self.inputs.wheel is not None  # noqa: S101 - for mypy
        return self.inputs.wheel

    @property
    def folder(self) -> str:
        """Where the result goes below the output folder: STACK/VERSION/ARCH."""
        return posixpath.join(self.inputs.stack, self.inputs.patched, self.inputs.arch)

    def json(self) -> dict[str, Any]:
        """The inputs, as a lock has them."""
        return self.inputs.json()

    def lines(self) -> tuple[str, ...]:
        """The plan for a person to read."""
        one = self.inputs
        env = " ".join(f"{name}={value}" for name, value in sorted(one.env.items()))
        commit = f"{one.commit[:12]} ({one.commit_evidence})" if one.commit else "commit unknown"
        patches = f"{len(self.patches)} patch{'es' * (len(self.patches) != 1)}"
        base = one.base.name or one.base.digest or "scratch"
        if one.base.name and one.base.digest:
            base = f"{one.base.name}@{one.base.digest}"
        return (
            f"build    {one.stack} {one.version} for {one.arch} ({one.platform}) as {one.patched}",
            f"from     {self.released.file}, sha256 {self.released.sha256[:12]}",
            f"release  {one.tag or 'no tag'}, {commit}",
            f"series   {one.series}, {patches}, sha256 {one.series_sha256[:12]}",
            *(f"         {patch.name}" for patch in self.patches),
            *(f"needs    {needed(required)}" for required in one.requires),
            f"base     {base}",
            f"engine   {self.engine}: {self.why}{self._version()}",
            f"env      {env or '-'}",
            f"time     {rfc3339(one.epoch)}",
            f"result   {self.folder}, key {self.key[:12]}",
        )

    def _version(self) -> str:
        return "" if self.external is None else f"; {self.external.version}"


@dataclass(frozen=True, slots=True)
class Companion:
    """A patched stack that another one stands on: its recipe, release, plan, and its base.

    The base is the other's, with what is known of this stack's place in it.
    """

    recipe: Recipe
    release: Release
    plan: Plan
    base: Base


def needed(required: PinnedStack) -> str:
    """A stack that another one stands on, for a person."""
    if required.patched is None:
        return f"{required.stack} {required.version} as released: no series for it is known"
    return f"{required.stack} {required.version} as {required.patched}, built with it"


def make_plan(
    recipe: Recipe,
    release: Release,
    arch: Arch,
    series: Series,
    *,
    engine: str = "auto",
    base: PinnedBase,
    companions: tuple[Companion, ...] = (),
    requires: tuple[PinnedStack, ...] = (),
    external: External | None = None,
) -> Plan:
    """Decide a build. engine: `auto` or an engine's name.

    requires: the stacks that the release needs; companions: those of them that are built too.

    Raises InputError where the recipe or the series cannot give one.
    """
    settings = recipe.arch(arch.name)
    if not release.artefacts and release.commit is not None:
        msg = f"{recipe.stack} {release.version} is its commit: no wheel of it is pinned"
        raise InputError(msg, hint="build, verify and publish go by git for it; this needs a wheel")
    artefact = recipe.artefact(release, SourceKind.WHEEL, arch.platform)
    narrowed = series.for_arch(arch.name)
    if not narrowed.patches:
        msg = f"the series of {recipe.stack} {release.version} has no patch for {arch.name}"
        raise InputError(msg, hint="there is nothing to build; use the release itself")
    rules = recipe.layouts.rules(SourceKind.WHEEL)
    layout = Layout.of((rule.here, rule.git) for rule in rules) if rules else Layout.identity()
    chosen, why = choose_engine(engine, artefact.file, narrowed.patches)
    inputs = Inputs(
        stack=recipe.stack,
        distribution=recipe.upstream.pypi,
        version=release.version,
        patched=patched_version(release.version, narrowed.short),
        git=recipe.upstream.git,
        tag=release.tag,
        commit=release.commit,
        commit_evidence=release.commit_evidence.kind.value,
        epoch=release.epoch,
        wheel=Pinned(artefact.file, artefact.sha256, artefact.size),
        layout=tuple((rule.here, rule.git) for rule in layout.rules),
        stamp=(release.stamp.path, release.stamp.variable) if release.stamp else None,
        series=release.series,
        series_sha256=narrowed.digest,
        patches=tuple(PinnedPatch(patch.name, patch.sha256) for patch in narrowed.patches),
        arch=arch.name,
        platform=arch.platform,
        env=dict(settings.env),
        shadowed_by=tuple(recipe.shadowed_by),
        base=base,
        engine=chosen.value,
        engine_version=OVERLAY_VERSION if external is None else external.version,
        stackpatch=stackpatch.__version__,
        requires=requires,
        engine_settings={} if external is None else external.pinned(),
    )
    if (chosen is Engine.OVERLAY) != (external is None):
        msg = f"the {chosen} engine needs its settings"
        raise InputError(msg, hint="use --engine overlay where nothing must be compiled")
    family = tuple(recipe.same_version)
    patches = narrowed.patches
    return Plan(inputs, chosen, why, patches, layout, companions, external, family, series.patches)


def choose_engine(requested: str, wheel: str, patches: Iterable[Patch]) -> tuple[Engine, str]:
    """The engine that the changed files need, with the reason. Raises InputError.

    wheel: the released wheel's file name. One for any platform holds no compiled code, so all
    that a patch can change in it is interpreted, or compiled when it is first used.
    """
    if requested not in ("auto", *Engine):
        msg = f"unknown engine {requested!r}"
        raise InputError(msg, hint=f"known: auto, {', '.join(Engine)}")
    if requested != "auto":
        return Engine(requested), "asked for"
    portable = all(tag.platform == "any" for tag in parse_wheel_filename(wheel)[3])
    if portable:
        return Engine.OVERLAY, (
            "the wheel holds no compiled code; what the series changes is interpreted or compiled"
            " at run time"
        )
    compiled = sorted({path for patch in patches for path in patch.paths if must_compile(path)})
    if compiled:
        shown = ", ".join(compiled[:3]) + (f" and {len(compiled) - 3} more" * (len(compiled) > 3))
        msg = f"the series changes what must be compiled: {shown}"
        raise InputError(
            msg,
            hint="name the engine that compiles them: --engine buildx or buildah; if these files"
            " are compiled at run time, say --engine overlay",
        )
    return Engine.OVERLAY, "the series changes interpreted files only"


def must_compile(path: str) -> bool:
    """Whether a file must be compiled, by its name."""
    name = posixpath.basename(path)
    return name.lower().endswith(_COMPILED) or name in _BUILD_FILES
