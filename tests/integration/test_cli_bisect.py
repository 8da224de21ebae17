"""`stackpatch bisect`: the series at each version, a real command, an answer that is certain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.projects import RELAXED, REWORKED, STRICT, Project, Ran, gate, open_gate

if TYPE_CHECKING:
    from tests.serving import Server


@pytest.fixture
def project(tmp_path: Path, index: Server) -> Project:
    """Nine releases; b.py breaks at 1.5; the series conflicts at 1.3, a patch lands at 1.7."""
    files = {"a.py": gate(STRICT), "b.py": "WORKS = True\n", "run.sh": "exit 0\n"}
    project = Project(tmp_path, index, files, open_gate("a"))
    project.write_recipe(project.offer(project.up.versions[0]))
    for number, changed in (
        (1, {"c.py": "x = 1\n"}),
        (2, {"a.py": gate(STRICT, "x = 1\n\n\n")}),
        (3, {"a.py": gate(REWORKED)}),
        (4, {"a.py": gate(STRICT)}),
        (5, {"b.py": "WORKS = False\n"}),
        (6, {"c.py": "x = 2\n"}),
        (7, {"a.py": gate(RELAXED)}),
        (8, {"c.py": "x = 3\n"}),
    ):
        project.offer(project.up.release(f"1.{number}", changed))
    project.offer(project.up.release("2.0rc1", {"c.py": "x = 4\n"}))
    return project


# Good where b.py works and the gate of a.py is open, by our patch or by upstream's own change.
CHECK = (sys.executable, "-c", "import b; assert '(10, 12)' in open('a.py').read(); assert b.WORKS")


def bisected(project: Project, *words: str, check: tuple[str, ...] = CHECK) -> Ran:
    return project.run("bisect", "demo", *words, "--json", "--", *check)


def results(document: dict[str, Any]) -> dict[str, str]:
    return {step["version"]: step["result"] for step in document["steps"]}


def test_the_first_bad_version_with_the_series_moved_to_each(project: Project) -> None:
    ran = bisected(project, "--good", "1.0", "--bad", "1.8")
    assert ran.status == 0, ran.err
    document = ran.document
    assert document["schema"] == "stackpatch.bisect/1"
    assert (document["first_bad"], document["last_good"]) == ("1.5", "1.4")
    assert document["untested"] == []
    assert results(document) == {
        "1.0": "good",
        "1.8": "bad",
        "1.4": "good",
        "1.6": "bad",
        "1.5": "bad",
    }
    outcomes = {step["version"]: step["patches"][0]["outcome"] for step in document["steps"]}
    assert outcomes["1.4"] == "untouched"
    assert outcomes["1.8"] == "landed", "dropped where upstream has it, and the check agrees"
    for step in document["steps"]:
        assert step["seconds"] >= 0
        assert step["why"] == f"exit status {step['status']}"


def test_a_version_where_the_series_conflicts_is_passed_over(project: Project) -> None:
    code = "import os, sys; sys.exit('1.3' <= os.environ['STACKPATCH_VERSION'])"
    check = (sys.executable, "-c", code)
    ran = bisected(project, "--good", "1.0", "--bad", "1.5", check=check)
    assert ran.status == 1
    document = ran.document
    assert document["first_bad"] is None
    assert (document["last_good"], document["untested"]) == ("1.2", ["1.3"])
    assert "it began at 1.4 or at one that could not be tested: 1.3" in ran.err
    untested = next(step for step in document["steps"] if step["version"] == "1.3")
    assert untested["result"] == "untested"
    assert "0001-Open-a.patch: conflict" in untested["why"]
    without = bisected(project, "--good", "1.0", "--bad", "1.5", "--leave-out", "0001", check=check)
    assert without.status == 0, without.err
    assert without.document["first_bad"] == "1.3"


def test_125_passes_a_version_over(project: Project) -> None:
    code = (
        "import os, sys; v = os.environ['STACKPATCH_VERSION']; "
        "sys.exit({'1.4': 125}.get(v, v > '1.4'))"
    )
    ran = bisected(project, "--good", "1.0", "--bad", "1.8", check=(sys.executable, "-c", code))
    assert ran.status == 1
    assert ran.document["untested"][-1] == "1.4"


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("1.5", "1.8", "at --good 1.5 the command is bad"),
        ("1.0", "1.4", "at --bad 1.4 the command is good"),
        ("1.3", "1.8", "at --good 1.3 the command is untested"),
    ],
)
def test_ends_that_are_not_what_was_said(project: Project, good: str, bad: str, said: str) -> None:
    ran = bisected(project, "--good", good, "--bad", bad)
    assert ran.status == 1
    assert said in ran.err
    assert ran.document["first_bad"] is None


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11"),
        ("raise SystemExit(127)", "could not be run"),
        ("raise SystemExit(139)", "as of a program that a signal ended"),
    ],
)
def test_what_is_neither_good_nor_bad_ends_it(project: Project, code: str, said: str) -> None:
    ran = bisected(project, "--good", "1.0", "--bad", "1.8", check=(sys.executable, "-c", code))
    assert ran.status == 1
    assert "at 1.0 the command gave no answer: " in ran.err
    assert said in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--good", "1.8", "--bad", "1.0", "--", "true"), "is not older than"),
        (("--good", "1.0", "--bad", "1.0", "--", "true"), "is not older than"),
        (("--good", "git:main", "--bad", "1.8", "--", "true"), "git:main"),
        (("--good", "1.0", "--bad", "9.9", "--", "true"), "9.9"),
        (("--good", "1.0", "--bad", "1.8", "--", "no-such-program"), "is not installed"),
        (("--good", "1.0", "--bad", "1.8", "--leave-out", "7", "--", "true"), "no patch of"),
        (("--good", "1.0", "--bad", "1.8", "--arch", "sm12", "--", "true"), "sm12"),
    ],
)
def test_wrong_usage_is_one_message(project: Project, words: tuple[str, ...], said: str) -> None:
    ran = project.run("bisect", "demo", *words)
    assert ran.status == 2, ran.err
    assert said in ran.err
    assert ran.out == ""


def test_a_release_of_the_recipe_gets_its_own_series(project: Project) -> None:
    """1.3 reworked the gate: what conflicts when it is moved, somebody has written anew."""
    up = project.up
    base = next(one for one in up.versions if one.version == "1.3")
    up.series(project.patches / "v1.3", open_gate("a"), on="1.3")
    text = project.recipe.read_text()
    release = f"""\
  - version: "1.3"
    tag: v1.3
    commit: {base.commit}
    commit-evidence: {{kind: first-hand, detail: the tag}}
    date: "2026-01-02T00:00:00Z"
    series: v1.3
archs:"""
    project.recipe.write_text(text.replace("archs:", release, 1))
    ran = project.run("bisect", "demo@1.0", "--good", "1.0", "--bad", "1.6", "--json", "--", *CHECK)
    assert ran.status == 0, ran.err
    tested = {step["version"]: step for step in ran.document["steps"]}
    assert ran.document["first_bad"] == "1.5"
    assert tested["1.3"]["result"] == "good"
    assert tested["1.3"]["patches"] == [
        {"name": "0001-Open-a.patch", "outcome": "own", "detail": ""}
    ]
    assert tested["1.3"]["series"].endswith("v1.3")


def test_each_run_has_a_tree_and_caches_of_its_own(project: Project, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        "import os, sys; e = os.environ\n"
        f"open({str(log)!r}, 'a').write(' '.join([e['STACKPATCH_VERSION'], os.getcwd(), "
        "e['STACKPATCH_TREE'], e['TRITON_CACHE_DIR'], e['STACKPATCH_STACK']]) + '\\n')\n"
        "print('said on stdout')\n"
        "sys.exit('1.5' <= e['STACKPATCH_VERSION'])"
    )
    ran = bisected(project, "--good", "1.0", "--bad", "1.8", check=(sys.executable, "-c", code))
    assert ran.status == 0
    assert "said on stdout" in ran.err, "stdout has the document alone"
    rows = [line.split() for line in log.read_text().splitlines()]
    assert len({row[1] for row in rows}) == len(rows) == len({row[3] for row in rows})
    for row in rows:
        assert row[1] == row[2]
        assert row[4] == "demo"
        assert not Path(row[1]).exists(), "nothing is left"


def test_for_people(project: Project) -> None:
    ran = project.run("bisect", "demo", "--good", "1.0", "--bad", "1.8", "--", *CHECK)
    lines = ran.out.splitlines()
    assert "first bad  1.5" in lines
    assert "last good  1.4" in lines
    assert [line.split()[0] for line in lines[1:6]] == ["1.0", "1.4", "1.5", "1.6", "1.8"]


def test_a_program_is_meant_from_here(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "check.sh"
    script.write_text("#!/bin/sh\ngrep -q True b.py\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    ran = bisected(project, "--good", "1.0", "--bad", "1.8", check=("./check.sh",))
    assert ran.status == 0, ran.err
    assert ran.document["first_bad"] == "1.5"


def test_an_interrupt_ends_the_command_and_leaves_nothing(project: Project, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = (
        f"import os, time; open({str(mark)!r}, 'w').write(f'{{os.getpid()}} {{os.getcwd()}}'); "
        "time.sleep(600)"
    )
    words = ("bisect", "demo", "--good", "1.0", "--bad", "1.8", "--", sys.executable, "-c", code)
    # --root goes in front: behind `--` it would be the command's.
    child = subprocess.Popen(
        [sys.executable, "-m", "stackpatch", words[0], "--root", str(project.root), *words[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ),
    )
    deadline = time.monotonic() + 60
    while not (mark.exists() and " " in mark.read_text()):
        assert time.monotonic() < deadline
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130
    pid, _, folder = mark.read_text().partition(" ")
    assert not Path(folder).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
