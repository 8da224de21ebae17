"""Progress of long work: bytes and rate, for whoever watches stderr.

Core code takes a callback `report(label, done, total)` and knows nothing of this module: label
names one piece of work (a file), done and total are bytes, total is None where nobody knows it.
On a terminal that gives live bars; elsewhere (CI, a log) one line every few seconds. Work that is
over in a blink shows nothing. stdout is never touched, so `--json` changes nothing here.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from stackpatch.cli import terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Report = Callable[[str, int, int | None], None]

PATIENCE = 0.5  # seconds of silence at the start: importing rich costs 0.1 s, most work is shorter
INTERVAL = 5.0  # seconds between two plain lines


@contextmanager
def reporting() -> Iterator[Report]:
    """The callback for the work inside the block; clears what it drew when the block ends."""
    with ExitStack() as stack:
        live = terminal.is_terminal(sys.stderr) and os.environ.get("TERM", "dumb") != "dumb"
        view: _View = _Bars(stack) if live else _Lines(_stderr_line)
        yield _Throttle(view, time.monotonic).report


class _View(Protocol):
    """Something that shows progress; called at most a few times a second, never concurrently."""

    interval: float

    def show(self, work: Work, now: float) -> None:
        """Show the state of one piece of work. now: seconds of a monotonic clock."""


@dataclass(slots=True)
class Work:
    """One labelled piece of work. started and shown are seconds of a monotonic clock."""

    label: str
    started: float
    done: int = 0
    total: int | None = None
    first: int = 0  # bytes that were there before: a resumed download is not a fast one
    shown: float | None = None

    @property
    def complete(self) -> bool:
        """Whether everything that was announced has come."""
        return self.total is not None and self.done >= self.total

    def rate(self, now: float) -> float:
        """Bytes a second since the start."""
        return (self.done - self.first) / max(now - self.started, 1e-3)


@dataclass(slots=True)
class _Throttle:
    """Lets through what is worth showing; safe to call from several threads for every block."""

    view: _View
    clock: Callable[[], float]
    works: dict[str, Work] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def report(self, label: str, done: int, total: int | None = None) -> None:
        """The callback."""
        now = self.clock()
        with self.guard:
            work = self.works.get(label)
            if work is None:
                work = self.works[label] = Work(label, now, done, total, first=done)
            if done < work.done:  # started again from the beginning
                work.started, work.first = now, done
            work.done, work.total = done, total
            last = work.shown if work.shown is not None else work.started
            wait = PATIENCE if work.shown is None else self.view.interval
            finished = work.complete and work.shown is not None
            if now - last >= wait or finished:
                work.shown = now
                self.view.show(work, now)
            if work.complete:
                del self.works[label]


@dataclass(slots=True)
class _Lines:
    """Plain lines, for a log."""

    write: Callable[[str], None]
    interval: float = INTERVAL

    def show(self, work: Work, now: float) -> None:
        """One line."""
        self.write(line(work, now))


@dataclass(slots=True)
class _Bars:
    """Live bars on a terminal, drawn by rich."""

    stack: ExitStack
    interval: float = 0.1
    bars: Progress | None = None
    tasks: dict[str, TaskID] = field(default_factory=dict)

    def show(self, work: Work, now: float) -> None:  # noqa: ARG002 - rich has its own clock
        """Move the bar of this work; the first call imports rich and starts drawing."""
        with suppress(OSError):
            if self.bars is None:
                self.bars = self.stack.enter_context(_rich_bars())
            task = self.tasks.get(work.label)
            if task is None:
                task = self.bars.add_task(_plain(work.label), total=work.total)
                self.tasks[work.label] = task
            self.bars.update(task, completed=work.done, total=work.total)


def _rich_bars() -> Progress:
    from rich import progress as rich_progress
    from rich.console import Console

    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(bar_width=24),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(compact=True),
        console=Console(file=sys.stderr),
        transient=True,
    )


def line(work: Work, now: float) -> str:
    """`NAME: 3.1 of 5.2 MB (59%), 1.2 MB/s`."""
    rate = f"{size(work.rate(now))}/s"
    if work.total is None:
        return f"{work.label}: {size(work.done)}, {rate}"
    percent = 100 if work.complete else min(99, work.done * 100 // max(work.total, 1))
    return f"{work.label}: {size(work.done)} of {size(work.total)} ({percent}%), {rate}"


def size(count: float) -> str:
    """Bytes for people, in decimal units: `5.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _plain(label: str) -> str:
    return label.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _stderr_line(text: str) -> None:
    with suppress(OSError):
        terminal.write(sys.stderr, text + "\n")
