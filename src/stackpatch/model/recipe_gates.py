"""The `gates` of a recipe: where the sources ask for the GPU, and which kernels stand behind that.

Everything here is data that somebody wrote down: how a check is recognised, what was measured in
a package that is too big to fetch at every build. Judging is `checks/gates`.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from stackpatch.model.arch import CodeArch
from stackpatch.model.recipe_base import Strict
from stackpatch.model.recipe_fields import (
    CodeText,
    DayText,
    DistributionName,
    FolderName,
    GlobText,
    PatternText,
    Sentence,
    Sha256Text,
    StackName,
    VersionText,
)

# What a pattern's groups say, by name; a group may stand several times and match several times.
GROUPS = ("major", "capability", "minimum", "target")


class KernelKind(StrEnum):
    """What kind of code stands behind a gate."""

    BINARIES = "binaries"
    JIT = "jit"
    UNKNOWN = "unknown"


class Measured(Strict):
    """What `stackpatch audit` counted in a package of prebuilt kernels."""

    release: VersionText = Field(description="The stack's release that loads this package.")
    distribution: DistributionName = Field(description="The package on the index.")
    version: VersionText = Field(description="Its version.")
    file: Sentence = Field(description="The file that was audited.")
    sha256: Sha256Text = Field(description="Its sha256, 64 hex digits.")
    codes: dict[CodeText, int] = Field(
        min_length=1,
        description="How many files hold code of which target, by the audit's names: `sm_100f`; "
        "`sm_120a|sm_120f` where the bytes leave it open. A file of several targets counts for "
        "each.",
    )
    date: DayText = Field(description="When it was measured.")
    how: Sentence = Field(description="By what, and over which of its files.")

    def targets(self) -> tuple[tuple[tuple[CodeArch, ...], int], ...]:
        """What each count is of: every target that the bytes allow."""
        return tuple(
            (tuple(CodeArch.parse(one) for one in name.split("|")), count)
            for name, count in self.codes.items()
        )


class Compiled(Strict):
    """A source behind a gate that was compiled for an arch, or refused to be."""

    release: VersionText = Field(description="The stack's release.")
    arch: StackName = Field(description="The arch it was compiled for.")
    source: Sentence = Field(description="Which source.")
    compiles: bool = Field(strict=True, description="Whether the compiler took it.")
    date: DayText = Field(description="When.")
    how: Sentence = Field(description="By which compiler, and what it said.")


class Kernels(Strict):
    """What is run once a gate is open."""

    kind: KernelKind = Field(
        description="binaries: prebuilt code, and nothing else will do. jit: compiled from these "
        "sources when it is first used. unknown: nobody found out."
    )
    what: Sentence = Field(description="What it is, in a line.")
    files: tuple[GlobText, ...] = Field(
        default=(),
        description="Paths, as an audit names them, by which the binaries are recognised in a "
        "target; * matches / too.",
    )
    measured: tuple[Measured, ...] = Field(default=(), description="Counts, for binaries.")
    compiled: tuple[Compiled, ...] = Field(default=(), description="Compilations, for jit.")
    look_at: Sentence = Field(description="What has to be looked at where nothing was measured.")


class GateRule(Strict):
    """How one kind of check is recognised. Of two rules that match the same text, the first."""

    name: StackName = Field(description="Its name in reports.")
    what: Sentence = Field(description="What the check does, in a line.")
    paths: tuple[GlobText, ...] = Field(
        min_length=1, description="Files in the git tree; * matches / too."
    )
    symbols: tuple[GlobText, ...] = Field(
        default=("*",),
        min_length=1,
        description="Enclosing symbols (`Class::method`, or its last part) in which it counts.",
    )
    contains: Sentence = Field(
        description="A text without which a file is not looked at: what every match holds."
    )
    pattern: PatternText = Field(
        description="Regular expression over the file without comments, white space collapsed to "
        "one blank. What it admits is read from its groups: `major` (10), `capability` (120), "
        "`minimum` (from this major on), `target` (100f, 12.0f, 8.0+PTX); each may occur several "
        "times. A group may hold a list of numbers."
    )
    majors: tuple[int, ...] = Field(
        default=(), description="What a match admits where the text itself has no number."
    )
    behind: StackName = Field(description="Which of `kernels` is run when it is open.")


class Shipped(Strict):
    """A patch that opens a gate without a kernel behind it, and why it is shipped all the same."""

    patch: Sentence = Field(description="The file's name in its series.")
    series: tuple[FolderName, ...] = Field(min_length=1, description="The series that have it.")
    because: Sentence = Field(description="Why it is shipped.")


class Gates(Strict):
    """The checks for the GPU in the sources, and what stands behind them."""

    rules: tuple[GateRule, ...] = Field(default=(), description="How checks are recognised.")
    kernels: dict[StackName, Kernels] = Field(
        default={}, description="What is run once a gate is open, by the name that rules use."
    )
    shipped: tuple[Shipped, ...] = Field(
        default=(), description="Patches that open a gate which leads nowhere, with the reason."
    )

    def because(self, series: str | None, patch: str) -> str | None:
        """Why a patch of a series is shipped although its gate leads nowhere; None: nobody said."""
        found = (s.because for s in self.shipped if s.patch == patch and series in s.series)
        return next(found, None)
