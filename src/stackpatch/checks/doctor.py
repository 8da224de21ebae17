"""What this machine has, and what that is good enough for: findings, in a fixed order.

Every probe runs in a thread of its own with a deadline, so that a program that hangs, a mount
that does not answer or a registry behind a silent firewall costs a line and not the command.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from stackpatch.errors import StackpatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Level(StrEnum):
    """How far a finding gets you."""

    OK = "ok"
    LIMITED = "limited"  # there, and not good enough for everything
    ABSENT = "absent"  # not there
    UNUSABLE = "unusable"  # there or not, it cannot be used
    UNKNOWN = "unknown"  # it gave no answer, or one that we cannot read


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for.

    found: it is there. version: as it says itself. good_for: what it is good enough for, or what
    fails without it. detail: facts. advice: what to do where it is not good enough. required:
    nothing works without it.
    """

    name: str
    level: Level
    found: bool = False
    version: str | None = None
    good_for: str = ""
    detail: str = ""
    advice: str | None = None
    required: bool = False

    @property
    def blocks(self) -> bool:
        """Whether stackpatch cannot do its work here because of it."""
        return self.required and self.level in {Level.ABSENT, Level.UNUSABLE, Level.UNKNOWN}

    def document(self) -> dict[str, object]:
        """The row of `doctor`'s document."""
        return {**asdict(self), "level": str(self.level)}


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing to look for. look: takes the seconds it may take; may raise and may hang."""

    name: str
    look: Callable[[float], Finding]
    required: bool = False


def examine(probes: Sequence[Probe], *, timeout: float = 8.0) -> list[Finding]:
    """Run all probes at once; returns their findings in the order of the probes.

    timeout: seconds for each. One that takes longer is `unknown`; its thread is left behind.
    """
    answers: queue.SimpleQueue[tuple[int, Finding]] = queue.SimpleQueue()
    for number, probe in enumerate(probes):
        # Daemon threads: the program may end while one of them hangs in the kernel.
        threading.Thread(
            target=_run, args=(number, probe, timeout, answers), name=probe.name, daemon=True
        ).start()
    found: dict[int, Finding] = {}
    # A probe's programs are stopped at `timeout`; a second more lets it say so itself.
    deadline = time.monotonic() + timeout + 1.0
    while len(found) < len(probes):
        try:
            number, finding = answers.get(timeout=max(deadline - time.monotonic(), 0.001))
        except queue.Empty:
            break
        found[number] = finding
    return [found.get(number) or _silent(probe, timeout) for number, probe in enumerate(probes)]


def _run(
    number: int, probe: Probe, timeout: float, answers: queue.SimpleQueue[tuple[int, Finding]]
) -> None:
    try:
        finding = probe.look(timeout)
    except StackpatchError as error:
        finding = Finding(
            probe.name,
            Level.UNKNOWN,
            detail=error.message,
            advice=error.hint,
            required=probe.required,
        )
    except Exception as error:  # noqa: BLE001 - one probe's mistake must not hide the others
        said = f"{type(error).__name__}: {error}"
        finding = Finding(probe.name, Level.UNKNOWN, detail=said, required=probe.required)
    answers.put((number, finding))


def _silent(probe: Probe, timeout: float) -> Finding:
    return Finding(
        probe.name,
        Level.UNKNOWN,
        detail=f"gave no answer within {timeout:g} s",
        advice="run it by hand to see where it hangs",
        required=probe.required,
    )
