"""What the README shows is what its commands print."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def _words(text: str) -> str:
    """One space between words: the README breaks lines where the program does not."""
    return " ".join(text.split())


@pytest.mark.pypi
def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    """Every part between two ellipses, in its order; `…` at a line's end or start cuts it."""
    argv = [sys.executable, "-m", "stackpatch", "build", "flashinfer", "--arch", "sm121"]
    done = subprocess.run(
        [*argv, "--out", "dist", "--root", CHECKOUT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    readme = (CHECKOUT / "README.md").read_text("utf-8")
    shown = re.search(r"make demo.*?```text\n(.*?)```", readme, re.DOTALL)
    assert shown is not None
    printed, at = _words(done.stdout), 0
    for part in filter(None, map(_words, shown[1].split("…"))):
        found = printed.find(part, at)
        assert found >= 0, f"`make demo` does not print {part!r} there: copy what it prints"
        at = found + len(part)


@pytest.mark.pypi
def test_the_table_of_stacks_is_what_the_recipes_pin() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stackpatch", "list", "--json", "--root", CHECKOUT],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    readme = (CHECKOUT / "README.md").read_text("utf-8")
    rows = {
        row[0]: row[1:]
        for row in (
            [cell.strip() for cell in line.strip("| ").split("|")]
            for line in readme.splitlines()
            if line.startswith("| ")
        )
    }
    for stack in json.loads(done.stdout)["stacks"]:
        releases, series = rows[stack["name"]]
        pinned = [release["version"] for release in stack["releases"]]
        assert releases == ", ".join(pinned)
        patched = [release["version"] for release in stack["releases"] if release["patches"]]
        assert series == ", ".join(patched)
