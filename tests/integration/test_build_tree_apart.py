"""Builds from git in processes of their own: side by side, killed, in another place and shell."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.trees import Shop, build_fixture, shop_fixture

shop, build = shop_fixture, build_fixture
CHECKOUT = Path(__file__).parents[2]

# Stops at a place in the program: says that it is there, and goes on when told or is killed.
STOPPED = """\
import importlib, sys
module, _, name = sys.argv.pop(1).partition(":")
owner = importlib.import_module(module)
*path, last = name.split(".")
for part in path:
    owner = getattr(owner, part)
real = getattr(owner, last)
def stop(*a, **k):
    print("here", file=sys.stderr, flush=True)
    sys.stdin.readline()
    return real(*a, **k)
setattr(owner, last, stop)
from stackpatch.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
STAGES = {
    "while the base is read": "stackpatch.artefacts.where:find_installed",
    "while the layer is made": "stackpatch.artefacts.tree_making:make_layer",
    "while the image is written": "stackpatch.artefacts.layout:_put",
    "before the SBOM": "stackpatch.artefacts.papers:make_sbom",
    "before the lock": "stackpatch.artefacts.papers:dump_lock",
    "before the rename": "stackpatch.storage:replace_directory",
}


def words(shop: Shop, out: Path) -> list[str]:
    base = ["build", "llm", "--arch", "sm121", "--root", str(shop.root), "--base", str(shop.base)]
    return [*base, "--out", str(out), "--json"]


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """The sha256 and permission bits of each file below the folder."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mode & 0o777,
        )
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def program(
    argv: list[str], *, stop: str | None = None, umask: int = 0o022, **env: str
) -> subprocess.Popen[str]:
    head = ["-m", "stackpatch"] if stop is None else ["-c", STOPPED, stop]
    return subprocess.Popen(
        [sys.executable, *head, *argv],
        env={**os.environ, **env},
        umask=umask,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_there(running: subprocess.Popen[str]) -> None:
    """Wait until the program is where it was to stop."""
    assert running.stderr is not None
    said = []
    for line in running.stderr:
        said.append(line)
        if line == "here\n":
            return
    pytest.fail(f"it ended before: {said}")


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_after_a_kill_the_same_command_works(shop: Shop, tmp_path: Path, stage: str) -> None:
    out = tmp_path / "out"
    running = program(words(shop, out), stop=stage)
    until_there(running)
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=30)
    assert not list(out.rglob("sm121/lock.json")), "what is not whole is not there"
    done = program(words(shop, out))
    said, error = done.communicate(timeout=60)
    assert done.returncode == 0, error
    assert json.loads(said)["reused"] is False
    reference = program(words(shop, tmp_path / "reference"))
    reference.communicate(timeout=60)
    assert contents(out) == contents(tmp_path / "reference")
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]


def test_of_two_programs_one_builds_and_the_other_finds_it(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = program(words(shop, out), stop=STAGES["before the lock"])
    until_there(first)
    second = program(words(shop, out), stop="stackpatch.artefacts.build:storage.lock")
    until_there(second)  # about to ask for the lock that the first one holds
    assert second.stdin is not None
    second.stdin.write("\n")
    second.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1)
    said = [json.loads(one.communicate("\n", timeout=60)[0]) for one in (first, second)]
    assert [one["reused"] for one in said] == [False, True]
    assert said[0]["image"] == said[1]["image"]


def test_another_place_and_shell_give_the_same_bytes(shop: Shop, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "so mewhere é"
    program(words(shop, here)).communicate(timeout=60)
    other = program(
        words(shop, there),
        umask=0o077,
        TZ="Pacific/Kiritimati",
        LC_ALL="C",
        LANG="tr_TR.UTF-8",
        PYTHONHASHSEED="7",
        STACKPATCH_CACHE_DIR=str(tmp_path / "another cache"),
        SOURCE_DATE_EPOCH="1",
    )
    said, error = other.communicate(timeout=60)
    assert other.returncode == 0, error
    assert json.loads(said)["reused"] is False
    assert contents(here) == contents(there)
    assert len(contents(here)) > 5
