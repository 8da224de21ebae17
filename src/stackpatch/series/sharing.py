"""Numbered units of work, shared among forked processes that each keep to a stretch of them.

The other processes only help: what one of them does not hand over, because it failed or was
killed, is simply not done when `spread` returns, and whoever called does it and meets the error.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import struct
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stackpatch import proc

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

# Beyond so many processes, what each has to read again costs more than it helps.
_MOST = 4
_LENGTH = struct.Struct("<Q")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Task(Protocol):
    """What is done with the units, in this process and in those beside it."""

    def do(self, unit: int) -> None:
        """Do one unit and keep what came of it."""

    def reopen(self) -> None:
        """Begin in a new process: nothing open may be shared with the one it came from."""

    def packed(self) -> bytes:
        """Everything that this process did since `reopen`."""

    def take(self, packed: bytes) -> None:
        """Keep what another process packed."""


def processors() -> int:
    """How many processes are worth having here."""
    return min(proc.processors(), _MOST)


def spread(first: int, end: int, task: Task, processes: int) -> None:
    """Do the units from `first` up to `end` in this process and, beside it, in forked ones.

    A unit that raises is left undone, and so are those after it. A process that has threads is
    not forked: a lock that one of them holds would never be released in the copy.
    """
    wanted = min(processes, end - first)
    if wanted < 2 or threading.active_count() > 1:
        _work(_alone(first, end), task)
        return
    try:
        board = _Board(first, end, wanted)
    except OSError:  # no room for a temporary file: no reason to stop
        _work(_alone(first, end), task)
        return
    helpers: list[_Helper] = []
    try:
        for number in range(1, wanted):
            with contextlib.suppress(OSError):  # no more processes: the others do its stretch
                _fork(board, number, task, helpers)
        _work(board.units(0), task, board)
        for helper in helpers:
            packed = helper.read()
            if packed is not None:
                task.take(packed)
    finally:
        for helper in helpers:
            helper.end()
        board.close()


def _alone(first: int, end: int) -> Iterator[int]:
    yield from range(first, end)


def _work(units: Iterator[int], task: Task, board: _Board | None = None) -> None:
    for unit in units:
        try:
            task.do(unit)
        except Exception:  # noqa: BLE001 - done once more by the caller, which meets it
            if board is None:
                return
            board.fail(unit)


class _Board:
    """Who does which unit: memory that all processes see, and a lock that ends with its holder.

    Each process has a stretch and takes it from the front; one that is through takes from the
    back of the longest other one. So each sees neighbouring units, which share the most.
    """

    def __init__(self, first: int, end: int, processes: int) -> None:
        self._lock = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._memory = mmap.mmap(-1, 4 * (1 + 2 * processes))
        self._processes = processes
        self._put(0, end)  # the first unit that failed
        for number in range(processes):
            for side in (0, 1):
                start = first + (end - first) * (number + side) // processes
                self._put(1 + 2 * number + side, start)

    def units(self, number: int) -> Iterator[int]:
        """The units that fall to the process with this number, as long as there are any."""
        while (unit := self._next(number)) is not None:
            yield unit

    def fail(self, unit: int) -> None:
        """Say that a unit failed: those after it need not be done."""
        with self._held():
            self._put(0, min(unit, self._get(0)))

    def close(self) -> None:
        """Give the memory and the lock back."""
        self._memory.close()
        self._lock.close()

    def _next(self, number: int) -> int | None:
        with self._held():
            front, back = self._stretch(number)
            if front < back:
                self._put(1 + 2 * number, front + 1)
                return front if front < self._get(0) else None
            other = max(range(self._processes), key=self._left)
            front, back = self._stretch(other)
            back = min(back, self._get(0))
            if front >= back:
                return None
            self._put(2 + 2 * other, back - 1)
            return back - 1

    def _left(self, number: int) -> int:
        front, back = self._stretch(number)
        return min(back, self._get(0)) - front

    def _stretch(self, number: int) -> tuple[int, int]:
        return self._get(1 + 2 * number), self._get(2 + 2 * number)

    def _get(self, at: int) -> int:
        return int.from_bytes(self._memory[4 * at : 4 * at + 4], "little")

    def _put(self, at: int, number: int) -> None:
        self._memory[4 * at : 4 * at + 4] = number.to_bytes(4, "little")

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)


@dataclass(slots=True)
class _Helper:
    """A forked process and the pipe through which its work comes."""

    pid: int
    pipe: int

    def read(self) -> bytes | None:
        """What it packed, once it is through; None when it ended before that."""
        with os.fdopen(self.pipe, "rb", closefd=False) as stream:
            head = stream.read(_LENGTH.size)
            if len(head) < _LENGTH.size:
                return None
            (length,) = _LENGTH.unpack(head)
            packed = stream.read(length)
        return packed if len(packed) == length else None

    def end(self) -> None:
        """See it ended, whatever it was doing."""
        os.close(self.pipe)
        os.kill(self.pid, signal.SIGKILL)  # ours until it is waited for, so never another's
        os.waitpid(self.pid, 0)


def _fork(board: _Board, number: int, task: Task, helpers: list[_Helper]) -> None:
    reading, writing = os.pipe()
    # A signal between the fork and the lines after it would be met by the wrong one of the two.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if pid == 0:
            _help(board, number, task, writing, [reading, *(h.pipe for h in helpers)], before)
        os.close(writing)
        helpers.append(_Helper(pid, reading))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _help(
    board: _Board,
    number: int,
    task: Task,
    writing: int,
    others: list[int],
    mask: Set[int],
) -> None:
    """The life of a helper; does not return. Nothing of the parent's is cleaned up or flushed."""
    try:
        parent = os.getppid()
        # Ctrl-C reaches the whole group: the parent decides, and ends us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for other in others:
            os.close(other)
        task.reopen()

        def units() -> Iterator[int]:
            for unit in board.units(number):
                yield unit
                if os.getppid() != parent:  # it was killed: nobody waits for this
                    return

        _work(units(), task, board)
        packed = task.packed()
        with os.fdopen(writing, "wb") as stream:
            stream.write(_LENGTH.pack(len(packed)) + packed)
    finally:
        os._exit(0)
