"""Progress: nothing for short work, lines in a log, bars on a terminal, never on stdout."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.cli import progress

if TYPE_CHECKING:
    from collections.abc import Sequence


class Clock:
    """A clock that stands until it is moved. Seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines_of(steps: Sequence[tuple[float, str, int, int | None]]) -> list[str]:
    """The plain lines for reports at these seconds since the start."""
    clock, lines = Clock(), list[str]()
    throttle = progress._Throttle(progress._Lines(lines.append), clock)
    for second, label, done, total in steps:
        clock.now = 100.0 + second
        throttle.report(label, done, total)
    return lines


def test_work_that_is_over_in_a_blink_shows_nothing() -> None:
    assert lines_of([(0, "a.whl", 0, 10), (0.1, "a.whl", 5, 10), (0.4, "a.whl", 10, 10)]) == []


def test_long_work_shows_bytes_and_rate_every_few_seconds() -> None:
    steps = [(i / 10, "a.whl", i * 100_000, 12_000_000) for i in range(121)]
    lines = lines_of([*steps, (12.1, "a.whl", 12_000_000, 12_000_000)])
    assert lines == [
        "a.whl: 500.0 kB of 12.0 MB (4%), 1.0 MB/s",
        "a.whl: 5.5 MB of 12.0 MB (45%), 1.0 MB/s",
        "a.whl: 10.5 MB of 12.0 MB (87%), 1.0 MB/s",
        "a.whl: 12.0 MB of 12.0 MB (100%), 1.0 MB/s",
    ]


def test_an_unknown_total_shows_what_came() -> None:
    assert lines_of([(0, "x", 0, None), (2, "x", 3000, None)]) == ["x: 3.0 kB, 1.5 kB/s"]


def test_a_resumed_download_is_not_a_fast_one() -> None:
    lines = lines_of([(0, "x", 9_000_000, 10_000_000), (1, "x", 9_100_000, 10_000_000)])
    assert lines == ["x: 9.1 MB of 10.0 MB (91%), 100.0 kB/s"]


def test_a_download_that_starts_again_counts_from_there() -> None:
    lines = lines_of(
        [(0, "x", 0, 1000), (0.3, "x", 900, 1000), (2, "x", 0, 1000), (3, "x", 500, 1000)]
    )
    assert lines == ["x: 500 B of 1.0 kB (50%), 500 B/s"]


def test_one_hundred_percent_is_only_said_when_everything_came() -> None:
    assert lines_of([(0, "x", 0, 1000), (1, "x", 999, 1000)]) == [
        "x: 999 B of 1.0 kB (99%), 999 B/s"
    ]


def test_works_side_by_side_are_told_apart() -> None:
    lines = lines_of([(0, "a", 0, 10), (0, "b", 0, 10), (1, "a", 1, 10), (1, "b", 2, 10)])
    assert lines == ["a: 1 B of 10 B (10%), 1 B/s", "b: 2 B of 10 B (20%), 2 B/s"]


def test_the_same_label_again_is_new_work() -> None:
    steps = [
        (0, "a", 0, 10),
        (1, "a", 5, 10),
        (1.1, "a", 10, 10),
        (2, "a", 0, 10),
        (2.1, "a", 10, 10),
    ]
    assert len(lines_of(steps)) == 2


def test_an_empty_file_is_complete() -> None:
    assert lines_of([(0, "e", 0, 0), (9, "e", 0, 0)]) == []


def test_many_threads_report_at_once() -> None:
    seen = list[str]()
    throttle = progress._Throttle(progress._Lines(seen.append, interval=0.0), Clock())

    def work(label: str) -> None:
        for done in range(500):
            throttle.report(label, done, 500)
        throttle.report(label, 500, 500)

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert throttle.works == {}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (5_181_963, "5.2 MB"),
        (55_800_000_000, "55.8 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert progress.size(count) == text


@given(st.integers(min_value=0), st.integers(min_value=0) | st.none(), st.floats(0, 1e6))
def test_every_state_has_a_line(done: int, total: int | None, now: float) -> None:
    work = progress.Work("x", 0.0, done, total)
    assert re.fullmatch(r"x: .+ [kMGT]?B( of .+ \(\d+%\))?, .+/s", progress.line(work, now))


SLOW = """
import time
from stackpatch.cli import progress
with progress.reporting() as report:
    for i in range(11):
        report("[x]\\udce9.whl", i * 100_000, 1_000_000)
        time.sleep({pause})
print("done")
"""


def run_on(stream: str, pause: float, **env: str) -> tuple[bytes, bytes]:
    """The slow program with stderr a pipe or a terminal: stdout and stderr."""
    argv = [sys.executable, "-c", SLOW.format(pause=pause)]
    environment = {**os.environ, **env}
    if stream == "pipe":
        done = subprocess.run(argv, capture_output=True, env=environment, timeout=60)
        return done.stdout, done.stderr
    leader, follower = pty.openpty()
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=follower, env=environment)
    os.close(follower)
    seen = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:
            break
        if not block:
            break
        seen += block
    os.close(leader)
    assert process.stdout is not None
    out = process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    return out, seen


def test_in_a_log_there_are_lines_and_stdout_stays_clean() -> None:
    out, err = run_on("pipe", 0.08)
    assert out == b"done\n"
    lines = err.splitlines()
    assert lines[0].startswith(b"[x]\xe9.whl: ")
    assert lines[-1].startswith(b"[x]\xe9.whl: 1.0 MB of 1.0 MB (100%), ")


def test_on_a_terminal_there_are_bars_that_go_away() -> None:
    out, err = run_on("terminal", 0.12, TERM="xterm-256color", COLUMNS="100")
    assert out == b"done\n"
    assert b"[x]\\xe9.whl" in err
    assert b"MB/s" in err or b"kB/s" in err
    assert err.rstrip().endswith(b"\x1b[2K")  # the last thing is to clear the line
    assert b"\x1b[?25h" in err  # and the cursor is back


def test_a_dumb_terminal_gets_lines() -> None:
    _, err = run_on("terminal", 0.08, TERM="dumb")
    assert b"\x1b" not in err
    assert b"(100%)" in err


def test_bars_without_colour() -> None:
    _, err = run_on("terminal", 0.12, TERM="xterm", NO_COLOR="1", COLUMNS="100")
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]m", err)


def test_short_work_on_a_terminal_does_not_even_import_rich() -> None:
    code = (
        "import sys\nsys.stderr.isatty = lambda: True\nfrom stackpatch.cli import progress\n"
        "with progress.reporting() as report: report('a', 0, 10); report('a', 10, 10)\n"
        "assert 'rich' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TERM": "xterm"},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_stderr_does_not_stop_the_work() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", SLOW.format(pause=0.06)],
        stdout=subprocess.PIPE,
        stderr=writer,
        timeout=60,
    )
    os.close(writer)
    assert done.stdout == b"done\n"
