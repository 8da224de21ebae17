"""One piece of GPU code as far as its bytes tell what it was compiled for.

Where the bytes leave two answers open, both are kept: a question about a device is then answered
yes or no only when every candidate gives the same answer, and "unknown" otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from stackpatch.model.arch import CodeArch

if TYPE_CHECKING:
    from collections.abc import Iterable


class DamagedError(ValueError):
    """Bytes that do not hold what their headers promise; the message says what and where."""


class Form(StrEnum):
    """What kind of code it is, by what the driver must do before it runs."""

    MACHINE = "machine"  # a cubin: runs as it is
    PTX = "ptx"  # the driver compiles it when it is loaded
    LTO = "lto"  # needs nvJitLink in the program that loads it
    OTHER = "other"  # an entry of a kind that we do not know


@dataclass(frozen=True, slots=True, order=True)
class Code:
    """GPU code of one target.

    candidates: every target that the bytes allow, sorted; one where they decide. why: what leaves
    it open, "" where nothing does.
    """

    form: Form
    candidates: tuple[CodeArch, ...]
    why: str = ""

    def __str__(self) -> str:
        """`sm_121a`, `compute_90`, `lto_120`; an open one by its plainest candidate."""
        first = self.candidates[0]
        match self.form:
            case Form.MACHINE | Form.PTX:
                return str(first)
            case Form.LTO | Form.OTHER:
                return f"{self.form}_{first.number}{first.suffix}"

    @property
    def decided(self) -> bool:
        """Whether the bytes name exactly one target."""
        return len(self.candidates) == 1

    def runs_on(self, capability: int) -> bool | None:
        """Whether a device of this compute capability runs it; None where the bytes do not say.

        PTX: by the driver's JIT. LTO code and unknown kinds are always None: whether they run
        depends on the program that loads them.
        """
        if self.form in (Form.LTO, Form.OTHER):
            return None
        answers = {candidate.runs_on(capability) for candidate in self.candidates}
        return answers.pop() if len(answers) == 1 else None


def code(form: Form, number: int, suffixes: Iterable[str] = ("",), *, why: str = "") -> Code:
    """The code of `number` with one of these suffixes; `why` is kept only where several are."""
    return _code(form, number, tuple(sorted(set(suffixes))), why)


@lru_cache(4096)  # a package has thousands of files for a few targets
def _code(form: Form, number: int, suffixes: tuple[str, ...], why: str) -> Code:
    candidates = tuple(CodeArch(number, suffix, ptx=form is Form.PTX) for suffix in suffixes)
    return Code(form, candidates, why if len(candidates) > 1 else "")
