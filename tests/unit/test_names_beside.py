"""The name index counted by a program beside an import: the same bytes, or none."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, cast

import pytest

from stackpatch import proc
from stackpatch.sources import names, words
from stackpatch.sources.objects import REGULAR
from stackpatch.sources.store import SourceStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _many(folder: Path, start: Callable[..., object] | None = None) -> tuple[bytes, list[object]]:
    """The index of one tree of several files, and what was started for it."""
    started: list[object] = []
    objects = SourceStore("demo", folder).objects
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(names, "_MUCH", 2000)
        patched.setattr(proc, "processors", lambda: 2)
        begin = proc.Beside.start

        def noted(argv: list[str]) -> proc.Beside | None:
            started.append(argv)
            return begin(argv) if start is None else cast("proc.Beside | None", start(argv))

        patched.setattr(proc.Beside, "start", noted)
        with contextlib.closing(objects.names.addition()) as addition:
            for number in range(90):
                path = f"d{number % 7}/new\nline é\udcff {number}.py"
                content = b"def name_%d():\n    return one_of_%d(1or_x)\n" % (number, number % 5)
                addition.offer(path, REGULAR, f"{number:040x}", content)
            objects.names.add("5" * 40, addition)
    written = objects.names.folder / f"{'5' * 40}.names"
    return written.read_bytes() if written.exists() else b"", started


def test_a_program_beside_writes_the_same_index(tmp_path: Path) -> None:
    beside, started = _many(tmp_path / "beside")
    alone, not_started = _many(tmp_path / "alone", lambda _: None)
    assert len(started) == 1
    assert len(not_started) >= 1, "tried, and then done here"
    assert beside == alone
    segment = words.read(beside)
    assert segment is not None
    assert segment.count == 90


@pytest.mark.parametrize(
    "program",
    ["raise SystemExit(1)", "import sys; sys.stdin.buffer.read(); print('no index')",
     "import os; os.kill(os.getpid(), 9)", "import sys; sys.stdin.close(); print('x' * 100000)"],
)  # fmt: skip
def test_a_program_that_fails_leaves_no_index_behind(tmp_path: Path, program: str) -> None:
    begin = proc.Beside.start
    written, started = _many(tmp_path, lambda _: begin([sys.executable, "-c", program]))
    assert written == b""
    assert len(started) == 1
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_program_whose_input_breaks_off_writes_nothing() -> None:
    argv = [sys.executable, "-I", "-S", words.__file__]
    whole = b"".join(words.framed(b"0" * 40 + b" a.py", b"name_of_it"))
    for cut in (0, 5, len(whole) - 1, len(whole)):
        done = subprocess.run(argv, input=whole[:cut], capture_output=True, check=False)
        assert done.returncode != 0
        assert done.stdout == b""
