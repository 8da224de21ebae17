"""The nightly workflow of docs/upstream.md: its commands are taken from the page and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from tests.projects import RELAXED, REWORKED, STRICT, Project, gate, open_gate

if TYPE_CHECKING:
    from tests.serving import Server

PAGE = Path(__file__).parents[2] / "docs" / "upstream.md"

# `gh issue list` prints the titles of the issues that were made, `gh issue create` makes one.
GH = """#!/usr/bin/env python3
import json, os, sys
from pathlib import Path
kept = Path(os.environ["ISSUES"])
issues = json.loads(kept.read_text()) if kept.exists() else []
match sys.argv[1:3]:
    case ["issue", "list"]:
        print("\\n".join(issue["title"] for issue in issues))
    case ["issue", "create"]:
        given = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=True))
        body = Path(given["--body-file"]).read_text()
        kept.write_text(json.dumps([*issues, {"title": given["--title"], "body": body}]))
    case other:
        sys.exit(f"gh {other}")
"""


def workflow() -> dict[str, object]:
    after = PAGE.read_text("utf-8").split("```yaml\nname: upstream\n", 1)[1]
    block = after.split("```", 1)[0]
    found = yaml.safe_load(block)
    assert isinstance(found, dict)
    return found


def commands() -> list[str]:
    """What the steps run, but for the installation."""
    jobs = workflow()["jobs"]
    assert isinstance(jobs, dict)
    (job,) = jobs.values()
    return [
        step["run"] for step in job["steps"] if "pip install" not in step.get("run", "pip install")
    ]


@pytest.fixture
def project(tmp_path: Path, index: Server) -> Project:
    files = {"a.py": gate(STRICT), "b.py": gate(STRICT)}
    project = Project(tmp_path, index, files, open_gate("a"), open_gate("b"))
    project.write_recipe(project.offer(project.up.versions[0]))
    return project


def night(project: Project) -> list[dict[str, str]]:
    """One night in the project's folder; the issues that there are in the morning."""
    bin_ = project.folder / "bin"
    bin_.mkdir(exist_ok=True)
    for name, text in (
        ("gh", GH),
        ("stackpatch", f'#!/bin/sh\nexec {sys.executable} -m stackpatch "$@"\n'),
    ):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    issues = project.folder / "issues.json"
    env = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "ISSUES": str(issues)}
    for command in commands():
        # As GitHub runs a step that names no shell.
        argv = ["bash", "-e", "-c", command]
        done = subprocess.run(argv, cwd=project.root, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        assert b"Traceback" not in done.stderr
    found = json.loads(issues.read_text()) if issues.exists() else []
    assert isinstance(found, list)
    return found


def test_the_workflow_says_what_it_needs() -> None:
    found = workflow()
    assert found["permissions"] == {"contents": "read", "issues": "write"}
    assert len(commands()) == 2


def test_nothing_new_makes_no_issue_and_keeps_the_matrix(project: Project) -> None:
    assert night(project) == []
    (only,) = json.loads((project.root / "matrix.json").read_text())["stacks"]
    assert (only["stack"], only["versions"]) == ("demo", ["1.0"])


def test_a_conflict_makes_one_issue_that_names_the_patch(project: Project) -> None:
    project.offer(project.up.release("1.1", {"a.py": gate(REWORKED)}))
    before = project.files()
    (issue,) = night(project)
    assert issue["title"] == "demo onto sdist:1.1: conflict"
    assert "exit status 1" in issue["body"]
    assert "- conflict 0001-Open-a.patch" in issue["body"]
    assert "1.1" in issue["body"], "which version changed the lines"
    assert night(project) == [issue], "once"
    assert project.files() == before
    (only,) = json.loads((project.root / "matrix.json").read_text())["stacks"]
    assert only["versions"] == ["1.0", "1.1"], "the newest version is among the verdicts"


def test_a_clean_move_and_a_landing_make_an_issue_each(project: Project) -> None:
    project.offer(project.up.release("1.1", {"b.py": gate(STRICT, "x = 1\n\n\n")}))
    (first,) = night(project)
    assert first["title"] == "demo onto sdist:1.1: clean"
    assert "- moved 0002-Open-b.patch: offset 3" in first["body"]
    project.offer(project.up.release("1.2", {"a.py": gate(RELAXED)}))
    issues = night(project)
    assert [issue["title"] for issue in issues] == [
        first["title"],
        "demo onto sdist:1.2: clean",
    ]
    assert "- landed 0001-Open-a.patch: upstreamed: identical" in issues[1]["body"]


def test_a_release_that_cannot_be_read_is_an_issue_too(project: Project) -> None:
    assert night(project) == []
    project.index.put("demo", "demo-9.tar.gz", b"no archive")
    (issue,) = night(project)
    assert issue["title"].startswith("demo onto its newest version: ")
    assert "demo" in issue["body"]


# --- rebase --dry-run without --onto --------------------------------------------------------------


def test_a_dry_run_without_onto_takes_the_newest(project: Project) -> None:
    project.offer(project.up.release("1.1", {"a.py": gate(REWORKED)}))
    project.offer(project.up.release("1.2rc1", {"b.py": gate(RELAXED)}))
    named = project.run("rebase", "demo", "--onto", "1.1", "--dry-run", "--json")
    ran = project.run("rebase", "demo", "--dry-run", "--json")
    assert (ran.status, ran.document) == (named.status, named.document)
    assert ran.document["onto"] == "sdist:1.1", "no release candidate"


def test_offline_it_takes_the_newest_in_the_store(project: Project) -> None:
    project.offer(project.up.release("1.1", {"b.py": gate(STRICT, "x = 1\n\n\n")}))
    project.run("matrix", "demo", "--refs", "all")
    project.offer(project.up.release("1.2", {"a.py": gate(REWORKED)}))
    ran = project.run("rebase", "demo", "--dry-run", "--offline", "--json")
    assert (ran.status, ran.document["onto"]) == (0, "sdist:1.1")


def test_on_the_newest_there_is_nothing_to_try(project: Project) -> None:
    for words in (("--dry-run",), ("--onto", "1.0", "--dry-run"), ("--onto", "1.0")):
        ran = project.run("rebase", "demo", *words)
        assert ran.status == 2
        assert "demo 1.0 is on sdist:1.0 already" in ran.err


def test_an_empty_store_offline_is_one_message(project: Project) -> None:
    ran = project.run("rebase", "demo", "--dry-run", "--offline")
    assert ran.status in (2, 3)
    assert "Traceback" not in ran.err
    assert "demo" in ran.err


def test_a_real_rebase_must_be_told_where_to(project: Project) -> None:
    ran = project.run("rebase", "demo")
    assert ran.status == 2
    assert "alone it tries the newest version" in ran.err
    ran = project.run("rebase", "demo", "--dry-run", "--abort")
    assert ran.status == 2


def test_the_commands_need_only_what_a_runner_has() -> None:
    text = "\n".join(commands())
    for tool in ("jq", "bash"):
        found = subprocess.run(["which", tool], capture_output=True, check=False)
        assert found.returncode == 0, f"install {tool}: the workflow's commands use it"
    assert "gh issue create" in text
