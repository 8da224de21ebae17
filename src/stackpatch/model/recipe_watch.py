"""What a recipe follows upstream: issues, the conditions on which to look again, and a fork.

A condition is a small tree with one key at each node, so that the schema checks it like every
other field. Whether it holds is asked by `sources/watch`; here is only what may be written.
"""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from stackpatch.model.recipe_base import Strict
from stackpatch.model.recipe_fields import (
    CommitText,
    DistributionName,
    GitUrl,
    Like,
    RangeText,
    Sentence,
    Url,
    VersionText,
)

_THING = r"https://github\.com/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+"
TrackedUrl = Annotated[
    str,
    Like(
        rf"{_THING}/(issues|pull)/[0-9]+",
        "https://github.com/OWNER/REPOSITORY/issues/N or …/pull/N",
    ),
]
PullUrl = Annotated[
    str,
    Like(
        rf"{_THING}/pull/[0-9]+",
        "https://github.com/OWNER/REPOSITORY/pull/N; issues are `closed`",
    ),
]
# What git takes for a branch (git check-ref-format), without what a shell or refspec would read.
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+/#-]*", re.ASCII)


def check_branch(value: str) -> str:
    """A branch's name as git takes it. Raises ValueError for what is none."""
    wrong = ("..", "//", "/.", "@{", ".lock/")
    if (
        not _BRANCH.fullmatch(value)
        or value.endswith(("/", ".", ".lock"))
        or any(text in value for text in wrong)
    ):
        msg = f"{value!r} is not a branch's name"
        raise ValueError(msg)
    return value


BranchName = Annotated[
    str,
    Field(json_schema_extra={"pattern": f"^({_BRANCH.pattern})$"}),
    AfterValidator(check_branch),
]
_KINDS = ("all", "any", "closed", "merged", "released")


class Condition(Strict):
    """What must be true upstream: exactly one of `all`, `any`, `closed`, `merged`, `released`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [kind]} for kind in _KINDS]}
    )

    all: tuple[Condition, ...] | None = Field(
        default=None, min_length=1, description="Conditions that must all be true."
    )
    any: tuple[Condition, ...] | None = Field(
        default=None, min_length=1, description="Conditions of which one must be true."
    )
    closed: TrackedUrl | None = Field(
        default=None,
        description="A GitHub issue or pull request that must be closed (merged counts as closed).",
    )
    merged: PullUrl | None = Field(
        default=None, description="A GitHub pull request that must be merged."
    )
    released: RangeText | None = Field(
        default=None,
        description="The package index must have a version in this PEP 440 range that was not "
        'withdrawn: `">=1.3.0"`.',
    )
    prereleases: bool | None = Field(
        default=None,
        strict=True,
        description="With `released`: whether release candidates and the like count; null: no.",
    )
    distribution: DistributionName | None = Field(
        default=None,
        description="With `released`: whose versions; null: the recipe's `upstream.pypi`.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            msg = f"want exactly one of {', '.join(_KINDS)}; found {found}"
            raise ValueError(msg)
        beside = [n for n in ("prereleases", "distribution") if getattr(self, n) is not None]
        if beside and self.released is None:
            msg = f"{beside[0]} goes with `released` only"
            raise ValueError(msg)
        return self


class Revisit(Strict):
    """On what to look at something again."""

    when: Condition = Field(description="What must be true upstream.")
    why: Sentence = Field(description="What to do then, and what it would change for us.")


class Issue(Strict):
    """An upstream issue or pull request that matters to the stack."""

    url: Url = Field(description="Its address.")
    why: Sentence = Field(description="What it means for us.")
    revisit: Condition | None = Field(
        default=None,
        description="What makes us look again, as `stackpatch upstream` evaluates it; null: "
        "nothing that a program could ask for.",
    )


class Fork(Strict):
    """A fork of the upstream project whose commits are a series here.

    `stackpatch import STACK --from-fork` writes it; the next run starts from its `commit`.
    """

    url: GitUrl = Field(description="The fork's repository.")
    branch: BranchName | None = Field(
        default=None, description="The branch that is followed; null: `commit` alone is meant."
    )
    commit: CommitText | None = Field(
        default=None,
        description="The fork's commit up to which its work is in the series; null: nothing was "
        "imported so far.",
    )
    base: CommitText | None = Field(
        default=None,
        description="The upstream commit that the fork's work starts from; null: found out by "
        "git at the first import.",
    )
    release: VersionText | None = Field(
        default=None, description="The release whose series it became; null: the default one."
    )

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if self.branch is None and self.commit is None:
            msg = "names neither a branch nor a commit"
            raise ValueError(msg)
        return self
