"""What the README shows is what its commands print."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.pypi
def test_the_demo_gives_what_the_readme_shows(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "stackpatch", "build", "flashinfer", "--arch", "sm121", "--json"]
    done = subprocess.run(
        [*argv, "--out", "dist", "--root", CHECKOUT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    readme = (CHECKOUT / "README.md").read_text("utf-8")
    shown = re.search(r"make demo.*?```text\n(.*?)```", readme, re.DOTALL)
    assert shown is not None
    for value in (built["wheel"]["sha256"], built["wheel"]["path"], built["image"]["digest"]):
        assert value in shown[1], "the README shows another result: run `make demo` and copy it"


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
