"""What a comparison is, and how it is measured: in turns, so that a busy machine hits all alike."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. seconds: wall clock. peak: the process's largest resident size in bytes."""

    seconds: float
    peak: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to do the job.

    run: does it once and says what it took (`command`, `call`). before: untimed preparation for
    every run, such as an unpatched tree.
    """

    name: str
    run: Callable[[], Sample]
    before: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the first contender must reach; exactly one of the three.

    against, at_most: at most this many times the other's time (0.2: five times faster).
    seconds: at most this long. peak: at most this many bytes resident.
    """

    against: str | None = None
    at_most: float | None = None
    seconds: float | None = None
    peak: int | None = None

    def __post_init__(self) -> None:
        kinds = (self.against, self.seconds, self.peak)
        if sum(kind is not None for kind in kinds) != 1 or bool(self.against) != bool(self.at_most):
            msg = f"a goal is against and at_most, or seconds, or peak: {self}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One job done in several ways; the first contender is ours.

    rounds: how often each runs, in turns, after one round that does not count.
    """

    title: str
    contenders: tuple[Contender, ...]
    goals: tuple[Goal, ...] = ()
    rounds: int = 7
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """What one contender took: the median, the extremes, the largest peak in bytes."""

    name: str
    median: float
    fastest: float
    slowest: float
    peak: int | None


@dataclass(frozen=True, slots=True)
class Reached:
    """A goal beside what was measured."""

    text: str
    measured: str
    met: bool


def measure(comparison: Comparison) -> tuple[Row, ...]:
    """Run every contender in turns."""
    samples: dict[str, list[Sample]] = {c.name: [] for c in comparison.contenders}
    for number in range(comparison.rounds + 1):
        for contender in comparison.contenders:
            if contender.before is not None:
                contender.before()
            sample = contender.run()
            if number:  # the first round fills caches
                samples[contender.name].append(sample)
    return tuple(_row(name, found) for name, found in samples.items())


def judge(comparison: Comparison, rows: Sequence[Row]) -> tuple[Reached, ...]:
    """Each goal of the comparison, met or not."""
    ours, by_name = rows[0], {row.name: row for row in rows}
    found = []
    for goal in comparison.goals:
        if goal.against is not None and goal.at_most is not None:
            ratio = ours.median / by_name[goal.against].median
            text = f"at most {goal.at_most:g} x {goal.against}"
            found.append(Reached(text, f"{times(ratio)} x", ratio <= goal.at_most))
        elif goal.seconds is not None:
            text = f"at most {seconds(goal.seconds)}"
            found.append(Reached(text, seconds(ours.median), ours.median <= goal.seconds))
        elif goal.peak is not None:
            if ours.peak is None:
                msg = f"{comparison.title}: a goal for memory, and {ours.name} measures none"
                raise ValueError(msg)
            text = f"at most {goal.peak / 1e6:.0f} MB resident"
            found.append(Reached(text, f"{ours.peak / 1e6:.0f} MB", ours.peak <= goal.peak))
    return tuple(found)


_COMPILED = Path(__file__).parent.absolute() / "work" / "compiled"

# The kernel counts what a process was before exec into its peak, so a child of this process would
# never seem smaller than we are. A bare interpreter in between starts, times and weighs it.
_LAUNCHER = """
import os, resource, sys, time
nowhere = os.open(os.devnull, os.O_RDWR)
actions = [(os.POSIX_SPAWN_DUP2, nowhere, fd) for fd in (0, 1, 2)]
started = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
took = time.perf_counter() - started
print(took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, status)
"""


def command(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    status: int = 0,
) -> Callable[[], Sample]:
    """A contender that is a program. env: variables to add. Fails at another exit status.

    Python programs find their modules compiled, as an installation leaves them; the first round
    does that where it is not so.
    """
    words = [str(word) for word in argv]
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(_COMPILED)}

    def run() -> Sample:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, *words],
            cwd=cwd,
            env={**os.environ, **compiled, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        took, kilobytes, ended = done.stdout.split()
        if int(ended) != status:
            msg = f"{' '.join(words)} ended with status {ended}"
            raise RuntimeError(msg)
        return Sample(float(took), int(kilobytes) * 1024)

    return run


def call(function: Callable[[], object]) -> Callable[[], Sample]:
    """A contender that is a call inside this process."""

    def run() -> Sample:
        started = time.perf_counter()
        function()
        return Sample(time.perf_counter() - started)

    return run


def program(name: str) -> str:
    """A program of the environment that runs the benchmarks, such as `stackpatch`."""
    return os.path.join(os.path.dirname(sys.executable), name)  # noqa: PTH118, PTH120


def seconds(value: float) -> str:
    """`6.1 ms` or `1.24 s`."""
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def times(ratio: float) -> str:
    """`1.58`, `0.21`, and two digits that say something of what is far below: `0.0079`."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def _row(name: str, samples: Sequence[Sample]) -> Row:
    times = [sample.seconds for sample in samples]
    peaks = [sample.peak for sample in samples if sample.peak is not None]
    return Row(name, statistics.median(times), min(times), max(times), max(peaks, default=None))
