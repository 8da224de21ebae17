"""A recipe: where an upstream lives, which releases we pin, and what each needs per arch.

These types are the only definition of `recipes/STACK.yaml`: the JSON Schema (`stackpatch schema`)
and docs/recipe-reference.md are generated from them, and the field descriptions are written for
the people who write recipes. `recipe_file` reads them; what one field alone cannot say is checked
in `recipe_rules`.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from packaging.utils import parse_wheel_filename
from pydantic import Field

from stackpatch.errors import InputError
from stackpatch.model import nearest
from stackpatch.model.recipe_base import Strict
from stackpatch.model.recipe_bases import BaseImage
from stackpatch.model.recipe_fields import (
    CommitText,
    DateText,
    DistributionName,
    FolderName,
    GitUrl,
    PackageName,
    PathText,
    PythonVersion,
    RangeText,
    Sentence,
    Sha256Text,
    StackName,
    TagName,
    VariableName,
    VariableValue,
    VersionText,
)
from stackpatch.model.recipe_gates import Gates
from stackpatch.model.recipe_launch import Launch
from stackpatch.model.recipe_smoke import SmokeCheck
from stackpatch.model.recipe_watch import Fork, Issue, Revisit
from stackpatch.model.reference import SourceKind

# With several files that differ only by machine, the one whose sources we read.
USUAL_PLATFORM = "linux/amd64"
_MACHINES = (("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"))


class EvidenceKind(StrEnum):
    """How the commit of a release is known."""

    FIRST_HAND = "first-hand"
    SECOND_HAND = "second-hand"
    UNKNOWN = "unknown"


class Upstream(Strict):
    """Where the upstream project is found."""

    git: GitUrl = Field(description="Repository with the release tags: a URL or an absolute path.")
    pypi: DistributionName = Field(description="Name of the distribution on the package index.")
    package: PackageName = Field(description="Import package that the distribution installs.")
    submodules: bool = Field(
        default=False, strict=True, description="Whether a build from source needs its submodules."
    )
    lfs: bool = Field(
        default=False,
        strict=True,
        description="Whether a build from source needs files that lie in Git LFS.",
    )


class LayoutRule(Strict):
    """Where the paths with a prefix lie in the upstream git tree."""

    here: PathText = Field(
        description="Prefix of paths in the archive (an sdist's without its top folder): ends in "
        '/ for a folder; a whole path for one file; "" for everything. The longest that matches '
        "counts."
    )
    git: PathText | None = Field(
        description="What stands in its place in the git tree. null: such files are not in git "
        "(generated, or metadata of packaging)."
    )


_AS_IN_GIT = (LayoutRule(here="", git=""),)


class Layouts(Strict):
    """How the paths of each kind of archive map to the upstream git tree.

    Without rules: as they are. With rules, a path that none matches is not in the git tree.
    """

    sdist: tuple[LayoutRule, ...] = Field(
        default=_AS_IN_GIT, min_length=1, description="Rules for source distributions."
    )
    wheel: tuple[LayoutRule, ...] = Field(
        default=_AS_IN_GIT, min_length=1, description="Rules for wheels."
    )

    def rules(self, kind: SourceKind) -> tuple[LayoutRule, ...]:
        """The rules for a kind of source."""
        match kind:
            case SourceKind.SDIST:
                return self.sdist
            case SourceKind.WHEEL:
                return self.wheel
            case SourceKind.GIT:
                return _AS_IN_GIT


class CommitEvidence(Strict):
    """How we know that the release was made from its commit."""

    kind: EvidenceKind = Field(
        description="first-hand: read from the release's own bytes. second-hand: another "
        "project's file says so. unknown: nobody found out, and `commit` is null."
    )
    detail: Sentence = Field(description="Where it was read, or what was tried.")


class Artefact(Strict):
    """One file of a release on the package index; kind and platform follow from its name."""

    file: Sentence = Field(description="Its name on the index: NAME-VERSION.tar.gz or a wheel's.")
    sha256: Sha256Text = Field(description="Its sha256, 64 hex digits.")
    size: int = Field(alias="bytes", strict=True, gt=0, description="Its size in bytes.")

    @property
    def kind(self) -> SourceKind:
        """sdist or wheel."""
        return SourceKind.WHEEL if self.file.endswith(".whl") else SourceKind.SDIST

    @property
    def platforms(self) -> tuple[str, ...]:
        """The OCI platforms it is for (`linux/arm64`); empty: for every one."""
        if self.kind is not SourceKind.WHEEL:
            return ()
        tags = {tag.platform for tag in parse_wheel_filename(self.file)[3]}
        return tuple(
            platform
            for machine, platform in _MACHINES
            if any("linux" in tag and tag.endswith(f"_{machine}") for tag in tags)
        )

    @property
    def pythons(self) -> tuple[str, ...]:
        """The CPython versions it is bound to (`3.12`); empty: to none."""
        if self.kind is not SourceKind.WHEEL:
            return ()
        tags = parse_wheel_filename(self.file)[3]
        if any(tag.abi in ("none", "abi3") for tag in tags):
            return ()
        numbers = {tag.interpreter.removeprefix("cp") for tag in tags}
        return tuple(sorted(f"{number[0]}.{number[1:]}" for number in numbers))


class Stamp(Strict):
    """Where the package itself says its version, for the patched wheel to say its own."""

    path: PathText = Field(description="Path of the Python file in the wheel.")
    variable: VariableName = Field(description="Module variable that holds the version.")


class Release(Strict):
    """One pinned upstream version."""

    version: VersionText = Field(description="PEP 440 version, in quotes.")
    tag: TagName | None = Field(default=None, description="The upstream tag; null: there is none.")
    commit: CommitText | None = Field(
        default=None,
        description="The full commit id that the tag must point to. null only where "
        "commit-evidence says unknown; then the release cannot be fetched by git.",
    )
    commit_evidence: CommitEvidence = Field(description="How the commit is known.")
    date: DateText = Field(
        description="When the release was published: UTC, in quotes. Builds take it for "
        "SOURCE_DATE_EPOCH."
    )
    artefacts: tuple[Artefact, ...] = Field(
        default=(), description="The release's files on the package index, each by its digest."
    )
    series: FolderName | None = Field(
        default=None, description="Folder of the patch series, below patches/STACK/; null: none."
    )
    stamp: Stamp | None = Field(
        default=None,
        description="The version string in the package that a patched wheel rewrites; null: none.",
    )
    requires: dict[StackName, VersionText] = Field(
        default={}, description="Other stacks that this release needs, each at one release."
    )
    bases: tuple[BaseImage, ...] = Field(
        default=(),
        description="Images that hold this release, by digest: `build --base` takes from here "
        "where the package lies and that it is this version, and reads no layer.",
    )

    @property
    def epoch(self) -> int:
        """The date in seconds since 1970, for SOURCE_DATE_EPOCH."""
        return int(datetime.fromisoformat(self.date).timestamp())

    @property
    def source(self) -> SourceKind:
        """The kind of source that stands for the release, the same on every machine.

        A pinned sdist before a pinned wheel, which holds less of the git tree; git where the
        recipe pins no file. What else a person has fetched does not count.
        """
        kinds = {artefact.kind for artefact in self.artefacts}
        archives = (kind for kind in (SourceKind.SDIST, SourceKind.WHEEL) if kind in kinds)
        return next(archives, SourceKind.GIT)


class ArchSettings(Strict):
    """What the stack needs on one GPU architecture."""

    env: dict[VariableName, VariableValue] = Field(
        default={}, description="Environment to build with and to run with on this arch."
    )
    build_args: dict[VariableName, VariableValue] = Field(
        default={},
        description="Arguments for dockerfiles/STACK.Dockerfile where something must be compiled.",
    )
    launch: tuple[Launch, ...] = Field(
        default=(), description="What to start the server with where its own choice does not do."
    )
    cuda: RangeText = Field(description="CUDA toolkits that serve for the arch, a PEP 440 range.")
    notes: str = Field(default="", description="What a person must know on this arch.")


class Recipe(Strict):
    """`recipes/STACK.yaml`."""

    stack: StackName = Field(description="The stack's name, and this file's.")
    summary: Sentence = Field(description="One line for `stackpatch list`.")
    upstream: Upstream = Field(description="Where the upstream project is found.")
    layouts: Layouts = Field(
        default=Layouts(),
        description="How the paths of an sdist and of a wheel map to the upstream git tree.",
    )
    python: PythonVersion | None = Field(
        default=None,
        description="The CPython whose wheel is meant where a release has one per version; quoted.",
    )
    default: VersionText = Field(description="The release that is meant when none is named.")
    releases: tuple[Release, ...] = Field(
        min_length=1, description="The pinned upstream versions, oldest first."
    )
    archs: dict[str, ArchSettings] = Field(
        min_length=1, description="The GPU architectures that the stack is built for, by name."
    )
    caches: tuple[StackName, ...] = Field(
        default=(),
        description="Caches of compiled kernels that the stack reads (`stackpatch cache list`).",
    )
    shadowed_by: tuple[DistributionName, ...] = Field(
        default=(),
        description="Distributions whose prebuilt code wins over patched source when installed.",
    )
    same_version: tuple[DistributionName, ...] = Field(
        default=(),
        description="Distributions that must be of the stack's own version where they are "
        "installed beside it; the stack refuses others, or takes their kernels.",
    )
    gates: Gates = Field(
        default=Gates(),
        description="Checks for the GPU in the sources, and which kernels stand behind them.",
    )
    smoke: tuple[SmokeCheck, ...] = Field(
        default=(), description="What `stackpatch smoke` runs, in order; the names are distinct."
    )
    issues: tuple[Issue, ...] = Field(
        default=(), description="Upstream issues and pull requests that matter to the stack."
    )
    revisit: tuple[Revisit, ...] = Field(
        default=(),
        description="On what to look at the stack again; `stackpatch upstream` says which are due.",
    )
    fork: Fork | None = Field(
        default=None, description="A fork whose commits are a series here; null: there is none."
    )

    def release(self, version: str | None = None) -> Release:
        """The release of that version or tag; without one, the default.

        Raises InputError that names the nearest ones.
        """
        wanted = self.default if version is None else version
        for release in self.releases:
            if wanted in (release.version, release.tag, f"v{release.version}"):
                return release
        msg = f"{self.stack} has no pinned release {wanted!r}"
        raise InputError(msg, hint=nearest.hint(wanted, [r.version for r in self.releases]))

    def arch(self, name: str) -> ArchSettings:
        """The settings for an arch. Raises InputError when the recipe has none for it."""
        if name in self.archs:
            return self.archs[name]
        msg = f"the recipe of {self.stack} has no arch {name!r}"
        raise InputError(msg, hint=nearest.hint(name, self.archs))

    def artefact(
        self,
        release: Release,
        kind: SourceKind,
        platform: str | None = None,
        python: str | None = None,
    ) -> Artefact:
        """The pinned file of that kind.

        platform: `linux/arm64`; without one, linux/amd64's where the files differ by it.
        python: `3.12`; without one, the recipe's `python`. Raises InputError when no file fits,
        or more than one.
        """
        name = f"{self.stack} {release.version}"
        of_kind = [artefact for artefact in release.artefacts if artefact.kind is kind]
        if not of_kind:
            have = sorted({artefact.kind.value for artefact in release.artefacts})
            msg = f"the recipe pins no {kind} of {name}"
            raise InputError(msg, hint=f"it pins: {', '.join(have)}" if have else "it pins no file")
        platform = platform or USUAL_PLATFORM
        python = python or self.python
        fits = [
            artefact
            for artefact in of_kind
            if (not artefact.platforms or platform in artefact.platforms)
            and (not artefact.pythons or python is None or python in artefact.pythons)
        ]
        if len(fits) == 1:
            return fits[0]
        asked = platform + (f" and Python {python}" if python else "")
        files = ", ".join(artefact.file for artefact in fits or of_kind)
        if not fits:
            msg = f"the recipe pins no {kind} of {name} for {asked}"
            raise InputError(msg, hint=f"it pins {files}")
        msg = f"several files of {name} fit {asked}: {files}"
        raise InputError(msg, hint="name the Python, or give the recipe a `python`")
