"""The tests see the same surroundings, however they were started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def test_a_program_can_be_interrupted() -> None:
    """The next test starts this one again, with both ignored."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_tests_that_run_in_the_background_can_interrupt_programs(tmp_path: Path) -> None:
    """A shell without job control starts `make test &` with SIGINT ignored, nohup with SIGHUP."""
    one = f"{__file__}::{test_a_program_can_be_interrupted.__name__}"
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", one]
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", *pytest, f"--basetemp={tmp_path / 'b'}"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
