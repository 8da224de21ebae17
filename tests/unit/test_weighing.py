"""The scales of the tests, held against programs of a known weight."""

from __future__ import annotations

import sys

from tests.weighing import weigh


def test_a_small_program_is_small_beside_a_large_parent() -> None:
    ballast = bytearray(400 << 20)
    ballast[::4096] = b"x" * len(ballast[::4096])  # every page is resident
    found = weigh([sys.executable, "-I", "-S", "-c", "print('small')"])
    assert (found.status, found.stdout, found.stderr) == (0, b"small\n", b"")
    assert 1 < found.megabytes < 100
    assert ballast[0] == ord("x")


def test_a_large_program_is_large_and_its_time_is_its_own() -> None:
    program = "import time; b = bytearray(b'x') * (300 << 20); time.sleep(0.3); raise SystemExit(7)"
    found = weigh([sys.executable, "-I", "-S", "-c", program])
    assert found.status == 7
    assert 300 <= found.megabytes < 400
    assert found.seconds >= 0.3


def test_a_signal_is_a_negative_status() -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert weigh([sys.executable, "-I", "-S", "-c", program]).status == -9
