"""Time and memory of a program, by itself.

The kernel counts what a process was before `exec` into its peak, so that a child of pytest never
seems smaller than pytest; and what it says of all children is the largest of any. A bare
interpreter in between starts the program and weighs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BETWEEN = """
import json, os, sys, time
began = time.monotonic()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(pid, 0)
found = [os.waitstatus_to_exitcode(status), time.monotonic() - began, used.ru_maxrss]
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
"""


@dataclass(frozen=True, slots=True)
class Weighed:
    """How a program ended. status: its exit status, minus the signal's number where one ended it.
    seconds: by the wall. megabytes: the largest resident size of it and of any child it waited
    for."""

    status: int
    seconds: float
    megabytes: float
    stdout: bytes
    stderr: bytes


def weigh(
    argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Weighed:
    """Run a program to its end. env: all of its variables; without any, this process's."""
    with TemporaryDirectory(prefix="weighing-") as folder:
        figures = Path(folder, "figures.json")
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _BETWEEN, figures, *argv],
            env=dict(os.environ if env is None else env),
            cwd=cwd,
            capture_output=True,
            check=False,
        )
        assert figures.exists(), done.stderr.decode(errors="replace")
        status, seconds, kilobytes = json.loads(figures.read_text())
    return Weighed(status, seconds, kilobytes / 1024, done.stdout, done.stderr)
