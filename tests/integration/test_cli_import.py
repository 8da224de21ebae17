"""`stackpatch import` as a person uses it: forks and pull requests as real git repositories."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.forks import Fork
from tests.projects import RELAXED, REWORKED, STRICT, Project, gate, open_gate

from stackpatch.model.patch import parse_patch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serving import Server

NAMES = ("a", "b", "c")


@pytest.fixture
def project(tmp_path: Path, index: Server) -> Project:
    """Three gates; the series has the first open."""
    files = {f"{name}.py": gate(STRICT) for name in NAMES} | {"readme": "one\n"}
    return Project(tmp_path, index, files, open_gate("a"))


@pytest.fixture
def fork(project: Project, tmp_path: Path) -> Fork:
    return Fork(project, tmp_path / "fork")


def outcomes(document: dict[str, Any]) -> list[str]:
    return [row["outcome"] for row in document["commits"]]


def bring(project: Project, fork: Fork, *words: str, status: int = 0) -> dict[str, Any]:
    ran = project.run(
        "import", "demo", "--from-fork", fork.url, "--branch", "work", "--json", *words
    )
    assert ran.status == status, ran.err
    return ran.document


def recipe(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(project.recipe.read_text())
    return found


def test_a_forks_commits_become_patches(project: Project, fork: Fork) -> None:
    first = fork.commit(
        {"b.py": gate(RELAXED)}, "b: open the gate\n\nWhy.\n\nUpstream-Status: Pending"
    )
    second = fork.commit({"new.py": "x = 1\n"}, "Add: a file (ünusual)")
    before = project.files()
    document = bring(project, fork)
    assert document["schema"] == "stackpatch.import/1"
    assert outcomes(document) == ["untouched", "untouched"]
    assert (document["base"], document["base_is"]) == (project.up.versions[0].commit, "same")
    assert (document["head"], document["since"]) == (second, None)
    after = project.files()
    names = [row["name"] for row in document["commits"]]
    assert names == ["0002-b-open-the-gate.patch", "0003-Add-a-file-nusual.patch"]
    listing = after["patches/demo/v1.0/series"].decode().splitlines()
    assert listing[:2] == ["# our patches", project.series.patches[0].name]
    assert listing[3:] == names
    patch = parse_patch(names[0], after[f"patches/demo/v1.0/{names[0]}"])
    assert patch.raw.startswith(f"From {first} ".encode())
    assert (patch.author_name, patch.author_email) == ('Fork, Dr. "F', "fork@example.invalid")
    assert patch.date.isoformat() == "2026-02-01T12:00:00+01:30"
    assert len(patch.files[0].old_id or "") == 40
    assert patch.trailers.others == (("Origin", f"other, {fork.url}, commit {first}"),)
    assert recipe(project)["fork"] == {
        "url": fork.url,
        "branch": "work",
        "commit": second,
        "base": project.up.versions[0].commit,
        "release": "1.0",
    }
    old, new = before["recipes/demo.yaml"].decode(), after["recipes/demo.yaml"].decode()
    assert new.startswith(old), "what was there stays byte for byte"
    lint = project.run("lint", "--json")
    assert lint.status == 0
    assert "Upstream-Status: missing" in lint.out
    assert names[1] in lint.out


def test_git_am_makes_the_forks_tree_of_the_series(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    fork.commit({"b.py": gate(RELAXED, "new = 1\n"), "x/y.py": "x = 1\n"}, "[feat] more\nof it")
    fork.git("mv", "readme", "README")
    fork.commit({"x/y.py": None}, "Move and remove")
    bring(project, fork)
    git = fork.git
    git("checkout", "-q", "--detach", "v1.0")
    for name in (project.patches / "v1.0" / "series").read_text().splitlines():
        if name.startswith("000") and not name.startswith("0001"):
            git("am", "-q", "--keep-non-patch", str(project.patches / "v1.0" / name))
    assert git("rev-parse", "HEAD^{tree}") == git("rev-parse", "work^{tree}")
    ours = git("log", "--format=%an %ae %aI %s", "v1.0..HEAD")
    assert ours == git("log", "--format=%an %ae %aI %s", "v1.0..work")


def test_a_dry_run_tells_the_same_and_writes_nothing(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    before = project.files()
    dry = bring(project, fork, "--dry-run")
    assert project.files() == before
    assert not (project.root / ".stackpatch").exists()
    real = bring(project, fork)
    assert dry.pop("dry_run") is True
    assert real.pop("dry_run") is False
    assert dry.pop("series") is None
    assert real.pop("series") == str(project.patches / "v1.0")
    assert dry == real


def test_a_later_run_brings_only_what_is_new(project: Project, fork: Fork) -> None:
    first = fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    bring(project, fork)
    second = fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    document = bring(project, fork)
    assert [row["commit"] for row in document["commits"]] == [second]
    assert [row["name"] for row in document["commits"]] == ["0003-c-open-the-gate.patch"]
    assert document["since"] == first
    assert document["base"] == project.up.versions[0].commit
    after = project.files()
    assert recipe(project)["fork"]["commit"] == second
    assert recipe(project)["fork"]["base"] == project.up.versions[0].commit
    again = bring(project, fork)
    assert (again["outcome"], again["commits"], again["series"]) == ("nothing-new", [], None)
    assert project.files() == after
    by_recipe = project.run("import", "demo", "--json")
    assert (by_recipe.status, by_recipe.document["outcome"]) == (0, "nothing-new")


def test_a_rewritten_branch_is_said_and_not_guessed(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    common = fork.git("rev-parse", "HEAD")
    old = fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    bring(project, fork)
    before = project.files()
    fork.git("commit", "-q", "--amend", "-m", "c: with another message")
    document = bring(project, fork, status=1)
    message, hint = document["error"]["message"], document["error"]["hint"]
    assert "was rewritten" in message
    assert old[:12] in message
    assert f"--base {common}" in hint
    assert project.files() == before
    # By the person's word it goes on from there: the same change is in the series already.
    document = bring(project, fork, "--base", common)
    assert outcomes(document) == ["contained"]
    assert recipe(project)["fork"]["commit"] == fork.git("rev-parse", "HEAD")


def test_a_branch_with_nothing_of_its_own_changes_nothing(project: Project, fork: Fork) -> None:
    before = project.files()
    document = bring(project, fork)
    assert (document["outcome"], document["commits"]) == ("nothing-new", [])
    assert project.files() == before
    # Where all of it is upstream, that is noted: the next run starts behind it.
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    project.up.release("2.0", {"b.py": gate(RELAXED)})
    pin(project, "2.0")
    document = bring(project, fork, "--release", "2.0")
    assert (outcomes(document), document["series"]) == (["landed"], None)
    assert recipe(project)["fork"]["commit"] == document["head"]
    assert recipe(project)["releases"][1]["series"] is None


# --- merges -----------------------------------------------------------------------------------


def test_a_merge_is_linearised(project: Project, fork: Fork) -> None:
    fork.git("checkout", "-q", "-b", "side")
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    fork.git("checkout", "-q", "work")
    fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    fork.git("merge", "-q", "--no-ff", "-m", "Merge side", "side")
    document = bring(project, fork)
    assert sorted(outcomes(document)) == ["merge", "untouched", "untouched"]
    assert document["commits"][-1]["outcome"] == "merge"
    assert len((project.patches / "v1.0" / "series").read_text().splitlines()) == 5
    applied = project.run("apply", "demo", "--arch", "sm121", "--dry-run", "--json")
    assert applied.status == 0


def evil(fork: Fork) -> str:
    """A merge that changes a file that neither side touched."""
    fork.git("checkout", "-q", "-b", "side")
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    fork.git("checkout", "-q", "work")
    fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    fork.git("merge", "-q", "--no-ff", "--no-commit", "side")
    fork.write({"readme": "slipped in\n"})
    fork.git("commit", "-q", "-m", "Merge side, and more")
    return fork.git("rev-parse", "HEAD")


def test_a_merge_with_changes_of_its_own_is_told_by_name(project: Project, fork: Fork) -> None:
    merge = evil(fork)
    before = project.files()
    document = bring(project, fork, status=1)
    row = document["commits"][-1]
    assert (row["commit"], row["outcome"]) == (merge, "own-changes")
    assert row["detail"] == "the merge changes on its own readme"
    assert project.files() == before
    assert "--leave-out" in document["error"]["hint"]
    document = bring(project, fork, "--leave-out", merge[:10])
    assert document["commits"][-1]["outcome"] == "left-out"
    assert document["outcome"] == "clean"


def test_a_resolved_conflict_is_a_merge_with_changes_of_its_own(
    project: Project, fork: Fork
) -> None:
    fork.git("checkout", "-q", "-b", "side")
    fork.commit({"readme": "side\n"}, "side")
    fork.git("checkout", "-q", "work")
    fork.commit({"readme": "work\n"}, "work")
    fork.git("merge", "-q", "-s", "ours", "-m", "Merge side", "side")
    document = bring(project, fork, status=1)
    stopped = {row["outcome"]: row["detail"] for row in document["commits"]}
    assert stopped["own-changes"] == "the merge resolves conflicts in readme"


def test_a_merge_of_three_is_told(project: Project, fork: Fork) -> None:
    for name in ("b", "c"):
        fork.git("checkout", "-q", "-b", f"side-{name}", "v1.0")
        fork.commit({f"{name}.py": gate(RELAXED)}, f"{name}: open")
    fork.git("checkout", "-q", "work")
    fork.commit({"readme": "work\n"}, "work")
    fork.git("merge", "-q", "-m", "All", "side-b", "side-c")
    document = bring(project, fork, status=1)
    assert "a merge of 3 branches" in document["commits"][-1]["detail"]


def test_squash_takes_a_branch_whole(project: Project, fork: Fork) -> None:
    head = evil(fork)
    document = bring(project, fork, "--squash", "--status", "Pending")
    (row,) = document["commits"]
    assert (row["outcome"], row["commit"]) == ("untouched", head)
    patch = parse_patch(row["name"], (project.patches / "v1.0" / row["name"]).read_bytes())
    assert sorted(patch.paths) == ["b.py", "c.py", "readme"]
    assert "2 commits in one" in patch.message
    assert patch.trailers.status == "Pending"


def test_what_was_merged_from_upstream_is_not_the_forks(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    project.up.release("1.1", {"readme": "upstream\n", "more.py": "x = 1\n"})
    fork.git("fetch", "-q", str(project.up.folder), "main")
    fork.git("merge", "-q", "--no-ff", "-m", "Merge upstream", "FETCH_HEAD")
    fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    document = bring(project, fork)
    assert outcomes(document) == ["untouched", "merge", "untouched"]
    squashed = bring(project, fork, "--squash", "--dry-run", "--base", "v1.0")
    assert [row["outcome"] for row in squashed["commits"]] == ["contained"]


# --- what is upstream, what does not apply ----------------------------------------------------


def pin(project: Project, version: str, series: str = "null") -> None:
    """Another release in the recipe, with its commit."""
    made = next(one for one in project.up.versions if one.version == version)
    block = (
        f'  - version: "{version}"\n    tag: v{version}\n    commit: {made.commit}\n'
        "    commit-evidence: {kind: first-hand, detail: the tag}\n"
        f'    date: "2026-01-02T00:00:00Z"\n    series: {series}\n'
    )
    text = project.recipe.read_text().replace("archs:\n", f"{block}archs:\n", 1)
    project.recipe.write_text(text)


def test_what_the_release_has_is_left_out_with_its_evidence(project: Project, fork: Fork) -> None:
    landed = fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    project.up.release("2.0", {"b.py": gate(RELAXED), "readme": "two\n"})
    pin(project, "2.0")
    document = bring(project, fork, "--release", "2.0")
    assert outcomes(document) == ["landed", "untouched"]
    assert document["base_is"] == "before"
    row = document["commits"][0]
    assert (row["commit"], row["verdict"], row["name"]) == (landed, "upstreamed", None)
    assert any(one["layer"] == "patch-id" for one in row["evidence"]), row["evidence"]
    assert recipe(project)["releases"][1]["series"] == "v2.0"
    listing = (project.patches / "v2.0" / "series").read_text().splitlines()
    assert listing[1:] == ["0001-c-open-the-gate.patch"]
    assert project.run("lint").status == 0


def test_a_commit_that_does_not_apply_is_a_finding(project: Project, fork: Fork) -> None:
    bad = fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    fork.commit({"b.py": gate(f"{RELAXED}  # more")}, "b: comment")
    fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    project.up.release("2.0", {"b.py": gate(REWORKED)})
    pin(project, "2.0")
    before = project.files()
    document = bring(project, fork, "--release", "2.0", status=1)
    assert document["outcome"] == "conflict"
    assert outcomes(document) == ["conflict", "conflict", "untouched"]
    assert f"perhaps only because {bad[:12]} is missing" in document["commits"][1]["detail"]
    assert project.files() == before
    assert document["series"] is None
    said = project.run(
        "import", "demo@2.0", "--from-fork", fork.url, "--branch", "work", "--dry-run"
    )
    assert said.status == 1
    assert "2 commits cannot be taken" in said.err
    assert "b: open the gate" in said.out


def test_a_gate_that_reads_like_ours_is_not_opened(project: Project, fork: Fork) -> None:
    """The release reworked gate b, and has another one that reads as b's did."""
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    twin = gate(REWORKED) + gate(STRICT).replace("def build", "def other").split("\n\n\n", 1)[1]
    project.up.release("2.0", {"b.py": twin})
    pin(project, "2.0")
    document = bring(project, fork, "--release", "2.0", status=1)
    assert outcomes(document)[0] in ("conflict", "misplaced")


def test_what_says_nothing_or_follows_up_is_told(project: Project, fork: Fork) -> None:
    one = fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    fork.commit({}, "retrigger CI")
    fork.commit({"b.py": gate(RELAXED, "x = 1\n")}, "fixup! b: open the gate")
    two = fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    fork.git("revert", "--no-edit", two)
    document = bring(project, fork)
    assert outcomes(document) == ["untouched", "empty", "untouched", "untouched", "untouched"]
    notes = [row["notes"] for row in document["commits"]]
    assert f"a fixup for {one[:12]} 'b: open the gate'" in notes[2][0]
    assert f"reverts {two[:12]} 'c: open the gate'" in notes[4][0]
    assert notes[0] == notes[1] == notes[3] == []


def test_a_change_that_two_commits_make_is_in_the_series_once(project: Project, fork: Fork) -> None:
    fork.git("checkout", "-q", "-b", "side")
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    fork.git("checkout", "-q", "work")
    fork.commit({"b.py": gate(RELAXED), "c.py": gate(RELAXED)}, "b and c: open")
    fork.git("merge", "-q", "--no-ff", "-m", "Merge", "side")
    words = outcomes(bring(project, fork, status=0))
    assert words == ["untouched", "contained", "merge"]
    applied = project.run("apply", "demo", "--arch", "sm121", "--dry-run", "--json")
    assert applied.status == 0


def test_a_release_without_a_series_gets_one(project: Project, fork: Fork) -> None:
    project.up.release("2.0", {"readme": "two\n"})
    pin(project, "2.0")
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    document = bring(project, fork, "--release", "2.0")
    assert document["series"] == str(project.patches / "v2.0")
    assert document["commits"][0]["name"] == "0001-b-open-the-gate.patch"
    releases = recipe(project)["releases"]
    assert [release["series"] for release in releases] == ["v1.0", "v2.0"]
    assert "# The demonstration's recipe; comments stay." in project.recipe.read_text()
    assert project.run("lint").status == 0


def test_the_next_commits_follow_a_rebased_series(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    bring(project, fork)
    project.up.release("2.0", {"readme": "two\n"})
    assert project.run("rebase", "demo", "--onto", "git:v2.0").status == 0
    fork.commit({"c.py": gate(RELAXED)}, "c: open the gate")
    document = bring(project, fork, "--release", "2.0")
    assert outcomes(document) == ["untouched"]
    assert recipe(project)["fork"]["release"] == "2.0"


def test_a_release_that_lacks_the_earlier_commits_is_refused(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate")
    bring(project, fork)
    project.up.release("2.0", {"readme": "two\n"})
    pin(project, "2.0")
    document = bring(project, fork, "--release", "2.0", status=2)
    assert "earlier commits are in that of 1.0" in document["error"]["message"]
    assert "rebase demo@1.0 --onto 2.0" in document["error"]["hint"]


# --- contents that need care ------------------------------------------------------------------


def test_binary_and_submodule_changes_are_findings(project: Project, fork: Fork) -> None:
    (fork.folder / "picture.png").write_bytes(bytes(range(256)))
    fork.commit({}, "Add a picture")
    fork.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},3rdparty/cutlass")
    fork.git("commit", "-q", "-m", "Bump cutlass")
    document = bring(project, fork, status=1)
    assert outcomes(document) == ["conflict", "unreadable"]
    assert "binary patches are not applied" in document["commits"][0]["detail"]
    assert "submodule" in document["commits"][1]["detail"]


def test_a_path_can_be_left_out(project: Project, fork: Fork) -> None:
    (fork.folder / "docs").mkdir()
    (fork.folder / "docs" / "picture.png").write_bytes(bytes(range(256)))
    fork.commit({"b.py": gate(RELAXED)}, "b: open the gate, with a picture")
    fork.commit({"docs/text": "x\n"}, "docs: more")
    document = bring(project, fork, "--skip-path", "docs")
    assert outcomes(document) == ["untouched", "left-out"]
    name = document["commits"][0]["name"]
    patch = parse_patch(name, (project.patches / "v1.0" / name).read_bytes())
    assert patch.paths == ("b.py",)
    assert patch.trailers.others[0][1].endswith(", without docs")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{0}\nsize 12\n"


def test_a_pointer_of_git_lfs_is_told(project: Project, fork: Fork) -> None:
    fork.commit({"kernel.a": POINTER.format("a" * 64), "b.py": gate(RELAXED)}, "A kernel")
    document = bring(project, fork)
    (note,) = document["commits"][0]["notes"]
    assert note.startswith("kernel.a is a git LFS pointer")


def test_carriage_returns_renames_and_modes_survive(project: Project, fork: Fork) -> None:
    fork.git("config", "core.autocrlf", "false")
    fork.commit({"dos.txt": "one\r\n\r\ntwo\r\n", "b.py": gate(RELAXED)}, "DOS file")
    fork.commit({"dos.txt": "one\r\n\r\nthree\r\n"}, "Change it")
    fork.git("mv", "b.py", "gate_b.py")
    fork.git("update-index", "--chmod=+x", "c.py")
    fork.git("commit", "-q", "-m", "Rename one, make one executable")
    document = bring(project, fork)
    assert outcomes(document) == ["untouched"] * 3
    name = document["commits"][2]["name"]
    patch = parse_patch(name, (project.patches / "v1.0" / name).read_bytes())
    assert [file.change.value for file in patch.files] == ["modify", "rename"]
    # The tree that they give was held to the branch's by the command itself; here by ours.
    applied = project.run("apply", "demo", "--arch", "sm121", "--to", str(fork.folder.parent / "t"))
    assert applied.status == 0
    there = fork.folder.parent / "t"
    assert (there / "dos.txt").read_bytes() == b"one\r\n\r\nthree\r\n"
    assert (there / "c.py").stat().st_mode & 0o111


MESSAGE = """b: open the gate

From: somebody else <x@example.invalid>
Subject: not this

diff --git a/x b/x
--- a/x
---
From 0123456789012345678901234567890123456789 Mon Sep 17
Effect: it is faster
Upstream-Status: nobody knows

Bug: none that I know
Signed-off-by: A Person <a@example.invalid>
"""


def test_a_message_cannot_be_taken_for_something_else(project: Project, fork: Fork) -> None:
    fork.commit({"b.py": gate(RELAXED)}, MESSAGE)
    document = bring(project, fork, "--status", "Pending")
    (row,) = document["commits"]
    assert row["outcome"] == "untouched"
    assert "'Effect: it is faster'" in row["notes"][0]
    patch = parse_patch(row["name"], (project.patches / "v1.0" / row["name"]).read_bytes())
    assert patch.subject == "b: open the gate"
    assert patch.author_email == "fork@example.invalid"
    assert patch.paths == ("b.py",)
    assert patch.trailers.status == "Pending"
    assert patch.trailers.effects == ()
    assert project.run("lint").status == 0
    fork.git("checkout", "-q", "--detach", "v1.0")
    fork.git("am", "-q", str(project.patches / "v1.0" / row["name"]))
    assert fork.git("log", "-1", "--format=%ae %s") == "fork@example.invalid b: open the gate"
    assert fork.git("rev-parse", "HEAD^{tree}") == fork.git("rev-parse", "work^{tree}")


def test_the_same_bytes_on_every_machine(project: Project, fork: Fork, tmp_path: Path) -> None:
    fork.commit({"b.py": gate(RELAXED), "ü.txt": "ü\n"}, "b: öffnen\n\nWeil.")
    document = bring(project, fork)
    name = document["commits"][0]["name"]
    first = (project.patches / "v1.0" / name).read_bytes()
    other = Project(tmp_path / "other", project.index, {"x": "x"}, ("x", {"y": "y\n"}, ""))
    text = project.recipe.read_text().split("\nfork:")[0] + "\n"
    other.recipe.write_text(text)
    for patch in other.series.patches:
        (other.patches / "v1.0" / patch.name).unlink()
    (other.patches / "v1.0" / project.series.patches[0].name).write_bytes(
        project.series.patches[0].raw
    )
    (other.patches / "v1.0" / "series").write_text(f"{project.series.patches[0].name}\n")
    config = tmp_path / "gitconfig"
    config.write_text(
        "[diff]\nalgorithm = patience\nnoprefix = true\nmnemonicPrefix = true\ncontext = 9\n"
        "[format]\nsignature = x\n[core]\nquotePath = false\nabbrev = 9\n"
    )
    words = ("import", "demo", "--from-fork", fork.url, "--branch", "work", "--json")
    code = "import os, time; os.umask(0o077)"
    os.environ |= {
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "tr_TR.UTF-8",
        "GIT_CONFIG_GLOBAL": str(config),
    }
    try:
        child = other.child(*words, python=code)
        out, err = child.communicate(timeout=120)
    finally:
        for key in ("TZ", "LC_ALL", "GIT_CONFIG_GLOBAL"):
            del os.environ[key]
    assert child.returncode == 0, err.decode()
    made = other.patches / "v1.0" / json.loads(out)["commits"][0]["name"]
    assert made.name == name
    assert made.read_bytes() == first
    assert made.stat().st_mode & 0o777 == 0o644
