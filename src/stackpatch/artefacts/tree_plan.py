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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import stackpatch
from stackpatch.artefacts.lock import PinnedBase, canonical, rfc3339
from stackpatch.artefacts.plan import Engine, must_compile
from stackpatch.artefacts.stamp import patched_version
from stackpatch.errors import InputError
from stackpatch.model.layout import Layout
from stackpatch.model.recipe_bases import BaseKind
from stackpatch.model.reference import SourceKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackpatch.model.arch import Arch
    from stackpatch.model.patch import Patch
    from stackpatch.model.recipe import Recipe, Release
    from stackpatch.model.series import Series

# Of the bytes that such a build writes for the same inputs; raise it when they change.
TREE_VERSION = "1"


@dataclass(frozen=True, slots=True)
class TreePlan:
    """One build. patches: those for the arch, in order. why: one sentence about the engine.

    checkout: what a checkout of the sources needs. base: the image that the result is made on,
    None where nobody said one by digest; evidence: why it is said to hold the release. told: what
    an engine of its own gets beside the sources: Dockerfile and tools by digest, a person's build
    arguments. open: what is not pinned, for a person.
    """

    recipe: Recipe
    release: Release
    arch: Arch
    series: str
    series_sha256: str
    patched: str
    patches: tuple[Patch, ...]
    layout: Layout
    engine: Engine
    why: str
    base: PinnedBase | None
    evidence: str | None
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def checkout(self) -> Mapping[str, bool]:
        """What the checkout of the sources needs."""
        upstream = self.recipe.upstream
        return {"submodules": upstream.submodules, "lfs": upstream.lfs}

    @property
    def build_args(self) -> Mapping[str, str]:
        """What the build from source is told; nothing for an overlay."""
        if self.engine is Engine.OVERLAY:
            return {}
        return {
            **self.recipe.arch(self.arch.name).build_args,
            **self.told.get("args", {}),
        }

    @property
    def open(self) -> tuple[str, ...]:
        """What is not pinned yet, each with what to do."""
        if self.base is not None:
            return ()
        what = "to lay the files on" if self.engine is Engine.OVERLAY else "to build in"
        return (f"no image {what} is known by digest: say --base IMAGE@sha256:…",)

    @property
    def key(self) -> str:
        """64 hex digits that name the result."""
        return hashlib.sha256(canonical(self.json())).hexdigest()

    @property
    def folder(self) -> str:
        """Where the result goes below the output folder: STACK/VERSION/ARCH."""
        return posixpath.join(self.recipe.stack, self.patched, self.arch.name)

    def json(self) -> dict[str, Any]:
        """Everything that the bytes of the build depend on."""
        release, base = self.release, self.base
        return {
            "stack": self.recipe.stack,
            "version": release.version,
            "patched-version": self.patched,
            "upstream": {
                "git": self.recipe.upstream.git,
                "tag": release.tag,
                "commit": release.commit,
                "commit-evidence": release.commit_evidence.kind.value,
                **self.checkout,
            },
            "epoch": release.epoch,
            "wheel": None,
            "layout": [[rule.here, rule.git] for rule in self.layout.rules],
            "series": {
                "name": self.series,
                "sha256": self.series_sha256,
                "patches": [{"name": p.name, "sha256": p.sha256} for p in self.patches],
            },
            "arch": {
                "name": self.arch.name,
                "platform": self.arch.platform,
                "env": dict(self.recipe.arch(self.arch.name).env),
            },
            "requires": dict(release.requires),
            "base": None
            if base is None
            else {"digest": base.digest, "name": base.name, "site": base.site},
            "engine": {
                "name": self.engine.value,
                "version": TREE_VERSION,
                "build-args": dict(self.build_args),
                **{name: value for name, value in self.told.items() if name != "args"},
            },
            "stackpatch": stackpatch.__version__,
        }

    def lines(self) -> tuple[str, ...]:
        """The plan for a person to read."""
        release, arch = self.release, self.arch
        settings = self.recipe.arch(arch.name)
        env = " ".join(f"{name}={value}" for name, value in sorted(settings.env.items()))
        needs = [name for name, wanted in (("LFS", self.checkout["lfs"]),) if wanted]
        needs += ["submodules"] if self.checkout["submodules"] else []
        what = f"{self.recipe.stack} {release.version} for {arch.name} ({arch.platform})"
        lines = [
            f"build    {what} as {self.patched}",
            f"from     {self.recipe.upstream.git}, commit {release.commit}",
            f"         {release.tag or 'no tag'}; the commit is {release.commit_evidence.kind}",
        ]
        if self.engine is not Engine.OVERLAY:
            lines.append(f"checkout with {' and '.join(sorted(needs)) or 'nothing else'}")
        count = len(self.patches)
        lines.append(
            f"series   {self.series}, {count} patch{'es' * (count != 1)}, sha256 "
            f"{self.series_sha256[:12]}"
        )
        lines += [f"         {patch.name}" for patch in self.patches]
        lines += [f"needs    {stack} {version}" for stack, version in release.requires.items()]
        if self.base is None:
            lines.append("base     not pinned")
        elif self.base.digest is None:
            lines.append("base     scratch")
        else:
            lines.append(f"base     {self.base.name or 'image'}@{self.base.digest}")
            if self.base.site:
                lines.append(f"         the package is in /{self.base.site}")
            if self.evidence:
                lines.append(f"         {' '.join(self.evidence.split())}")
        lines.append(f"engine   {self.engine}: {self.why}")
        if "dockerfile" in self.told:
            lines.append(f"by       its Dockerfile, sha256 {self.told['dockerfile'][:12]}")
        if self.build_args:
            words = (f"{name}={value}" for name, value in sorted(self.build_args.items()))
            lines.append(f"told     {' '.join(words)}, with CUDA {settings.cuda}")
        lines += [
            f"env      {env or '-'}",
            f"time     {rfc3339(release.epoch)}",
            f"result   {self.folder}, key {self.key[:12]}",
        ]
        lines += [f"open     {text}" for text in self.open] or ["pinned   every input above"]
        return tuple(lines)


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
    told: Mapping[str, Any] | None = None,
) -> TreePlan:
    """Decide a build from git. engine: `auto` or an engine's name. told: as `TreePlan` has it.

    base: the image that a person named, resolved; without one, the recipe's for the platform,
    with its evidence. Raises InputError where the recipe or the series cannot give a build.
    """
    recipe.arch(arch.name)
    if release.commit is None:
        msg = f"{recipe.stack} {release.version} has neither a wheel nor a commit"
        raise InputError(msg, hint="there is nothing to build it from")
    narrowed = series.for_arch(arch.name)
    if not narrowed.patches or release.series is None:
        msg = f"the series of {recipe.stack} {release.version} has no patch for {arch.name}"
        raise InputError(msg, hint="there is nothing to build; use the release itself")
    rules = recipe.layouts.rules(SourceKind.WHEEL)
    layout = Layout.of((rule.here, rule.git) for rule in rules)
    chosen, why = _engine(engine, narrowed.patches, layout)
    if base is None and chosen is Engine.OVERLAY:
        base, evidence = recorded_base(release, arch)
    return TreePlan(
        recipe,
        release,
        arch,
        release.series,
        narrowed.digest,
        patched_version(release.version, narrowed.short),
        narrowed.patches,
        layout,
        chosen,
        why,
        base,
        evidence,
        {} if chosen is Engine.OVERLAY else dict(told or {}),
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


def _engine(requested: str, patches: tuple[Patch, ...], layout: Layout) -> tuple[Engine, str]:
    """The engine that the changed files need, with the reason."""
    if requested not in ("auto", *Engine):
        msg = f"unknown engine {requested!r}"
        raise InputError(msg, hint=f"known: auto, {', '.join(Engine)}")
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


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" * (len(paths) > 3))
