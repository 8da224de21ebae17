"""The smoke checks of a recipe: what `stackpatch smoke` runs, in which order, for how long."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from stackpatch.model.recipe_base import Strict
from stackpatch.model.recipe_fields import PathText, Sentence, StackName


class Builtin(StrEnum):
    """A check that stackpatch makes itself."""

    FILES = "files"
    AUDIT = "audit"
    SHADOWING = "shadowing"


class Ignored(Strict):
    """Files with GPU code that the arch needs no code of its own in, and why."""

    path: PathText = Field(
        description="Pattern of paths in the package's folder; `*` matches `/` too."
    )
    why: Sentence = Field(description="How it is known that the arch never loads them.")


class SmokeCheck(Strict):
    """One check: a program in `recipes/STACK/smoke/`, or one that is built in."""

    name: StackName = Field(description="What the check is called in the table and in smoke.json.")
    program: PathText | None = Field(
        default=None,
        description="File in recipes/STACK/smoke/, run with the subject's Python: one JSON line on "
        "standard output, exit status 0 (passed), 1 (failed) or 77 (not run).",
    )
    builtin: Builtin | None = Field(
        default=None,
        description="files: the installed bytes are what the wheel's RECORD says. audit: the GPU "
        "code that is installed runs on the arch. shadowing: nothing is loaded instead of the "
        "patched sources.",
    )
    timeout: int = Field(
        default=600,
        strict=True,
        gt=0,
        description="Seconds after which a program is killed with everything that it started.",
    )

    ignore: tuple[Ignored, ...] = Field(
        default=(),
        description="For audit: files of other arches, which are counted and not judged.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.program is None) == (self.builtin is None):
            msg = "a check has either a program or a builtin"
            raise ValueError(msg)
        if self.ignore and self.builtin is not Builtin.AUDIT:
            msg = "only the audit ignores files"
            raise ValueError(msg)
        return self
