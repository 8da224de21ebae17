"""`stackpatch doctor` as a person and a script meet it."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest

from stackpatch.checks import probes
from stackpatch.checks.doctor import Finding, Level, Probe
from stackpatch.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """Findings that the program reports instead of looking."""
    made: list[Finding] = []

    def fixed(_: Path) -> tuple[Probe, ...]:
        return tuple(Probe(f.name, partial(lambda found, _: found, f)) for f in made)

    monkeypatch.setattr(probes, "probes", fixed)
    return made


def test_what_is_absent_and_optional_is_no_failure(
    found: list[Finding], capfd: pytest.CaptureFixture[str]
) -> None:
    found += [
        Finding(
            "git", Level.OK, found=True, version="2.39.5", good_for="everything", required=True
        ),
        Finding("podman", Level.ABSENT, good_for="needed only for smoke --image"),
        Finding("docker", Level.UNKNOWN, found=True, detail="garbage", advice="run it by hand"),
    ]
    assert main(["doctor"]) == 0
    said = capfd.readouterr()
    lines = said.out.splitlines()
    assert lines[1].split() == ["git", "ok", "2.39.5", "everything"]
    assert "docker: garbage" in lines
    assert "docker: to do: run it by hand" in lines
    assert said.err == ""


def test_what_is_required_and_unusable_is_status_3_with_all_findings(
    found: list[Finding], capfd: pytest.CaptureFixture[str]
) -> None:
    found += [
        Finding("git", Level.ABSENT, good_for="nothing", advice="install git", required=True),
        Finding("gpu", Level.ABSENT),
    ]
    assert main(["doctor", "--json"]) == 3
    said = capfd.readouterr()
    document = json.loads(said.out)
    assert document["schema"] == "stackpatch.doctor/1"
    assert document["usable"] is False
    assert [row["name"] for row in document["checks"]] == ["git", "gpu"]
    assert document["error"] == {
        "kind": "environment",
        "message": "stackpatch cannot work here: git",
        "hint": "install git",
        "where": None,
    }
    assert "error: stackpatch cannot work here: git" in said.err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e9"])
def test_a_timeout_that_makes_no_sense(seconds: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"--timeout={seconds}"]) == 2
    assert "not a sensible number" in capfd.readouterr().err


def test_the_real_thing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", tmp_path.as_uri())
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--json", "--timeout", "30"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["usable"] is True
    rows = {row["name"]: row for row in document["checks"]}
    assert rows["git"]["level"] == "ok"
    assert rows["tree-sitter"]["level"] == "ok"
    assert str(tmp_path) in rows["disk: dist"]["detail"]
    assert not list(tmp_path.iterdir())  # looking changes nothing
    keys = {"name", "level", "found", "version", "good_for", "detail", "advice", "required"}
    assert all(set(row) == keys for row in rows.values())
