"""Every error a user can meet, its exit status, and what to do about it.

One class per exit status of the contract. Code raises them with what happened, where, and the
next step; `cli.main` renders them once. Anything else that escapes is a bug and writes a log.
"""

from __future__ import annotations

from typing import ClassVar


class StackpatchError(Exception):
    """An expected failure.

    message: one sentence, what happened; no trailing full stop, no traceback text.
    hint: what the person can do next; None where there is nothing sensible to say.
    where: `file:line`, a URL or a path; None where the message already says it.
    """

    exit_status: ClassVar[int] = 1
    kind: ClassVar[str] = "finding"

    def __init__(self, message: str, *, hint: str | None = None, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where


class FindingError(StackpatchError):
    """The program did its work and found something wrong: conflict, drift, failed check."""

    exit_status = 1
    kind = "finding"


class InputError(StackpatchError):
    """Wrong usage, recipe or patch file."""

    exit_status = 2
    kind = "input"


class EnvironmentProblem(StackpatchError):  # noqa: N818 - EnvironmentError is a builtin
    """The environment: a missing engine, the network, a registry, the disk."""

    exit_status = 3
    kind = "environment"


class WaitingError(StackpatchError):
    """Stopped for a person: a rebase conflict waits for `--continue`."""

    exit_status = 4
    kind = "waiting"


class Problems(InputError):  # noqa: N818 - a collection of problems, not one error
    """Several input problems, all reported at once; `problems` are ready `file:line: …` lines."""

    def __init__(self, message: str, problems: tuple[str, ...], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems
