"""Work shared among processes: the same results, whatever becomes of the processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.upstreams import Upstream, filler, function

from stackpatch.errors import InputError
from stackpatch.series import matrix
from stackpatch.series.apply import apply_series
from stackpatch.series.memo import Memo
from stackpatch.series.sharing import processors, spread

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def _own_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that another test has left in this process keeps none of these from forking."""
    real, before = threading.active_count, threading.active_count()
    monkeypatch.setattr(threading, "active_count", lambda: real() - before + 1)


class Notes:
    """A task that notes who did what; `does` is called for each unit first."""

    def __init__(self, does: Callable[[Notes, int], None] = lambda _notes, _unit: None) -> None:
        self.does = does
        self.done: dict[int, int] = {}
        self.parent = os.getpid()

    @property
    def helping(self) -> bool:
        return os.getpid() != self.parent

    def do(self, unit: int) -> None:
        self.does(self, unit)
        self.done[unit] = os.getpid()

    def reopen(self) -> None:
        self.done = {}

    def packed(self) -> bytes:
        return json.dumps(self.done).encode()

    def take(self, packed: bytes) -> None:
        taken = {int(unit): pid for unit, pid in json.loads(packed).items()}
        assert self.done.keys().isdisjoint(taken), "nothing is done twice"
        self.done |= taken


def slowly(_notes: Notes, _unit: int) -> None:
    time.sleep(0.01)


def together(processes: int) -> Callable[[Notes, int], None]:
    """Nobody goes on with its first unit before so many processes have begun one.

    On a busy machine a process may start so late that the others have done its work as well.
    """
    begun = multiprocessing.get_context("fork").Barrier(processes)

    def wait(notes: Notes, _unit: int) -> None:
        if not notes.done:
            begun.wait(60)

    return wait


def no_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


@pytest.mark.parametrize("processes", [1, 2, 3, 9])
@pytest.mark.parametrize(("first", "end"), [(0, 40), (7, 9), (3, 4), (5, 5)])
def test_every_unit_is_done_once(processes: int, first: int, end: int) -> None:
    wanted = min(processes, end - first)
    notes = Notes(together(max(wanted, 1)))
    spread(first, end, notes, processes)
    assert sorted(notes.done) == list(range(first, end))
    assert len(set(notes.done.values())) == wanted
    assert no_children()


def test_who_is_through_helps_the_others() -> None:
    start = together(2)

    def uneven(notes: Notes, unit: int) -> None:
        start(notes, unit)
        time.sleep(0.1 if unit < 10 else 0)

    notes = Notes(uneven)
    spread(0, 20, notes, 2)
    mine = [unit for unit, pid in notes.done.items() if pid == os.getpid()]
    assert len(notes.done) == 20
    assert mine == list(range(len(mine))), "the front of its own stretch"
    assert len(mine) < 9, "the back of the slow stretch was done by the other"


def test_a_unit_that_fails_in_a_helper_is_left_to_the_caller() -> None:
    def fails(notes: Notes, unit: int) -> None:
        slowly(notes, unit)
        if unit == 15:
            msg = "no"
            raise ValueError(msg)

    notes = Notes(fails)
    spread(0, 20, notes, 2)
    assert 15 not in notes.done
    assert set(range(15)) <= notes.done.keys(), "all before it"


def test_a_helper_that_is_killed_costs_only_its_work() -> None:
    def dies(notes: Notes, unit: int) -> None:
        slowly(notes, unit)
        if notes.helping and unit > 12:
            os.kill(os.getpid(), signal.SIGKILL)

    notes = Notes(dies)
    spread(0, 20, notes, 2)
    assert set(notes.done.values()) == {os.getpid()}
    assert set(range(10)) <= notes.done.keys()
    assert no_children()


def test_no_fork_beside_a_thread() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        notes = Notes(slowly)
        spread(0, 10, notes, 4)
    finally:
        stop.set()
        thread.join()
    assert set(notes.done.values()) == {os.getpid()}


def test_a_machine_that_has_no_more_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", none)
    before = len(list(Path("/proc/self/fd").iterdir()))
    notes = Notes()
    spread(0, 10, notes, 3)
    assert sorted(notes.done) == list(range(10))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_interrupt_ends_every_helper() -> None:
    def interrupted(notes: Notes, unit: int) -> None:
        if not notes.helping and unit == 2:
            raise KeyboardInterrupt
        time.sleep(0.01 if unit < 2 else 60)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        spread(0, 20, Notes(interrupted), 3)
    assert time.monotonic() - started < 20
    assert no_children()


ORPHANS = """
import os, sys, time
from stackpatch.series.sharing import spread
class Task:
    def do(self, unit):
        print(os.getpid(), flush=True)
        time.sleep(0.2)
    def reopen(self): pass
    def packed(self): return b""
    def take(self, packed): pass
spread(0, 1000, Task(), 3)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_orphans_when_the_program_is_killed(number: int) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", ORPHANS],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert program.stdout is not None
    pids: set[str] = set()
    while len(pids) < 3:
        pids.add(program.stdout.readline().strip())
    os.kill(program.pid, number)
    program.communicate(timeout=20)  # comes back when nobody is left who could write
    assert program.returncode != 0


def test_as_many_processes_as_processors() -> None:
    assert 1 <= processors() <= 4
    assert processors() <= len(os.sched_getaffinity(0))


# --- the matrix ---------------------------------------------------------------------------------


def gate(line: str, before: str = "") -> str:
    return '"""Gates."""\n\nimport sys\n\n\n' + before + function("build", line) + filler(9)


class Case:
    """Two series of one stack and one of another, thirty versions, half of them different."""

    def __init__(self, tmp_path: Path, effect: str = r"major in \(10, 12\)") -> None:
        strict, relaxed = "assert major == 10", "assert major in (10, 12)"
        self.ups = [Upstream(tmp_path / name, {"a.py": gate(strict)}) for name in ("one", "two")]
        self.series = []
        for up, names in zip(self.ups, (("a", "b"), ("c",)), strict=True):
            for name in names:
                change = (
                    "Open",
                    {"a.py": gate(relaxed + f"  # {name}")},
                    f"Effect: a.py :: build :: {effect}",
                )
                self.series.append((up, up.series(tmp_path / name, change)))
            for number in range(1, 30):
                line = relaxed if number > 25 else strict if number % 7 else "assert supports()"
                up.release(f"1.{number}", {"a.py": gate(line, filler(number // 2, "new"))})
        self.objects = {id(up): up.objects for up in self.ups}  # a new one at each call
        for up, series in self.series:
            apply_series(self.objects[id(up)], up.versions[0].tree, series.patches)

    def judge(self, processes: int, folder: Path) -> tuple[list[matrix.Matrix], dict[str, bytes]]:
        memos = {id(up): Memo(folder / f"{n}.json") for n, up in enumerate(self.ups)}
        found = matrix.compute_all(
            [
                matrix.Series(self.objects[id(up)], one.patches, up.versions, memos[id(up)])
                for up, one in self.series
            ],
            processes=processes,
        )
        for memo in memos.values():
            memo.save()
        return found, {path.name: path.read_bytes() for path in folder.glob("*.json")}


def test_the_matrix_and_what_is_remembered_are_the_same(tmp_path: Path) -> None:
    case = Case(tmp_path)
    alone, remembered = case.judge(1, tmp_path / "memo-1")
    assert {verdict.word.value for one in alone for row in one.rows for verdict in row.verdicts} > {
        "needed",
        "conflict",
    }
    for processes in (2, 4):
        found, known = case.judge(processes, tmp_path / f"memo-{processes}")
        assert found == alone
        assert known == remembered
        again, _ = case.judge(processes, tmp_path / f"memo-{processes}")
        assert again == alone


def test_an_error_is_the_same_in_every_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path)
    broken, where = {"1.9", "1.20", "1.28"}, case.objects[id(case.ups[1])]
    judge = matrix._judge

    def breaks(series: matrix.Series, version: matrix.Version) -> object:
        if series.objects is where and version.version in broken:
            msg = f"cannot judge {version.version}"
            raise InputError(msg, hint="h", where="w")
        return judge(series, version)

    monkeypatch.setattr(matrix, "_judge", breaks)
    for processes in (1, 2, 4):
        with pytest.raises(InputError, match=r"^cannot judge 1\.9$") as caught:
            case.judge(processes, tmp_path / f"memo-{processes}")
        assert (caught.value.hint, caught.value.where) == ("h", "w")
    assert no_children()


def test_a_matrix_survives_its_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path)
    alone, remembered = case.judge(1, tmp_path / "memo-1")
    judge, parent = matrix._judge, os.getpid()

    def dies(series: matrix.Series, version: matrix.Version) -> object:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return judge(series, version)

    monkeypatch.setattr(matrix, "_judge", dies)
    assert case.judge(3, tmp_path / "memo-3") == (alone, remembered)
    assert no_children()


def test_helpers_do_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path)
    taken: list[bytes] = []
    take = matrix._Cells.take

    def noted(cells: matrix._Cells, packed: bytes) -> None:
        taken.append(packed)
        take(cells, packed)

    monkeypatch.setattr(matrix._Cells, "take", noted)
    case.judge(3, tmp_path / "memo")
    assert len(taken) == 2
    taken.clear()
    case.judge(3, tmp_path / "memo")
    assert not taken, "what is remembered needs no other process"
