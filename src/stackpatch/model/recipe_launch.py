"""How a stack is started on an arch: arguments and environment that its defaults do not choose.

What a server takes by itself changes from release to release, and so does what is advised here.
"""

from __future__ import annotations

from typing import Annotated, Self

from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic import AfterValidator, Field, model_validator

from stackpatch.model.recipe_base import Strict
from stackpatch.model.recipe_fields import RangeText, Sentence, VariableName, VariableValue


def _argument(value: str) -> str:
    if not value or any(ord(character) < 32 or ord(character) == 127 for character in value):
        msg = f"{value!r} is empty or holds a control character"
        raise ValueError(msg)
    if value.startswith("-") and " " in value.partition("=")[0]:
        option, _, rest = value.partition(" ")
        msg = f"{value!r} is two arguments; write [{option}, {rest}]"
        raise ValueError(msg)
    return value


ArgumentText = Annotated[str, AfterValidator(_argument)]


class Launch(Strict):
    """What to start the server with on this arch, and why its own choice is not enough."""

    releases: RangeText = Field(
        description="The stack's releases that this is for, a PEP 440 range: `>=0.5.6,<0.5.14`."
    )
    when: Sentence = Field(description="For what: a kind of model, a setting. Any, if always.")
    args: tuple[ArgumentText, ...] = Field(
        default=(), description="Arguments of the server, one by one, as a shell hands them over."
    )
    env: dict[VariableName, VariableValue] = Field(
        default={}, description="Environment of the server."
    )
    why: Sentence = Field(description="What happens without it, and who has seen that.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.args and not self.env:
            msg = "neither args nor env: it says nothing to start with"
            raise ValueError(msg)
        return self

    def serves(self, version: str) -> bool:
        """Whether it is for that release; release candidates count as their number says."""
        return SpecifierSet(self.releases).contains(Version(version), prereleases=True)
