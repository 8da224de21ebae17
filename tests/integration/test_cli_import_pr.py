"""`stackpatch import --from-pr`, and imports that go wrong: usage, kills, second processes."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import stat
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.forks import Fork
from tests.projects import RELAXED, REWORKED, STRICT, Project, gate, open_gate

from stackpatch import storage
from stackpatch.cli import imported
from stackpatch.cli.origin import _repository
from stackpatch.model.patch import parse_patch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serving import Server

    from stackpatch.model.patch import Patch


@pytest.fixture
def project(tmp_path: Path, index: Server) -> Project:
    files = {f"{name}.py": gate(STRICT) for name in ("a", "b", "c")} | {"readme": "one\n"}
    return Project(tmp_path, index, files, open_gate("a"))


@pytest.fixture
def fork(project: Project, tmp_path: Path) -> Fork:
    return Fork(project, tmp_path / "fork")


def bring(project: Project, *words: str, status: int = 0) -> dict[str, Any]:
    ran = project.run("import", "demo", "--json", *words)
    assert ran.status == status, ran.err
    return ran.document


def taken(project: Project, row: dict[str, Any], series: str = "v1.0") -> Patch:
    return parse_patch(row["name"], (project.patches / series / row["name"]).read_bytes())


# --- pull requests ----------------------------------------------------------------------------


def test_a_pull_request_is_pinned_by_its_head(project: Project, fork: Fork) -> None:
    project.up.release("1.1", {"readme": "upstream went on\n"})
    first = fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    head = fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    link = fork.pull(7)
    document = bring(project, "--from-pr", link)
    assert document["source"] == {"kind": "pull-request", "url": link, "ref": "refs/pull/7/head"}
    assert [row["outcome"] for row in document["commits"]] == ["untouched", "untouched"]
    assert document["head"] == head
    patch = taken(project, document["commits"][0])
    assert (patch.trailers.status, patch.trailers.status_note) == ("Submitted", link)
    assert patch.trailers.others == (("Origin", f"other, {link}, commit {first} of {head}"),)
    assert link in patch.trailers.links
    assert "fork" not in yaml.safe_load(project.recipe.read_text()), "a fork is another thing"
    assert project.run("lint").status == 0
    again = bring(project, "--from-pr", f"{link}/")
    assert (again["outcome"], again["since"]) == ("nothing-new", head)


def test_only_the_new_commits_of_a_pull_request(project: Project, fork: Fork) -> None:
    head = fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    bring(project, "--from-pr", fork.pull(7))
    new = fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    document = bring(project, "--from-pr", fork.pull(7))
    assert (document["since"], document["head"]) == (head, new)
    assert [row["commit"] for row in document["commits"]] == [new]
    # Another pull request has nothing to do with that.
    fork.git("checkout", "-q", "-B", "work", "v1.0")
    fork.commit({"readme": "another\n"}, "readme: say more")
    document = bring(project, "--from-pr", fork.pull(70))
    assert document["since"] is None
    assert [row["outcome"] for row in document["commits"]] == ["untouched"]


def test_a_rewritten_pull_request_is_said(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    bring(project, "--from-pr", fork.pull(7))
    before = project.files()
    fork.git("commit", "-q", "--amend", "-m", "b: other words")
    document = bring(project, "--from-pr", fork.pull(7), status=1)
    assert "was rewritten" in document["error"]["message"]
    assert project.files() == before


def test_a_merged_pull_request_still_has_its_commits(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    link = fork.pull(7)
    project.up.release("1.1", {"readme": "upstream went on\n"})
    project.up.git("merge", "-q", "--no-ff", "-m", "Merge #7", "refs/pull/7/head")
    project.up.git("tag", "v1.2")
    project.up.release("1.3", {"readme": "and on\n"})
    document = bring(project, "--from-pr", link)
    assert [row["outcome"] for row in document["commits"]] == ["untouched"]
    assert document["base"] == project.up.versions[0].commit


def test_a_pull_request_as_one_patch(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(REWORKED)}, "b: try\n\nWhy.\n\nSigned-off-by: A <a@example.invalid>")
    project.up.release("1.1", {"c.py": gate(STRICT, "new = 1\n\n\n")})
    fork.git("fetch", "-q", str(project.up.folder), "main")
    fork.git("merge", "-q", "--no-ff", "-m", "Merge main", "FETCH_HEAD")
    fork.git(
        "commit", "-q", "--allow-empty", "-m", "empty",
        GIT_AUTHOR_NAME="B", GIT_AUTHOR_EMAIL="b@example.invalid",
    )  # fmt: skip
    head = fork.commit({"b.py": gate(RELAXED)}, "b: do it")
    link = fork.pull(7)
    document = bring(project, "--from-pr", link, "--squash")
    (row,) = document["commits"]
    assert row["outcome"] == "untouched"
    patch = taken(project, row)
    assert patch.paths == ("b.py",), "what was merged from upstream is not the pull request's"
    assert patch.subject == "b: try"
    assert "b: do it" in patch.message
    assert "Co-authored-by: B <b@example.invalid>" in patch.message
    assert patch.message.count("Signed-off-by") == 0, "nobody signed the whole of it"
    assert patch.trailers.others[-1] == ("Origin", f"other, {link}, commit {head} of {head}")


def test_a_release_from_the_index_without_a_history(project: Project, fork: Fork) -> None:
    """Nobody knows the release's commit: it is applied all the same, with every guard."""
    offered = project.offer(project.up.versions[0])
    project.write_recipe(offered)
    text = project.recipe.read_text()
    commit = project.up.versions[0].commit
    text = text.replace(f"commit: {commit}", "commit: null").replace(
        "{kind: first-hand, detail: the tag}", "{kind: unknown, detail: nobody says}"
    )
    project.recipe.write_text(text)
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    project.up.release("1.1", {"c.py": gate(REWORKED)})
    link = fork.pull(7)
    document = bring(project, "--from-pr", link)
    assert document["base_is"] == "unknown"
    assert [row["outcome"] for row in document["commits"]] == ["untouched"]
    fork.git("checkout", "-q", "-B", "work", "v1.0")
    fork.git("fetch", "-q", str(project.up.folder), "main")
    fork.git("reset", "-q", "--hard", "FETCH_HEAD")
    fork.commit({"c.py": gate("assert everything(major)")}, "c: on the newest upstream")
    before = project.files()
    told = project.run("import", "demo", "--from-pr", fork.pull(8))
    assert told.status == 1
    assert "how the release stands to it is not known" in told.out
    assert "conflict" in told.out
    assert project.files() == before


def test_a_pull_request_from_a_branch_of_upstreams_own(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    link = fork.pull(7)
    project.up.git("branch", "feature", "refs/pull/7/head")
    document = bring(project, "--from-pr", link)
    assert [row["outcome"] for row in document["commits"]] == ["untouched"]


@pytest.mark.parametrize(
    ("upstream", "fetched"),
    [
        ("https://github.com/O/r.git", "https://github.com/O/r.git"),
        ("git@github.com:o/R.git", "git@github.com:o/R.git"),
        ("https://github.com/other/r.git", "https://github.com/o/r.git"),
        ("https://github.com/o/other.git", "https://github.com/o/r.git"),
        ("ssh://git@mirror.example/team/r.git", "ssh://git@mirror.example/team/r.git"),
        ("/srv/git/R", "/srv/git/R"),
        ("/srv/git/other.git", "https://github.com/o/r.git"),
        ("https://mirror.example/r/other", "https://github.com/o/r.git"),
    ],
)
def test_a_number_is_only_asked_of_its_own_repository(upstream: str, fetched: str) -> None:
    assert _repository(upstream, "o", "r") == fetched


# --- what cannot be imported ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing to import from"),
        (("--from-fork", "URL"), "which branch of the fork?"),
        (("--branch", "work"), "nothing to import from"),
        (("--from-fork", "URL", "--branch", "wrok"), "did you mean work?"),
        (("--from-fork", "ext::sh -c id", "--branch", "work"), "not a git URL"),
        (("--from-fork", "--upload-pack=x", "--branch", "work"), "not a git URL"),
        (("--from-fork", "URL", "--branch", "--force"), "branch"),
        (("--from-fork", "URL", "--branch", "a..b"), "'a..b' is not a branch's name"),
        (("--from-fork", "URL", "--branch", "work", "--from-pr", "x"), "--from-pr goes with"),
        (("--from-pr", "https://gitlab.com/a/b/pull/1"), "not a pull request's address"),
        (("--from-pr", "https://github.com/a/b/issues/1"), "not a pull request's address"),
        (("--from-pr", "https://github.com/a/up/pull/99"), "has no refs/pull/99/head"),
        (("--from-fork", "URL", "--branch", "work", "--base", "v9.9"), "no such tag"),
        (("--from-fork", "URL", "--branch", "work", "--base", "v1.1"), "not in the history"),
        (("--from-fork", "URL", "--branch", "work", "--release", "9.9"), "no pinned release"),
        (("--from-fork", "URL", "--branch", "work", "--status", "Soon"), "--status: 'Soon'"),
        (("--from-fork", "URL", "--branch", "work", "--status", "Submitted"), "needs a link"),
        (("--from-fork", "URL", "--branch", "work", "--leave-out", "abc"), "at least 7 digits"),
        (
            ("--from-fork", "URL", "--branch", "work", "--leave-out", "abcdef012"),
            "no commit of the branch begins with it",
        ),
        (("--from-fork", "URL", "--branch", "work", "--skip-path", "../x"), "--skip-path ../x"),
        (("--from-fork", "URL", "--branch", "work", "--skip-path", "/etc"), "--skip-path /etc"),
        (
            ("--from-fork", "https://me:secret@example.invalid/x.git", "--branch", "work"),
            "the URL holds credentials",
        ),
    ],
)
def test_wrong_usage_says_what_to_do(
    project: Project, fork: Fork, words: tuple[str, ...], said: str
) -> None:
    project.up.release("1.1", {"readme": "two\n"})
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    before = project.files()
    ran = project.run("import", "demo", *(fork.url if word == "URL" else word for word in words))
    assert ran.status == 2, ran.err
    assert said in ran.err
    assert "secret" not in ran.err
    assert ran.err.count("\n") <= 3
    assert project.files() == before


def test_an_unreachable_fork_is_the_environments_fault(project: Project, tmp_path: Path) -> None:
    ran = project.run("import", "demo", "--from-fork", f"{tmp_path}/none", "--branch", "work")
    assert ran.status == 3
    assert f"{tmp_path}/none" in ran.err


def test_a_repository_of_something_else(project: Project, tmp_path: Path, fork: Fork) -> None:
    fork.git("checkout", "-q", "--orphan", "work2")
    fork.commit({"b.py": gate(RELAXED)}, "Another history")
    ran = project.run("import", "demo", "--from-fork", fork.url, "--branch", "work2")
    assert ran.status == 2
    assert "shares no commit with upstream" in ran.err


def test_a_shallow_clone_of_a_fork(project: Project, tmp_path: Path, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    shallow = tmp_path / "shallow"
    fork.git("clone", "-q", "--depth=1", "--branch=work", fork.url, str(shallow))
    ran = project.run("import", "demo", "--from-fork", f"file://{shallow}", "--branch", "work")
    assert ran.status in (2, 3)
    assert "shallow" in ran.err


def test_a_store_that_is_shallow_is_completed(project: Project, fork: Fork) -> None:
    """The release was fetched without history; the fork starts before it."""
    project.up.release("1.1", {"readme": "two\n"})
    project.up.release("2.0", {"readme": "three\n"})
    made = project.up.versions[-1]
    block = (
        f'  - version: "2.0"\n    tag: v2.0\n    commit: {made.commit}\n'
        "    commit-evidence: {kind: first-hand, detail: the tag}\n"
        '    date: "2026-01-02T00:00:00Z"\n    series: null\narchs:\n'
    )
    project.recipe.write_text(project.recipe.read_text().replace("archs:\n", block, 1))
    assert project.run("fetch", "demo", "git:v2.0").status == 0
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    words = ("--from-fork", fork.url, "--branch", "work", "--release", "2.0")
    document = bring(project, *words)
    assert [row["outcome"] for row in document["commits"]] == ["untouched"]
    assert document["base_is"] == "before"


def test_a_second_fork_is_refused(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    bring(project, "--from-fork", fork.url, "--branch", "work")
    fork.git("checkout", "-q", "-b", "other")
    document = bring(project, "--from-fork", fork.url, "--branch", "other", status=2)
    assert "follows another fork" in document["error"]["message"]


def test_a_single_commit_of_a_fork(project: Project, fork: Fork) -> None:
    commit = fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    fork.git("config", "uploadpack.allowAnySHA1InWant", "true")
    fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    document = bring(project, "--from-fork", fork.url, "--branch", commit)
    assert [row["commit"] for row in document["commits"]] == [commit]
    kept = yaml.safe_load(project.recipe.read_text())["fork"]
    assert (kept.get("branch"), kept["commit"]) == (None, commit)


# --- kills, disks, second processes -----------------------------------------------------------

KILL = """
import os
from stackpatch import storage
from stackpatch import storage
from stackpatch.cli import imported
real = imported.write_atomically
def write(path, content, **more):
    if {when}:
        os.kill(os.getpid(), 9)
    real(path, content, **more)
imported.write_atomically = write
"""


@pytest.mark.parametrize(
    "when",
    [
        "path.name == 'demo.json'",
        "path.name.startswith('0002')",
        "path.name.startswith('0003')",
        "path.name == 'series'",
        "path.name == 'demo.yaml'",
    ],
)
def test_a_killed_import_is_finished_or_never_was(project: Project, fork: Fork, when: str) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    words = ("import", "demo", "--from-fork", fork.url, "--branch", "work", "--json")
    expected = bring(project, *words[2:], "--dry-run")
    child = project.child(*words, python=KILL.format(when=when))
    _, err = child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL, err.decode()
    document = bring(project, *words[2:-1])
    if when == "path.name == 'demo.json'":
        assert [r["name"] for r in document["commits"]] == [r["name"] for r in expected["commits"]]
    else:
        assert document["outcome"] == "nothing-new", "the journal finished it"
    assert [r["name"] for r in expected["commits"]] == [
        line
        for line in (project.patches / "v1.0" / "series").read_text().splitlines()
        if line.startswith(("0002", "0003"))
    ]
    assert project.run("lint").status == 0
    assert not (project.root / ".stackpatch" / "import" / "demo.json").exists()


@pytest.mark.parametrize("name", ["0002-b-open-the-gate.patch", "series", "demo.yaml"])
def test_a_failure_undoes_what_was_written(
    project: Project, fork: Fork, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    before = project.files()
    real = storage.write_atomically
    failed: list[Path] = []

    def write(path: Path, content: bytes, **more: Any) -> None:
        if path.name == name and not failed:
            failed.append(path)
            raise OSError(28, "No space left on device", str(path))
        real(path, content, **more)

    monkeypatch.setattr(imported, "write_atomically", write)
    ran = project.run("import", "demo", "--from-fork", fork.url, "--branch", "work")
    assert (ran.status, len(failed)) == (3, 1), ran.err
    assert project.files() == before
    assert not (project.root / ".stackpatch" / "import" / "demo.json").exists()


def test_a_recipe_edited_after_the_kill_is_not_overwritten(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    words = ("import", "demo", "--from-fork", fork.url, "--branch", "work")
    child = project.child(*words, python=KILL.format(when="path.name == 'demo.yaml'"))
    child.communicate(timeout=120)
    edited = project.recipe.read_text() + "# mine\n"
    project.recipe.write_text(edited)
    ran = project.run(*words)
    assert ran.status == 2
    assert "the recipe was edited since" in ran.err
    assert project.recipe.read_text() == edited


def test_two_imports_at_once(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    words = ("import", "demo", "--from-fork", fork.url, "--branch", "work")
    slow = project.child(
        *words,
        python="from stackpatch.sources import forks\nimport sys, time\nreal = forks.bring\n"
        "def bring(*a, **k):\n    print('here', file=sys.stderr, flush=True)\n    time.sleep(8)\n"
        "    return real(*a, **k)\nforks.bring = bring\n",
    )
    assert slow.stderr is not None
    assert slow.stderr.readline() == b"here\n"
    ran = project.run(*words)
    _, err = slow.communicate(timeout=120)
    assert ran.status == 3
    assert "another rebase or import of demo is still at work" in ran.err
    assert slow.returncode == 0, err.decode()


def test_an_import_into_a_rebase_under_way(project: Project, fork: Fork) -> None:
    project.up.release("2.0", {"a.py": gate(REWORKED)})
    assert project.run("rebase", "demo", "--onto", "git:v2.0").status == 4
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    ran = project.run("import", "demo", "--from-fork", fork.url, "--branch", "work")
    assert ran.status == 2
    assert "a rebase of demo is under way" in ran.err
    assert project.run("rebase", "demo", "--status").status == 4


def test_a_folder_that_nobody_may_write(project: Project, fork: Fork) -> None:
    if os.geteuid() == 0:
        # Root may write everywhere: another way to a disk that refuses is a file in the way.
        (project.root / ".stackpatch").write_text("in the way")
    else:
        project.root.chmod(stat.S_IRUSR | stat.S_IXUSR)
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    before = project.files()
    ran = project.run("import", "demo", "--from-fork", fork.url, "--branch", "work")
    project.root.chmod(0o755)
    assert ran.status == 3, ran.err
    assert project.files() == before


# --- a person at a terminal -------------------------------------------------------------------


def at_a_terminal(project: Project, words: tuple[str, ...], answers: list[tuple[str, str]]) -> str:
    """Run it on a terminal; each answer is typed once its question stands there."""
    code = "import sys\nfrom stackpatch.cli.main import main\n"
    code += f"sys.exit(main({[*words, '--root', str(project.root)]!r}))\n"
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - the child
        os.execv(sys.executable, [sys.executable, "-c", code])  # noqa: S606 - on a terminal
    said, seen = "", 0
    waiting = list(answers)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                piece = os.read(terminal, 65536).decode()
            except OSError:
                break
            if not piece:
                break
            said += piece
        if waiting and waiting[0][0] in said[seen:]:
            seen = len(said)
            os.write(terminal, waiting.pop(0)[1].encode() + b"\n")
    os.close(terminal)  # a child that still waits for an answer gets SIGHUP
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said
    assert not waiting, said
    return said


def test_a_person_is_asked_for_trailers(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    said = at_a_terminal(
        project,
        ("import", "demo", "--from-fork", fork.url, "--branch", "work"),
        [
            ("Upstream-Status (", "Submitted"),
            ("needs a link", "Pending"),
            ("Bug (", "https://example.org/1"),
            ("Effect (", "b.py :: build :: assert"),
            ("it is true without the patch too", r"b.py :: build :: \(10, 12\)"),
            ("Upstream-Status (", ""),
            ("Bug (", ""),
            ("Effect (", ""),
        ],
    )
    assert "without Upstream-Status" in said
    listing = (project.patches / "v1.0" / "series").read_text().splitlines()[-2:]
    first, second = (taken(project, {"name": name}) for name in listing)
    assert (first.trailers.status, first.trailers.bugs) == ("Pending", ("https://example.org/1",))
    assert [effect.pattern for effect in first.trailers.effects] == [r"\(10, 12\)"]
    assert (second.trailers.status, second.trailers.bugs, second.trailers.effects) == (None, (), ())
    assert json.loads(project.run("lint", "--json").out)["problems"] == []


def test_nobody_is_asked_where_the_status_was_given(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    words = ("import", "demo", "--from-fork", fork.url, "--branch", "work", "--status", "Pending")
    said = at_a_terminal(project, words, [])
    assert "Effect (" not in said
