"""scripts/smoke-gpu: which wheel it installs, and when it leaves an environment alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.wheels import make_wheel

SCRIPT = Path(__file__).parents[2] / "scripts" / "smoke-gpu"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    return tmp_path / "venv" / "bin" / "python"


def run(tmp_path: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """With a stackpatch that only says what it was called with."""
    program = tmp_path / "stackpatch"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    env = {**os.environ, "STACKPATCH": str(program)}
    argv = [str(SCRIPT), *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, env=env)


def test_the_same_wheel_is_installed_once_and_another_one_replaces_it(
    tmp_path: Path, python: Path
) -> None:
    wheel = make_wheel(tmp_path / "one", {"demo/__init__.py": b"A = 1\n"})
    words = ("--arch", "sm90", "--python", python, "--wheel", wheel)
    first = run(tmp_path, *words, "--", "--only", "files")
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == (
        f"smoke flashinfer --arch sm90 --python {python} --wheel {wheel} --only files"
    )
    (module,) = (python.parents[1] / "lib").glob("python3*/site-packages/demo/__init__.py")
    # What FlashInfer compiled is older than sources that were installed a second time.
    os.utime(module, (1, 1))
    assert run(tmp_path, *words).returncode == 0
    assert module.stat().st_mtime == 1
    other = make_wheel(tmp_path / "two", {"demo/__init__.py": b"A = 2\n"})
    assert run(tmp_path, *words[:-1], other).returncode == 0
    assert module.read_bytes() == b"A = 2\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name the GPU's arch"),
        (["--arch"], "--arch wants a value"),
        (["--arch", "sm90", "--wheel", "/none.whl"], "there is no file /none.whl"),
        (["--nope"], "unknown option --nope"),
    ],
)
def test_wrong_usage(tmp_path: Path, words: list[str], said: str) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
