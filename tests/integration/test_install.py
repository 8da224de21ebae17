"""What the README says about installing: pip, an empty venv, another folder, nothing borrowed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.pypi
def test_pip_install_of_the_checkout_gives_a_working_program(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip: list[str | Path] = [
        venv / "bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    done = subprocess.run(
        [*pip, "--constraint", CHECKOUT / "constraints.txt", CHECKOUT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    program = venv / "bin/stackpatch"
    listed = subprocess.run(
        [program, "list", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (listed.returncode, listed.stderr) == (0, "")
    assert {stack["name"] for stack in json.loads(listed.stdout)["stacks"]} == {
        path.stem for path in (CHECKOUT / "recipes").glob("*.yaml")
    }
    # Everything that a command imports is a declared dependency, not one of the tests' tools.
    code = (
        "import importlib, pkgutil, stackpatch\n"
        "for found in pkgutil.walk_packages(stackpatch.__path__, 'stackpatch.'):\n"
        "    if not found.name.endswith('__main__'): importlib.import_module(found.name)\n"
    )
    whole = subprocess.run(
        [venv / "bin/python", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert whole.returncode == 0, whole.stderr
