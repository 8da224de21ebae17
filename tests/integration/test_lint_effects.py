"""`stackpatch lint` on Effect lines that tell nothing: they hold before, or not afterwards."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.projects import RELAXED, STRICT, Project, gate, open_gate

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serving import Server


def made(
    tmp_path: Path, index: Server, *effects: str, fetched: bool = True, top: str = ""
) -> Project:
    trailers = "Upstream-Status: Pending\n" + "\n".join(f"Effect: {one}" for one in effects)
    files = {"a.py": gate(STRICT), "b.py": gate(STRICT, top)}
    ours = ("Open b", {"b.py": gate(RELAXED, top)}, trailers)
    project = Project(tmp_path, index, files, open_gate("a"), ours)
    if fetched:
        assert project.run("fetch", "demo").status == 0
    return project


GOOD = r"b.py :: build :: major in \(10, 12\)"


def test_effects_that_tell_the_patch_are_fine(tmp_path: Path, index: Server) -> None:
    project = made(tmp_path, index, GOOD, "b.py :: build :: !major == 10")
    ran = project.run("lint", "--json")
    assert (ran.status, ran.document["problems"]) == (0, [])


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        ("b.py :: build :: assert major", "Effect: holds before the patch is applied"),
        ("b.py :: build :: !nothing of that kind", "Effect: holds before the patch is applied"),
        (r"a.py :: build :: major in \(10, 12\)", "Effect: holds before the patch is applied"),
        ("b.py :: build :: supports", "Effect: does not hold with the patch: build has no text"),
        ("b.py :: biuld :: major in", "Effect: does not hold with the patch: biuld is neither"),
        ("gone.py :: * :: major in", "Effect: does not hold with the patch"),
    ],
)
def test_an_effect_that_tells_nothing_is_a_problem(
    tmp_path: Path, index: Server, effect: str, said: str
) -> None:
    project = made(tmp_path, index, GOOD, effect)
    ran = project.run("lint", "--json")
    assert ran.status == 1
    (problem,) = ran.document["problems"]
    name = project.series.patches[1].name
    assert problem["path"].endswith(f"patches/demo/v1.0/{name}")
    assert problem["text"].startswith(said)
    line = (project.patches / "v1.0" / name).read_text().splitlines()[problem["line"] - 1]
    assert line == f"Effect: {effect}"
    assert project.run("lint", "demo").status == 1


def test_a_pattern_that_runs_away_is_stopped(tmp_path: Path, index: Server) -> None:
    top = "long = '" + "a" * 500 + "!c'\n\n\n"
    project = made(tmp_path, index, "b.py :: * :: (a|aa)+c$", top=top)
    start = time.monotonic()
    ran = project.run("lint", "--json")
    assert time.monotonic() - start < 60
    assert ran.status == 1
    assert "runs for more than" in ran.document["problems"][0]["text"]
    project.up.release("2.0", {"b.py": gate(STRICT, top + "x = 1\n\n\n")})
    for words in (
        ("upstream", "demo", "--at", "git:v2.0"),
        ("rebase", "demo", "--onto", "git:v2.0"),
    ):
        told = project.run(*words)
        assert told.status in (1, 2, 4), (words, told)
        assert "runs for more than" in told.err + told.out
        assert "Traceback" not in told.err


def test_without_the_release_in_the_store_nothing_is_claimed(tmp_path: Path, index: Server) -> None:
    project = made(tmp_path, index, "b.py :: build :: assert major", fetched=False)
    ran = project.run("lint")
    assert (ran.status, ran.out) == (0, "")
    assert "Effect lines not tried: the source store does not have demo 1.0" in ran.err
    assert project.run("lint", "--json").document["effects_untried"] == ["demo 1.0"]
    assert project.run("fetch", "demo").status == 0
    tried = project.run("lint", "--json")
    assert (tried.status, tried.document["effects_untried"]) == (1, [])


def test_a_namesake_does_not_make_an_effect_true(tmp_path: Path, index: Server) -> None:
    """`build` of another file is open, but the effect names a file that is not there."""
    project = made(tmp_path, index, GOOD, r"gone.py :: build :: major in \(10, 12\)")
    (problem,) = project.run("lint", "--json").document["problems"]
    assert "build is not in gone.py, which is gone, and moved nowhere" in problem["text"]
