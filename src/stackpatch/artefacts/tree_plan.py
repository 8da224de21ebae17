"""A build of a release that is its commit: the index has no wheel of it, so git has the sources.

Where the series changes interpreted files only, they go over an image that holds the release;
where something must be compiled, the whole is built from source, with what the checkout needs
(submodules, Git LFS) and what the arch is told (the recipe's `build-args`).

Pure, like `plan`: recipe, release, arch and series in, `TreePlan` out. Nothing is asked of a
registry: a base is known by the digest that the recipe or the person says.
"""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import stackpatch
from stackpatch.artefacts.lock import Inputs, PinnedBase, PinnedPatch, canonical, rfc3339
from stackpatch.artefacts.plan import Engine, must_compile, needed
from stackpatch.artefacts.stamp import patched_version
from stackpatch.errors import InputError
from stackpatch.model.layout import Layout
from stackpatch.model.recipe_bases import BaseKind
from stackpatch.model.reference import SourceKind

if TYPE_CHECKING:
    from stackpatch.artefacts.lock import PinnedStack
    from stackpatch.artefacts.plan import Companion
    from stackpatch.artefacts.tree_source import Source
    from stackpatch.model.arch import Arch
    from stackpatch.model.patch import Patch
    from stackpatch.model.recipe import Recipe, Release
    from stackpatch.model.series import Series

# Of the bytes that an overlay of a git tree has for the same inputs; raise it when they change.
TREE_VERSION = "2"


@dataclass(frozen=True, slots=True)
class TreePlan:
    """One build. patches: those for the arch, in order. why: one sentence about the engine.

    inputs: their base stands for nothing as long as `open` says that none is known. evidence: why
    the base is said to hold the release. cuda: what the arch asks for. companions, same_version: as
    in `Plan`. source: the engine that compiles, where one does. based: whether a base is known.
    series: the patches of all arches.
    """

    inputs: Inputs
    engine: Engine
    why: str
    patches: tuple[Patch, ...]
    layout: Layout
    cuda: str
    evidence: str | None = None
    companions: tuple[Companion, ...] = ()
    same_version: tuple[str, ...] = ()
    source: Source | None = None
    based: bool = True
    series: tuple[Patch, ...] = ()

    @property
    def open(self) -> tuple[str, ...]:
        """What is not pinned yet, each with what to do."""
        missing = []
        if not self.based:
            what = "to lay the files on" if self.engine is Engine.OVERLAY else "to build in"
            missing.append(f"no image {what} is known by digest: say --base IMAGE@sha256:…")
        if self.engine is not Engine.OVERLAY and not self.inputs.engine_version:
            missing.append(
                f"the version of {self.engine} is known where it runs: `stackpatch doctor`"
            )
        return tuple(missing)

    @property
    def key(self) -> str:
        """64 hex digits that name the result."""
        return hashlib.sha256(canonical(self.json())).hexdigest()

    @property
    def folder(self) -> str:
        """Where the result goes below the output folder: STACK/VERSION/ARCH."""
        return posixpath.join(self.inputs.stack, self.inputs.patched, self.inputs.arch)

    def json(self) -> dict[str, Any]:
        """Everything that the bytes of the build depend on; no base while none is known."""
        document = self.inputs.json()
        return document if self.based else {**document, "base": None}

    def lines(self) -> tuple[str, ...]:
        """The plan for a person to read."""
        one = self.inputs
        env = " ".join(f"{name}={value}" for name, value in sorted(one.env.items()))
        lines = [
            f"build    {one.stack} {one.version} for {one.arch} ({one.platform}) as {one.patched}",
            f"from     {one.git}, commit {one.commit}",
            f"         {one.tag or 'no tag'}; the commit is {one.commit_evidence}",
        ]
        if self.engine is not Engine.OVERLAY:
            names = {"lfs": "LFS", "submodules": "submodules"}
            needs = [names[name] for name, wanted in sorted(one.checkout.items()) if wanted]
            lines.append(f"checkout with {' and '.join(needs) or 'nothing else'}")
        count = len(self.patches)
        lines.append(
            f"series   {one.series}, {count} patch{'es' * (count != 1)}, sha256 "
            f"{one.series_sha256[:12]}"
        )
        lines += [f"         {patch.name}" for patch in self.patches]
        lines += [f"needs    {needed(stack)}" for stack in one.requires]
        lines += self._base_lines()
        lines.append(f"engine   {self.engine}: {self.why}{self._version()}")
        if self.source is not None:
            lines += self._source_lines(self.source)
        lines += [
            f"env      {env or '-'}",
            f"time     {rfc3339(one.epoch)}",
            f"result   {self.folder}, key {self.key[:12]}",
        ]
        lines += [f"open     {text}" for text in self.open] or ["pinned   every input above"]
        return tuple(lines)

    def _version(self) -> str:
        return f"; {self.inputs.engine_version}" if self.source and self.source.version else ""

    def _source_lines(self, source: Source) -> list[str]:
        words = (f"{name}={value}" for name, value in sorted(source.build_args.items()))
        lines = [
            f"by       its Dockerfile, sha256 {source.dockerfile[:12]}",
            f"told     {' '.join(words) or '-'}, with CUDA {self.cuda}",
        ]
        if not source.build_args.get("DEVEL"):
            lines.append(
                "         compiled in the base: --build-arg DEVEL=IMAGE@sha256:… for another"
            )
        return lines

    def _base_lines(self) -> list[str]:
        base = self.inputs.base
        if not self.based:
            return ["base     not pinned"]
        if base.digest is None:
            return ["base     scratch"]
        lines = [f"base     {base.name or 'image'}@{base.digest}"]
        if base.site:
            lines.append(f"         the package is in /{base.site}")
        if self.evidence:
            lines.append(f"         {' '.join(self.evidence.split())}")
        return lines


def has_no_wheel(release: Release) -> bool:
    """Whether the release is its commit: known, and nothing of it pinned on the index."""
    return not release.artefacts and release.commit is not None


def plan_tree(
    recipe: Recipe,
    release: Release,
    arch: Arch,
    series: Series,
    *,
    engine: str = "auto",
    base: PinnedBase | None = None,
    evidence: str | None = None,
    companions: tuple[Companion, ...] = (),
    requires: tuple[PinnedStack, ...] = (),
    source: Source | None = None,
) -> TreePlan:
    """Decide a build from git. engine: `auto` or an engine's name.

    base: the image to build on, evidence as in the plan; None: not known yet. requires: the
    stacks that the release needs; companions: those of them that are built too. source: the
    engine that compiles, needed only to carry out what must be compiled. Raises InputError where
    the recipe or the series cannot give a build.
    """
    settings = recipe.arch(arch.name)
    if release.commit is None:
        msg = f"{recipe.stack} {release.version} has neither a wheel nor a commit"
        raise InputError(msg, hint="there is nothing to build it from")
    narrowed = series.for_arch(arch.name)
    if not narrowed.patches or release.series is None:
        msg = f"the series of {recipe.stack} {release.version} has no patch for {arch.name}"
        raise InputError(msg, hint="there is nothing to build; use the release itself")
    layout = _layout(recipe)
    chosen, why = choose_tree_engine(recipe, arch, series, engine)
    upstream = recipe.upstream
    version = TREE_VERSION if chosen is Engine.OVERLAY else source.version if source else ""
    inputs = Inputs(
        stack=recipe.stack,
        distribution=upstream.pypi,
        version=release.version,
        patched=patched_version(release.version, narrowed.short),
        git=upstream.git,
        tag=release.tag,
        commit=release.commit,
        commit_evidence=release.commit_evidence.kind.value,
        epoch=release.epoch,
        wheel=None,
        layout=tuple((rule.here, rule.git) for rule in layout.rules),
        stamp=None,
        series=release.series,
        series_sha256=narrowed.digest,
        patches=tuple(PinnedPatch(patch.name, patch.sha256) for patch in narrowed.patches),
        arch=arch.name,
        platform=arch.platform,
        env=dict(settings.env),
        shadowed_by=tuple(recipe.shadowed_by),
        base=base or PinnedBase(None),
        engine=chosen.value,
        engine_version=version,
        stackpatch=stackpatch.__version__,
        requires=requires,
        engine_settings=source.pinned() if source else {},
        checkout={"submodules": upstream.submodules, "lfs": upstream.lfs},
    )
    return TreePlan(
        inputs,
        chosen,
        why,
        narrowed.patches,
        layout,
        str(settings.cuda),
        evidence,
        companions,
        tuple(recipe.same_version),
        source,
        based=base is not None,
        series=series.patches,
    )


def recorded_base(release: Release, arch: Arch) -> tuple[PinnedBase | None, str | None]:
    """The recipe's image of the release for the arch's platform, and its evidence."""
    for one in release.bases:
        if arch.platform in one.platforms:
            pinned = PinnedBase(
                one.digest,
                one.image,
                one.path.strip("/"),
                editable=one.kind is BaseKind.EDITABLE,
                python=one.python,
                recorded=True,
            )
            return pinned, one.evidence
    return None, None


def choose_tree_engine(
    recipe: Recipe, arch: Arch, series: Series, requested: str
) -> tuple[Engine, str]:
    """The engine that the changed files need, with the reason.

    requested: `auto` or an engine's name. Raises InputError for one that cannot do it.
    """
    if requested not in ("auto", *Engine):
        msg = f"unknown engine {requested!r}"
        raise InputError(msg, hint=f"known: auto, {', '.join(Engine)}")
    layout = _layout(recipe)
    patches = series.for_arch(arch.name).patches
    paths = sorted({path for patch in patches for path in patch.paths})
    compiled = [path for path in paths if must_compile(path)]
    outside = [path for path in paths if path not in compiled and not layout.covers(path)]
    if requested == Engine.OVERLAY or (requested == "auto" and not compiled):
        if compiled:
            msg = f"an overlay cannot change what must be compiled: {_some(compiled)}"
            raise InputError(msg, hint="leave --engine out, and it is built from source")
        if outside and len(outside) == len(paths):
            msg = f"nothing that the series changes is in the installed package: {_some(outside)}"
            raise InputError(msg, hint="correct `layouts.wheel` in the recipe")
        return Engine.OVERLAY, "the series changes interpreted files only"
    chosen = Engine.BUILDX if requested == "auto" else Engine(requested)
    if compiled:
        return chosen, f"from source, because the series changes {_some(compiled)}"
    return chosen, "from source, as asked for"


def _layout(recipe: Recipe) -> Layout:
    """How an installed package's paths map to the git tree, as a wheel's do."""
    rules = recipe.layouts.rules(SourceKind.WHEEL)
    return Layout.of((rule.here, rule.git) for rule in rules)


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" * (len(paths) > 3))
