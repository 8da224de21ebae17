"""`stackpatch rebase` as a person and a nightly job use it, on real repositories."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.projects import RELAXED, REWORKED, STRICT, Project, gate, open_gate
from tests.upstreams import filler, function

from stackpatch.model.patch import parse_patch
from stackpatch.storage import cache_root, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.serving import Server

NAMES = ("a", "b", "c")


@pytest.fixture
def project(tmp_path: Path, index: Server) -> Project:
    """Three gates, three patches; nothing but 1.0 is out."""
    files = {f"{name}.py": gate(STRICT) for name in NAMES} | {"readme": "one\n"}
    return Project(tmp_path, index, files, *map(open_gate, NAMES))


def outcomes(document: dict[str, Any]) -> list[str]:
    return [row["outcome"] for row in document["patches"]]


def rebase(project: Project, *words: str) -> Any:
    return project.run("rebase", "demo", *words)


def conflict(project: Project, *names: str) -> dict[str, Any]:
    """Release 2.0, which conflicts in these files, and a rebase that stops at the first."""
    project.up.release("2.0", {f"{name}.py": gate(REWORKED) for name in names})
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    assert ran.status == 4, ran.err
    document: dict[str, Any] = ran.document
    return document


def resolve(project: Project, name: str) -> None:
    (project.worktree / f"{name}.py").write_text(gate(RELAXED))


# --- everything moves -------------------------------------------------------------------------


def test_a_clean_rebase_writes_series_and_release(project: Project) -> None:
    moved = gate(STRICT, "new = 1\n\n\n")
    project.up.release("2.0", {"a.py": moved, "b.py": gate(RELAXED), "readme": "two\n"})
    before = project.files()
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    assert ran.status == 0, ran.err
    document = ran.document
    assert document["schema"] == "stackpatch.rebase/1"
    assert (document["stack"], document["from"]) == ("demo", "1.0")
    assert (document["onto"], document["outcome"]) == ("git:v2.0", "clean")
    assert outcomes(document) == ["moved", "landed", "untouched"]
    assert document["patches"][1]["verdict"] == "upstreamed"
    assert document["patches"][1]["evidence"], "a dropped patch says why"
    assert {"name", "outcome", "detail", "hunks"} <= document["patches"][0].keys()
    assert document["worktree"] is None
    assert document["series"] == str(project.patches / "v2.0")

    after = project.files()
    assert {name: after[name] for name in before if name != "recipes/demo.yaml"} == {
        name: raw for name, raw in before.items() if name != "recipes/demo.yaml"
    }, "the old series stays as it was"
    old, new = before["recipes/demo.yaml"].decode(), after["recipes/demo.yaml"].decode()
    assert [line for line in new.splitlines() if line in old.splitlines()] == old.splitlines()
    release = yaml.safe_load(new)["releases"][1]
    assert (release["version"], release["tag"], release["series"]) == ("2.0", "v2.0", "v2.0")
    assert release["commit"] == project.up.versions[1].commit
    assert release["date"] == "2026-01-01T00:00:00Z", "the commit's, not today's"
    assert release["commit-evidence"]["kind"] == "first-hand"

    untouched = project.series.patches[2]
    assert after[f"patches/demo/v2.0/{untouched.name}"] == untouched.raw
    listing = after["patches/demo/v2.0/series"].decode().splitlines()
    assert listing[0] == "# Moved from 1.0 to git:v2.0 by stackpatch rebase."
    assert listing[1:] == ["# our patches", project.series.patches[0].name, untouched.name]
    assert not project.home.exists()
    assert project.run("lint").status == 0
    applied = project.run("apply", "demo@2.0", "--arch", "sm121", "--dry-run", "--json")
    assert [one["offset"] for one in applied.document["patches"]] == [0, 0]


def test_line_ends_of_recipe_and_series_are_kept(project: Project) -> None:
    listing = project.patches / "v1.0" / "series"
    for file in (project.recipe, listing):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    before = project.recipe.read_bytes()
    project.up.release("2.0", {"readme": "two\n"})
    assert rebase(project, "--onto", "git:v2.0").status == 0
    after = project.recipe.read_bytes()
    assert after.count(b"\n") == after.count(b"\r\n")
    start = after.index(b'\r\n  - version: "2.0"')
    assert before.startswith(after[:start])
    assert before.endswith(after[after.index(b"archs:") :])
    moved = (project.patches / "v2.0" / "series").read_bytes()
    assert moved == b"# Moved from 1.0 to git:v2.0 by stackpatch rebase.\r\n" + listing.read_bytes()
    assert project.run("lint").status == 0


def test_the_new_release_can_be_rebased_again(project: Project) -> None:
    project.up.release("2.0", {"a.py": gate(STRICT, "new = 1\n\n\n")})
    project.up.release("3.0", {"a.py": gate(STRICT, "new = 1\nnewer = 1\n\n\n")})
    assert rebase(project, "--onto", "git:v2.0").status == 0
    ran = project.run("rebase", "demo@2.0", "--onto", "git:v3.0", "--json")
    assert outcomes(ran.document) == ["moved", "untouched", "untouched"]
    assert project.run("lint").status == 0


def test_what_stands_in_the_new_series_gives_the_tree_that_was_told(project: Project) -> None:
    project.up.release("2.0", {"c.py": gate(STRICT, "x = 1\n\n\n")})
    assert rebase(project, "--onto", "git:v2.0").status == 0
    git = project.up.git
    git("checkout", "-q", "--detach", "v2.0")
    listing = (project.patches / "v2.0" / "series").read_text().splitlines()
    mails = [str(project.patches / "v2.0" / name) for name in listing if name[0] != "#"]
    git("am", "-q", *mails)
    assert (project.up.folder / "c.py").read_text() == gate(RELAXED, "x = 1\n\n\n")
    ran = project.run("apply", "demo@2.0", "--arch", "sm121", "--dry-run", "--json")
    assert ran.document["tree"] == git("rev-parse", "HEAD^{tree}"), "git am makes the same tree"


def test_an_sdist_of_the_index_is_pinned_by_its_digest(project: Project) -> None:
    project.write_recipe(project.offer(project.up.versions[0]))
    two = project.up.release("2.0", {"readme": "two\n"})
    pins = project.offer(two)
    ran = rebase(project, "--onto", "2.0", "--json")
    assert ran.status == 0, ran.err
    assert ran.document["onto"] == "sdist:2.0"
    release = yaml.safe_load(project.recipe.read_text())["releases"][1]
    assert release["artefacts"] == yaml.safe_load(pins)["artefacts"]
    assert (release["commit"], release["commit-evidence"]["kind"]) == (None, "unknown")
    assert project.run("lint").status == 0


def test_nothing_left_is_a_release_with_an_empty_series(project: Project) -> None:
    project.up.release("2.0", {f"{name}.py": gate(RELAXED) for name in NAMES})
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    assert outcomes(ran.document) == ["landed"] * 3
    assert sorted(p.name for p in (project.patches / "v2.0").iterdir()) == ["series"]
    assert project.run("lint").status == 0


# --- a conflict -------------------------------------------------------------------------------


def test_a_conflict_waits_and_says_everything(project: Project) -> None:
    before = project.files()
    document = conflict(project, "b")
    assert outcomes(document) == ["untouched", "conflict", "pending"]
    assert document["outcome"] == "conflict"
    assert document["worktree"] == str(project.worktree)
    assert document["error"]["kind"] == "waiting"
    assert "--continue" in document["error"]["hint"]
    told = document["conflict"]
    assert told["patch"] == project.series.patches[1].name
    assert (told["subject"], told["intent"]) == ("Open b", "Why.")
    assert f"-    {STRICT}" in told["hunks"][0]["text"]
    assert project.files() == before, "nothing changes before the end"
    half = (project.worktree / "b.py").read_text()
    assert "<<<<<<< upstream git:v2.0" in half


def test_people_see_intent_hunk_and_next_command(project: Project) -> None:
    project.up.release("2.0", {"b.py": gate(REWORKED)})
    ran = rebase(project, "--onto", "git:v2.0")
    assert ran.status == 4
    assert "what 0002-Open-b.patch is for:\n  Open b\n  Why.\n" in ran.out
    assert f"-    {STRICT}" in ran.out
    assert "stackpatch rebase demo --continue" in ran.err
    assert "Traceback" not in ran.err


def test_continue_finishes(project: Project) -> None:
    conflict(project, "b")
    waiting = rebase(project, "--continue", "--json")
    assert waiting.status == 4
    assert "conflicts are left in b.py" in waiting.document["error"]["message"]
    resolve(project, "b")
    ran = rebase(project, "--continue", "--json")
    assert ran.status == 0, ran.err
    assert outcomes(ran.document) == ["untouched", "resolved", "untouched"]
    new = parse_patch("b", (project.patches / "v2.0" / "0002-Open-b.patch").read_bytes())
    assert new.message == project.series.patches[1].message
    assert project.run("lint").status == 0
    assert not project.home.exists()


def test_what_a_person_leaves_unreadable_is_told(project: Project) -> None:
    """It is taken all the same: a person may know better than a grammar of ours."""
    conflict(project, "b")
    (project.worktree / "b.py").write_text(gate(RELAXED).replace(RELAXED, f"=======\n{RELAXED}"))
    ran = rebase(project, "--continue", "--json")
    assert (ran.status, outcomes(ran.document)[1]) == (0, "resolved"), ran.err
    detail = ran.document["patches"][1]["detail"]
    assert detail.startswith("resolved by hand; b.py does not parse at line 11, upstream's did; ")


def test_a_separator_that_is_left_is_told(tmp_path: Path, index: Server) -> None:
    """In a file of which no grammar knows whether it is right."""
    files = {"x.cfg": "a\nb\nc\n=======\n"}
    ours = ("Change b", {"x.cfg": "a\nB\nc\n=======\n"}, "Upstream-Status: Pending")
    project = Project(tmp_path, index, files, ours)
    project.up.release("2.0", {"x.cfg": "a\nbb\nc\n=======\n"})
    assert rebase(project, "--onto", "git:v2.0").status == 4
    (project.worktree / "x.cfg").write_text("a\n=======\nB\nc\n=======\n")
    ran = rebase(project, "--continue", "--json")
    assert ran.document["patches"][0]["detail"] == (
        "resolved by hand; x.cfg has a line ======= that upstream's has not"
    )


def test_what_a_resolved_patch_lost_is_told(tmp_path: Path, index: Server) -> None:
    """A file that upstream removed, and half of a change: else nobody would see it later."""
    files = {"a.py": gate(STRICT, "one = 1\n\n\n"), "b.py": gate(STRICT)}
    both = {"a.py": gate(RELAXED, "one = 2\n\n\n"), "b.py": gate(RELAXED)}
    project = Project(tmp_path, index, files, ("Open both", both, "Upstream-Status: Pending"))
    project.up.commit({"b.py": None}, "Drop b")
    project.up.release("2.0", {"a.py": gate(REWORKED, "one = 1\n\n\n")})
    assert rebase(project, "--onto", "git:v2.0").status == 4
    (project.worktree / "a.py").write_text(gate(RELAXED, "one = 1\n\n\n"))
    waits = rebase(project, "--continue")
    assert waits.status == 4
    assert "nothing was done about b.py" in waits.err
    project.commit()
    ran = rebase(project, "--continue", "--json")
    assert ran.document["patches"][0]["detail"] == (
        "resolved by hand; it no longer changes b.py; a.py: 4 changed lines before, 2 after"
    )


def test_a_change_that_a_person_puts_into_another_function_is_told(
    tmp_path: Path, index: Server
) -> None:
    def gates(first: str, second: str) -> str:
        return function("build", first) + filler(9) + function("other", second) + filler(9, "z")

    files = {"a.py": gates(STRICT, STRICT)}
    ours = ("Open build", {"a.py": gates(RELAXED, STRICT)}, "Upstream-Status: Pending")
    project = Project(tmp_path, index, files, ours)
    project.up.release("2.0", {"a.py": gates(REWORKED, STRICT)})
    assert rebase(project, "--onto", "git:v2.0").status == 4
    (project.worktree / "a.py").write_text(gates(REWORKED, RELAXED))
    ran = rebase(project, "--continue", "--json")
    assert ran.document["patches"][0]["detail"] == (
        "resolved by hand; in a.py it changes other, which it did not before"
    )


def test_skip_drops_the_patch_from_the_new_series(project: Project) -> None:
    conflict(project, "b")
    ran = rebase(project, "--skip", "--json")
    assert ran.status == 0
    assert outcomes(ran.document) == ["untouched", "skipped", "untouched"]
    assert not (project.patches / "v2.0" / "0002-Open-b.patch").exists()
    assert "0002-Open-b.patch" not in (project.patches / "v2.0" / "series").read_text()
    assert project.run("lint").status == 0


def test_abort_leaves_no_trace(project: Project) -> None:
    before = project.files()
    conflict(project, "b")
    ran = rebase(project, "--abort", "--json")
    assert (ran.status, ran.document["outcome"]) == (0, "aborted")
    assert project.files() == before
    assert not project.home.exists()
    assert rebase(project, "--abort").status == 0, "twice is fine"
    assert rebase(project, "--status").status == 2
    assert rebase(project, "--continue").status == 2


def test_status_repeats_where_it_stands(project: Project) -> None:
    first = conflict(project, "b")
    again = rebase(project, "--status", "--json")
    assert again.status == 4
    assert again.document == first


def test_restart_throws_the_work_away(project: Project) -> None:
    conflict(project, "a", "b")
    resolve(project, "a")
    assert rebase(project, "--continue").status == 4
    assert "<<<<<<<" in (project.worktree / "b.py").read_text()
    ran = rebase(project, "--restart", "--json")
    assert ran.status == 4
    assert outcomes(ran.document) == ["conflict", "pending", "pending"]
    assert "<<<<<<<" in (project.worktree / "a.py").read_text()


def test_a_work_tree_removed_by_hand_is_made_anew(project: Project) -> None:
    conflict(project, "b")
    shutil.rmtree(project.worktree)
    gone = rebase(project, "--continue")
    assert gone.status == 2
    assert "is gone" in gone.err
    assert rebase(project, "--onto", "git:v2.0").status == 4
    assert "<<<<<<<" in (project.worktree / "b.py").read_text()
    resolve(project, "b")
    assert rebase(project, "--continue").status == 0


def test_the_same_command_again_shows_the_conflict_and_keeps_the_work(project: Project) -> None:
    conflict(project, "b")
    resolve(project, "b")
    assert rebase(project, "--onto", "git:v2.0").status == 4
    assert (project.worktree / "b.py").read_text() == gate(RELAXED)
    assert rebase(project, "--continue").status == 0


def test_another_rebase_does_not_start_over_one_under_way(project: Project) -> None:
    conflict(project, "b")
    project.up.release("3.0", {"readme": "three\n"})
    ran = rebase(project, "--onto", "git:v3.0")
    assert ran.status == 2
    assert "onto git:v2.0 is under way" in ran.err
    assert (project.worktree / "b.py").exists()


def test_a_person_may_add_move_and_delete_files(project: Project) -> None:
    conflict(project, "b")
    resolve(project, "b")
    (project.worktree / "helper.py").write_text("x = 1\n")
    (project.worktree / "readme").unlink()
    (project.worktree / "c.py").chmod(0o755)
    ran = rebase(project, "--continue")
    assert ran.status == 0
    told = "resolved by hand; it changes c.py, helper.py, readme too; it deletes readme"
    assert f"({told})" in ran.out
    project.run("apply", "demo@2.0", "--arch", "sm121", "--to", str(project.folder / "out"))
    out = project.folder / "out"
    assert (out / "helper.py").read_text() == "x = 1\n"
    assert not (out / "readme").exists()
    assert stat.S_IMODE((out / "c.py").stat().st_mode) == 0o755


def test_what_cannot_be_a_patch_is_said_at_continue(project: Project) -> None:
    project.up.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},third")
    (project.up.folder / "third").mkdir()
    project.up.git("commit", "-q", "-m", "A submodule")
    conflict(project, "b")
    resolve(project, "b")
    (project.worktree / "blob.bin").write_bytes(bytes(range(256)) * 9)
    ran = rebase(project, "--continue")
    assert ran.status == 4
    assert "cannot be written as a patch" in ran.err
    (project.worktree / "blob.bin").unlink()
    shutil.rmtree(project.worktree / "third")
    (project.worktree / "third").write_text("a file where upstream has a submodule\n")
    ran = rebase(project, "--continue")
    assert ran.status == 4
    assert "cannot be written as a patch: changes a submodule pointer" in ran.err
    (project.worktree / "third").unlink()
    assert rebase(project, "--continue").status == 0


def test_a_new_file_that_upstream_ignores_is_not_lost(project: Project) -> None:
    project.up.commit({".gitignore": "*.inc\n"}, "Ignore what is generated")
    conflict(project, "b")
    resolve(project, "b")
    (project.worktree / "table.inc").write_text("1, 2\n")
    ran = rebase(project, "--continue")
    assert ran.status == 4
    assert "upstream's .gitignore would leave out table.inc" in ran.err
    project.up.git("-C", str(project.worktree), "add", "-f", "table.inc")
    ran = rebase(project, "--continue")
    assert ran.status == 0, ran.err
    assert "it changes table.inc too" in ran.out


def test_the_rebase_under_way_need_not_be_named_by_its_release(project: Project) -> None:
    """The default is another release; what is under way is clear all the same."""
    project.up.release("2.0", {"readme": "two\n"})
    assert rebase(project, "--onto", "git:v2.0").status == 0
    project.up.release("3.0", {"b.py": gate(REWORKED)})
    ran = project.run("rebase", "demo@2.0", "--onto", "git:v3.0")
    assert ran.status == 4
    assert "stackpatch rebase demo --continue" in ran.err
    assert "demo 2.0 onto git:v3.0" in rebase(project, "--status").out
    wrong = project.run("rebase", "demo@1.0", "--status")
    assert (wrong.status, wrong.out) == (2, "")
    assert "the rebase under way is of demo@2.0" in wrong.err
    resolve(project, "b")
    assert rebase(project, "--continue").status == 0
    assert (project.patches / "v3.0" / "series").exists()


def test_a_series_edited_meanwhile_is_noticed(project: Project) -> None:
    conflict(project, "b")
    path = project.patches / "v1.0" / "0003-Open-c.patch"
    path.write_bytes(path.read_bytes().replace(b"Why.", b"Because."))
    resolve(project, "b")
    ran = rebase(project, "--continue")
    assert ran.status == 2
    assert "changed since the rebase began" in ran.err
    assert rebase(project, "--restart").status == 4
    path.rename(path.with_name("0003-other.patch"))
    listing = path.parent / "series"
    listing.write_text(listing.read_text().replace(path.name, "0003-other.patch"))
    for step in ("--status", "--continue", "--skip"):
        ran = rebase(project, step)
        assert ran.status == 2
        assert "changed since the rebase began" in ran.err
    listing.unlink()
    assert rebase(project, "--status").status == 2
    assert rebase(project, "--abort").status == 0, "it needs no series"
    assert not project.home.exists()


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("step", ["--status", "--skip", "--onto", None])
def test_a_source_store_that_is_cleared_meanwhile_is_filled_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, step: str | None, moved: bool
) -> None:
    project.up.commit({f"{name}.py": gate(STRICT, "x = 1\n\n\n") for name in "ac"}, "Move")
    conflict(project, "b")
    resolve(project, "b")
    if moved:
        monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(project.folder / "other-cache"))
    else:
        shutil.rmtree(cache_root())
    if step is not None:
        words = (step, "git:v2.0") if step == "--onto" else (step,)
        assert rebase(project, *words).status == (0 if step == "--skip" else 4)
    if step != "--skip":
        ran = rebase(project, "--continue", "--json")
        assert (ran.status, outcomes(ran.document)) == (0, ["moved", "resolved", "moved"]), ran.err
    assert project.run("lint").status == 0


def test_a_recipe_that_cannot_take_the_release_any_more_leaves_nothing(project: Project) -> None:
    conflict(project, "b")
    resolve(project, "b")
    text = project.recipe.read_text()
    release = text[text.index("  - version:") : text.index("archs:")]
    taken = release.replace("1.0", "2.0").replace("series: v2.0", "series: v1.0")
    taken = taken.replace(project.up.versions[0].commit, project.up.versions[1].commit)
    project.recipe.write_text(text.replace("archs:", f"{taken}archs:"))
    before = project.files()
    ran = rebase(project, "--continue")
    assert ran.status == 2
    assert "2.0 already has the series v1.0" in ran.err
    assert project.files() == before
    project.recipe.write_text(text)
    assert rebase(project, "--continue").status == 0


def test_a_patch_that_is_not_meant_for_the_version_needs_a_person(
    tmp_path: Path, index: Server
) -> None:
    """It would go on as it is, into a series that lint refuses."""
    patches = (open_gate("a", "Applies-To: <2.0"), open_gate("b", "Applies-To: >=1.0,<3"))
    files = {"a.py": gate(STRICT), "b.py": gate(STRICT), "readme": "one\n"}
    project = Project(tmp_path, index, files, *patches)
    project.up.release("1.9", {"readme": "nearly two\n"})
    assert rebase(project, "--onto", "git:v1.9").status == 0
    project.up.release("2.0", {"readme": "two\n"})
    dry = rebase(project, "--onto", "git:v2.0", "--dry-run", "--json")
    assert (dry.status, outcomes(dry.document)) == (1, ["conflict", "pending"])
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    assert ran.status == 4
    said = "its Applies-To (<2.0), which is to be edited, leaves out 2.0"
    assert ran.document["patches"][0]["detail"] == f"it goes on (untouched), but {said}"
    assert (project.worktree / "a.py").read_text() == gate(RELAXED)
    ran = rebase(project, "--continue", "--json")
    assert (ran.status, outcomes(ran.document)) == (0, ["resolved", "untouched"])
    assert ran.document["patches"][0]["detail"] == f"resolved by hand; {said}"
    assert rebase(project, "--onto", "git:main", "--dry-run").status == 0, "no version, no range"


def test_a_patch_must_go_on_for_each_arch(tmp_path: Path, index: Server) -> None:
    """Upstream brings two of our changes together: the one that is for all gets the other's line
    into its context, and would not apply where that one is left out."""

    def body(one: int, two: int, *between: int) -> str:
        middle = [f"step_{number}(props)" for number in between]
        return function("build", f"one = {one}", *middle, f"two = {two}") + filler(9)

    pending = "Upstream-Status: Pending"
    project = Project(
        tmp_path,
        index,
        {"a.py": body(1, 1, *range(8)), "readme": "one\n"},
        ("One", {"a.py": body(2, 1, *range(8))}, f"{pending}\nArch: sm120"),
        ("Two", {"a.py": body(2, 2, *range(8))}, pending),
    )
    project.up.release("1.9", {"readme": "nearly two\n"})
    assert rebase(project, "--onto", "git:v1.9").status == 0
    project.up.release("2.0", {"a.py": body(1, 1, 0, 7)})
    dry = rebase(project, "--onto", "git:v2.0", "--dry-run", "--json")
    assert (dry.status, outcomes(dry.document)) == (1, ["changed", "conflict"])
    assert dry.document["patches"][1]["detail"] == (
        "it goes on (changed), but for sm121, which is without 0001-One.patch, it does not: "
        "a.py: its old lines stand nowhere"
    )
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    assert (ran.status, outcomes(ran.document)) == (4, ["changed", "conflict"])
    ran = rebase(project, "--continue", "--json")
    assert ran.document["patches"][1]["detail"].startswith("resolved by hand; for sm121, which is")
    apply = ("apply", "demo@2.0", "--dry-run", "--arch")
    assert project.run(*apply, "sm120").status == 0
    assert project.run(*apply, "sm121").status == 1, "as it was told"


def test_a_moved_series_is_no_other_one_in_an_empty_store(
    tmp_path: Path, index: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second patch was made on a file that only sm120 gets: what sm121 gets must not depend
    on whether somebody applied it for sm120 here before."""

    def body(one: str, two: int) -> str:
        middle = [f"step_{number}(props)" for number in range(8)]
        return function("build", *one.split(";"), *middle, f"two = {two}") + filler(9)

    pending = "Upstream-Status: Pending"
    project = Project(
        tmp_path,
        index,
        {"a.py": body("one = 1", 1), "readme": "one\n"},
        ("One", {"a.py": body("one = 2;more = 1", 1)}, f"{pending}\nArch: sm120"),
        ("Two", {"a.py": body("one = 2;more = 1", 2)}, pending),
    )
    project.up.release("2.0", {"a.py": "x = 1\n\n\n" + body("one = 1", 1)})
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    assert outcomes(ran.document) == ["moved", "moved"]
    for version in ("1.0", "2.0"):
        for arch in ("sm121", "sm120"):
            monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(tmp_path / f"cache-{version}-{arch}"))
            ran = project.run("apply", f"demo@{version}", "--arch", arch, "--dry-run")
            assert ran.status == 0, ran.err


# --- who did it -------------------------------------------------------------------------------


def test_with_history_the_commit_that_changed_the_lines_is_named(project: Project) -> None:
    project.up.commit({"readme": "noise\n"}, "Write about it (#7)")
    commit = project.up.commit({"b.py": gate(REWORKED)}, "Ask the table what is supported (#8)")
    project.up.commit({"b.py": gate(REWORKED, "x = 1\n\n\n")}, "Touch the file once more (#9)")
    project.up.release("2.0", {"readme": "two\n"})
    ran = rebase(project, "--onto", "git:v2.0", "--history", "--json")
    assert ran.status == 4
    culprits = ran.document["conflict"]["culprits"]
    assert len(culprits) == 1
    assert commit[:12] in culprits[0]["says"]
    assert STRICT in culprits[0]["says"]
    assert culprits[0]["text"] == "Ask the table what is supported (#8)"
    shown = rebase(project, "--status")
    assert f"upstream: commit {commit[:12]} of 2026-01-01 changed" in shown.out


def test_with_history_a_deleted_file_names_the_commit(project: Project) -> None:
    """Functions of that name are left in other files: nothing is certain, a person decides."""
    commit = project.up.commit({"b.py": None}, "Drop b")
    project.up.release("2.0", {"readme": "two\n"})
    ran = rebase(project, "--onto", "git:v2.0", "--history", "--dry-run", "--json")
    assert (ran.status, ran.document["outcome"]) == (1, "conflict")
    row = ran.document["patches"][1]
    assert (row["outcome"], row["verdict"]) == ("conflict", "unsure")
    (culprit,) = ran.document["conflict"]["culprits"]
    assert culprit["says"] == f"commit {commit[:12]} of 2026-01-01 removed b.py"
    assert culprit["text"] == "Drop b"


def test_a_deleted_file_of_which_nothing_is_left_drops_its_patch(
    tmp_path: Path, index: Server
) -> None:
    """No name of the code is used any more: obsolete, and said with what was searched."""
    old = "def solo_gate(solo_major):\n    return solo_major == solo_strict\n" + filler(9, "solo")
    new = old.replace("== solo_strict", "in (solo_strict, solo_more)")
    ours = ("Open solo", {"solo.py": new}, "Effect: solo.py :: solo_gate :: solo_more")
    project = Project(tmp_path, index, {"solo.py": old, "readme": "one\n"}, ours)
    project.up.commit({"solo.py": None}, "Drop it")
    project.up.release("2.0", {"readme": "two\n", "other.py": "x = 1\n"})
    ran = rebase(project, "--onto", "git:v2.0", "--history", "--dry-run", "--json")
    assert (ran.status, ran.document["outcome"]) == (0, "clean")
    (row,) = ran.document["patches"]
    assert (row["outcome"], row["verdict"]) == ("landed", "obsolete")
    assert row["evidence"]


PLACES: dict[str, tuple[str, ...]] = {
    "renamed": ("mv", "b.py", "gate_b.py"),
    "deleted": ("rm", "-q", "b.py"),
    "a link": ("link",),
    "a submodule": ("submodule",),
    "a folder": ("folder",),
    "with markers of its own": ("markers",),
}


@pytest.mark.parametrize("kind", PLACES)
def test_upstream_put_something_else_there(project: Project, kind: str) -> None:
    """Whatever it is: no clean patch, nothing is written, and --continue needs a person's work."""
    up = project.up
    match PLACES[kind]:
        case ("link",):
            (up.folder / "b.py").unlink()
            (up.folder / "b.py").symlink_to("readme")
        case ("submodule",):
            up.git("rm", "-q", "b.py")
            up.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},b.py")
            up.git("commit", "-q", "-m", "A submodule now")
            up.git("tag", "v2.0")
        case ("folder",):
            (up.folder / "b.py").unlink()
            (up.folder / "b.py").mkdir()
            (up.folder / "b.py" / "inside.py").write_text(gate(REWORKED))
        case ("markers",):
            text = gate(REWORKED) + "<<<<<<< HEAD\na\n=======\nb\n>>>>>>> x\n"
            (up.folder / "b.py").write_text(text)
        case words:
            up.git(*words)
    if kind != "a submodule":
        up.release("2.0", {"readme": "two\n"})
    before = project.files()
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    assert (ran.status, ran.document["outcome"]) == (4, "conflict"), ran.err
    assert outcomes(ran.document) == ["untouched", "conflict", "pending"]
    assert project.files() == before
    if kind == "a link":
        assert (project.worktree / "readme").read_text() == "two\n", "not written through the link"
    early = rebase(project, "--continue", "--json")
    assert early.status == 4, "what the work tree has changes nothing, or has markers"
    assert project.files() == before
    assert rebase(project, "--skip").status == 0
    listing = (project.patches / "v2.0" / "series").read_text()
    assert "0002" not in listing
    assert "0003" in listing


def test_no_hunk_of_a_renamed_file_is_taken_elsewhere(project: Project) -> None:
    project.up.git("mv", "b.py", "gate_b.py")
    project.up.release("2.0", {"readme": "two\n"})
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    row = ran.document["patches"][1]
    assert "b.py is now gate_b.py" in [piece["says"] for piece in row["evidence"]]
    assert "now in a.py" not in json.dumps(row), "its `build` was there before"


def test_without_history_the_first_version_in_the_store_is_named(project: Project) -> None:
    project.write_recipe(project.offer(project.up.versions[0]))
    for version, files in (
        ("1.1", {"readme": "more\n"}),
        ("1.2", {"b.py": gate(REWORKED)}),
        ("2.0", {"readme": "two\n"}),
    ):
        project.offer(project.up.release(version, files))
    assert project.run("matrix", "demo", "--refs", "all").status == 0
    ran = rebase(project, "--onto", "2.0", "--json")
    assert ran.status == 4
    assert ran.document["conflict"]["culprits"][0]["says"] == (
        "1.2 is the first version in the store where it is conflict"
    )


def test_the_first_version_is_told_for_a_patch_that_stands_on_another(
    tmp_path: Path, index: Server
) -> None:
    """Alone it applies nowhere: without the first patch its lines were never there."""
    third = RELAXED.replace("12)", "12, 13)")
    effect = "Upstream-Status: Pending\nEffect: a.py :: build :: 12, 13"
    on_top = ("Open it more", {"a.py": gate(third)}, effect)
    project = Project(tmp_path, index, {"a.py": gate(STRICT)}, open_gate("a"), on_top)
    for version, files in (
        ("1.1", {"readme": "more\n"}),
        ("1.2", {"a.py": gate(RELAXED).replace("(device)\n    launch", "(stream)\n    launch")}),
        ("2.0", {"readme": "two\n"}),
    ):
        project.up.release(version, files)
        assert project.run("fetch", "demo", f"git:v{version}").status == 0
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    assert (ran.status, outcomes(ran.document)) == (4, ["landed", "conflict"])
    assert [one["says"] for one in ran.document["conflict"]["culprits"]] == [
        "v1.2 is the first version in the store where it is conflict"
    ]


# --- what is shown of the patch ---------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path, index: Server) -> Project:
    """One patch that changes a gate, adds a file, removes one and renames one."""
    base = {"a.py": gate(STRICT), "old.txt": "old\n", "name.txt": "name\n", "readme": "1\n"}
    ours = {
        "a.py": gate(RELAXED),
        "new.txt": "new\n",
        "old.txt": None,
        "name.txt": None,
        "other.txt": "name\n",
    }
    patch = ("Do much", ours, r"Effect: a.py :: build :: \(10, 12")
    project = Project(tmp_path, index, base, patch)
    mail = project.patches / "v1.0" / project.series.patches[0].name
    text = mail.read_text().replace("Why.\n", "Why:\n\n    of this\n    and that\n\nAnd so.\n")
    assert "rename from name.txt" in text
    mail.write_text(text)
    return project


def test_only_what_has_no_place_is_shown(mixed: Project) -> None:
    document = conflict(mixed, "a")
    assert [(h["path"], h["why"]) for h in document["conflict"]["hunks"]] == [("a.py", "no-match")]


def test_a_file_that_is_in_the_way_and_one_that_is_gone_are_shown(mixed: Project) -> None:
    mixed.up.release(
        "2.0",
        {"new.txt": "theirs\n", "name.txt": None, "old.txt": "old\nand more\n"},
    )
    ran = rebase(mixed, "--onto", "git:v2.0", "--json")
    assert ran.status == 4
    shown = {h["path"]: (h["why"], h["text"]) for h in ran.document["conflict"]["hunks"]}
    assert shown == {
        "new.txt": ("exists", "+new"),
        "other.txt": ("conflict", "rename of the file"),
    }
    people = rebase(mixed, "--status")
    assert "this change of other.txt has no place (conflict):\n  rename of the file" in people.out


def test_all_that_the_message_says_is_shown_but_the_trailers(mixed: Project) -> None:
    mixed.up.release("2.0", {"a.py": gate(REWORKED)})
    out = rebase(mixed, "--onto", "git:v2.0").out
    assert (
        "for:\n  Do much\n  Why:\n\n      of this\n      and that\n\n  And so.\n\nthis hunk" in out
    )


def test_where_everything_has_a_place_nothing_is_suggested(project: Project) -> None:
    """It would apply; what is wrong is its `Effect`, and no merge tool mends that."""
    path = project.patches / "v1.0" / project.series.patches[1].name
    path.write_text(path.read_text().replace(r"(10, 12\)", r"(10, 99\)"))
    project.up.release("2.0", {"readme": "two\n"})
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    assert ran.status == 4
    assert "its effect is not there afterwards" in ran.document["patches"][1]["detail"]
    assert ran.document["conflict"]["suggestions"] == ran.document["conflict"]["hunks"] == []
    assert "nothing in the source store shows" not in rebase(project, "--status").out


# --- dry run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [(), ("b",)])
def test_a_dry_run_reports_what_the_real_run_does(
    project: Project, broken: tuple[str, ...]
) -> None:
    changed = {f"{name}.py": gate(REWORKED) for name in broken}
    project.up.release("2.0", changed | {"a.py": gate(STRICT, "x = 1\n\n\n")})
    before = project.files()
    dry = rebase(project, "--onto", "git:v2.0", "--dry-run", "--json")
    assert dry.status == (1 if broken else 0)
    assert project.files() == before
    assert not (project.root / ".stackpatch").exists()
    real = rebase(project, "--onto", "git:v2.0", "--json")
    own = ("dry_run", "error", "series", "worktree")
    shared = {key: value for key, value in dry.document.items() if key not in own}
    assert shared == {key: value for key, value in real.document.items() if key not in own}


# Ends the program where it opens, makes, moves or removes anything below the folder.
WATCHED = """
import os, sys
def watch(event, args):
    write = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    named = [os.fsdecode(a) for a in args[:2] if isinstance(a, (str, bytes))]
    touches = event in (
        "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.link", "os.symlink",
        "os.truncate", "os.utime", "shutil.rmtree", "tempfile.mkstemp", "tempfile.mkdtemp",
    ) or (event == "open" and isinstance(args[2], int) and args[2] & write)
    if touches and any(name.startswith({root!r}) for name in named):
        os.write(2, f"{{event}} {{args}}".encode())
        os._exit(99)
sys.addaudithook(watch)
"""


def stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns, path.lstat().st_ino)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize("broken", [False, True])
def test_a_dry_run_needs_no_right_to_write(project: Project, broken: bool) -> None:
    """Held to what the program does, not to permissions: root may write everywhere."""
    project.up.release("2.0", {"a.py": gate(REWORKED)} if broken else {"readme": "two\n"})
    before = stamps(project.root)
    watch = WATCHED.format(root=str(project.root))
    child = project.child("rebase", "demo", "--onto", "git:v2.0", "--dry-run", python=watch)
    _, err = child.communicate(timeout=120)
    assert child.returncode == int(broken), err.decode()
    assert stamps(project.root) == before
    # The watch sees what a real run writes.
    child = project.child("rebase", "demo", "--onto", "git:v2.0", python=watch)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 99, err.decode()


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say one of --onto REF"),
        (("--continue", "--skip"), "say one of --onto REF"),
        (("--onto", "git:v2.0", "--abort"), "say one of --onto REF"),
        (("--dry-run", "--skip"), "say one of --onto REF"),
        (("--onto", "git:v1.0"), "is on git:"),
        (("--onto", "git:v9"), "no branch or tag 'v9'"),
        (("--onto", "nonsense"), "not a version number"),
        (("--onto", "git:--upload-pack=x"), "not a git commit, tag or branch"),
    ],
)
def test_wrong_usage_is_one_message(project: Project, words: tuple[str, ...], said: str) -> None:
    before = project.files()
    ran = rebase(project, *words)
    assert ran.status == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert project.files() == before


def test_the_nearest_refs_are_named(project: Project) -> None:
    project.up.release("2.0", {"readme": "two\n"})
    ran = rebase(project, "--onto", "git:v2.00")
    assert ran.status == 2
    assert "v2.0" in ran.err
    project.offer(project.up.versions[1])
    ran = rebase(project, "--onto", "2.1")
    assert ran.status == 2
    assert "nearest: 2.0" in ran.err


def test_a_branch_is_for_dry_runs(project: Project) -> None:
    project.up.commit({"readme": "main moved\n"}, "more")
    assert rebase(project, "--onto", "git:main", "--dry-run").status == 0
    ran = rebase(project, "--onto", "git:main")
    assert ran.status == 2
    assert "name a tag" in ran.err
    assert not project.home.exists()


def test_a_version_that_has_a_series_is_left_alone(project: Project) -> None:
    project.up.release("2.0", {"readme": "two\n"})
    assert rebase(project, "--onto", "git:v2.0").status == 0
    before = project.files()
    ran = rebase(project, "--onto", "git:v2.0")
    assert ran.status == 2
    assert "already has the series v2.0" in ran.err
    assert project.files() == before


def test_a_folder_of_that_name_with_other_content_is_not_overwritten(project: Project) -> None:
    project.up.release("2.0", {"readme": "two\n"})
    mine = project.patches / "v2.0" / "0001-mine.patch"
    mine.parent.mkdir()
    mine.write_text("mine\n")
    recipe = project.recipe.read_bytes()
    ran = rebase(project, "--onto", "git:v2.0")
    assert ran.status == 2
    assert "is there already, with another series" in ran.err
    assert mine.read_text() == "mine\n"
    assert project.recipe.read_bytes() == recipe
    shutil.rmtree(mine.parent)
    assert rebase(project, "--continue").status == 0
    assert (project.patches / "v2.0" / "series").exists()


@pytest.mark.parametrize("kind", ["a file", "a link to nothing"])
def test_what_lies_in_place_of_the_new_folder_is_left_alone(project: Project, kind: str) -> None:
    project.up.release("2.0", {"readme": "two\n"})
    place = project.patches / "v2.0"
    if kind == "a file":
        place.write_text("mine\n")
    else:
        place.symlink_to("nowhere")
    ran = rebase(project, "--onto", "git:v2.0")
    assert ran.status == 2
    assert "is there already, and is no folder" in ran.err
    assert place.is_symlink() or place.read_text() == "mine\n"
    status = rebase(project, "--status", "--json")
    assert (status.status, status.document["outcome"]) == (4, "stopped"), "it is not done"
    assert "--continue" in status.document["error"]["hint"]
    place.unlink()
    assert rebase(project, "--continue").status == 0
    assert (project.patches / "v2.0" / "series").exists()


def test_a_version_with_the_same_files_is_another_release(project: Project) -> None:
    project.up.release("1.0.post1", {})
    ran = rebase(project, "--onto", "git:v1.0.post1", "--json")
    assert (ran.status, outcomes(ran.document)) == (0, ["untouched"] * 3)
    assert (project.patches / "v1.0.post1" / "series").exists()
    assert project.run("lint").status == 0
    again = rebase(project, "--onto", "git:v1.0", "--dry-run")
    assert (again.status, "is on git:1.0 already" in again.err) == (2, True)


def test_unrelated_history_is_only_another_tree(project: Project) -> None:
    project.up.git("checkout", "-q", "--orphan", "fresh")
    project.up.release("2.0", {"a.py": gate(STRICT, "x = 1\n\n\n"), "b.py": gate(REWORKED)})
    ran = rebase(project, "--onto", "git:v2.0", "--history", "--json")
    assert ran.status == 4
    assert outcomes(ran.document) == ["moved", "conflict", "pending"]
    assert all("commit" not in one["says"] for one in ran.document["conflict"]["culprits"])


def test_the_installed_set_is_not_to_be_changed(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from stackpatch.cli import roots

    found = roots.Root(project.root, roots.Origin.INSTALLED)
    monkeypatch.setattr("stackpatch.cli.workspace.find_root", lambda _: found)
    project.up.release("2.0", {"readme": "two\n"})
    ran = rebase(project, "--onto", "git:v2.0")
    assert ran.status == 2
    assert "came with the package" in ran.err


# --- what upstream may do to a file -----------------------------------------------------------


def _deleted(project: Project) -> None:
    project.up.commit({"b.py": None}, "gone")


def _renamed(project: Project) -> None:
    project.up.git("mv", "b.py", "gates_b.py")


def _folder(project: Project) -> None:
    project.up.git("rm", "-q", "b.py")
    (project.up.folder / "b.py").mkdir()
    (project.up.folder / "b.py" / "x").write_text(gate(STRICT))


def _link(project: Project) -> None:
    project.up.git("rm", "-q", "b.py")
    (project.up.folder / "b.py").symlink_to("/etc/passwd")


def _submodule(project: Project) -> None:
    project.up.git("rm", "-q", "b.py")
    commit = project.up.versions[0].commit
    project.up.git("update-index", "--add", "--cacheinfo", f"160000,{commit},b.py")
    project.up.git("commit", "-q", "-m", "module")


def _markers(project: Project) -> None:
    text = gate(REWORKED) + '"""\n<<<<<<< HEAD\na\n=======\nb\n>>>>>>> main\n"""\n'
    (project.up.folder / "b.py").write_text(text)


def _crlf(project: Project) -> None:
    (project.up.folder / "b.py").write_bytes(gate(STRICT).replace("\n", "\r\n").encode())


@pytest.mark.parametrize(
    "change", [_deleted, _renamed, _folder, _link, _submodule, _markers, _crlf]
)
def test_a_file_that_is_no_longer_what_it_was(
    project: Project, change: Callable[[Project], None]
) -> None:
    project.up.git("config", "core.autocrlf", "false")
    change(project)
    if change is _submodule:
        project.up.git("tag", "v2.0")
    else:
        project.up.release("2.0", {"readme": "two\n"})
    passwd = os.stat("/etc/passwd").st_mtime_ns  # noqa: PTH116
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    assert "Traceback" not in ran.err
    row = ran.document["patches"][1]
    if change is _deleted:
        assert row["verdict"] in ("unsure", "obsolete", "conflict")
    assert row["outcome"] == "conflict" or row["verdict"] == "obsolete", row
    if ran.status == 4:
        assert project.worktree.is_dir()
        skipped = rebase(project, "--skip")
        assert skipped.status == 0, skipped.err
    assert ran.status in (0, 4)
    assert os.stat("/etc/passwd").st_mtime_ns == passwd  # noqa: PTH116
    assert project.run("lint").status == 0


# --- two at once, and kills -------------------------------------------------------------------


def test_a_second_rebase_at_the_same_time_is_refused(project: Project) -> None:
    project.up.release("2.0", {"readme": "two\n"})
    slow = (
        "import time, stackpatch.series.rebase as r\n"
        "real = r.advance\n"
        "def advance(*a, **k):\n"
        f"    open({str(project.folder / 'at-work')!r}, 'w').close(); time.sleep(8)\n"
        "    return real(*a, **k)\n"
        "r.advance = advance\n"
    )
    child = project.child("rebase", "demo", "--onto", "git:v2.0", python=slow)
    try:
        deadline = time.monotonic() + 30
        while not (project.folder / "at-work").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second = rebase(project, "--onto", "git:v2.0")
        assert second.status == 3
        assert "another rebase of demo is still at work" in second.err
    finally:
        child.communicate(timeout=60)
    assert child.returncode == 0
    assert (project.patches / "v2.0" / "series").exists()


# Each stops the child just before or just after a step that changes something on the disk.
KILLS = {
    "before anything": ("stackpatch.series.rebase", "advance", "before", 1),
    "work tree made": ("stackpatch.series.worktree", "create", "after", 1),
    "in the work tree": ("stackpatch.series.worktree", "_merge_file", "before", 1),
    "state being written": ("stackpatch.series.rebase", "write_atomically", "before", 1),
    "state written": ("stackpatch.series.rebase", "write_atomically", "after", 1),
    "series being written": ("stackpatch.cli.release", "write_atomically", "before", 2),
    "series written": ("stackpatch.cli.release", "write_atomically", "before", 5),
    "recipe being written": ("stackpatch.storage", "os.replace", "recipe", 1),
    "recipe written": ("stackpatch.series.rebase", "shutil.rmtree", "before", 1),
}


def killer(module: str, name: str, when: str, count: int) -> str:
    """Statements that make the child kill itself at the count-th call of a function."""
    return f"""
import importlib, os, signal
module = importlib.import_module({module!r})
holder = module
*path, last = {name!r}.split(".")
for part in path:
    holder = getattr(holder, part)
real, left = getattr(holder, last), [{count}]
def instead(*arguments, **named):
    if {when!r} == "recipe" and not str(arguments[1]).endswith("demo.yaml"):
        return real(*arguments, **named)
    left[0] -= 1
    if left[0] == 0 and {when!r} != "after":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*arguments, **named)
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(holder, last, instead)
"""


LATE = ("series being written", "series written", "recipe being written", "recipe written")
ONLY_CONFLICT = ("work tree made", "in the work tree")


@pytest.mark.parametrize("name", [name for name in KILLS if name not in ONLY_CONFLICT])
def test_a_kill_of_a_clean_rebase_costs_nothing(project: Project, name: str) -> None:
    project.up.release("2.0", {"a.py": gate(STRICT, "x = 1\n\n\n")})
    killed(project, name, "--onto", "git:v2.0")
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    if name == "recipe written":  # all was done but for forgetting it
        assert "already has the series v2.0" in ran.err
    else:
        assert ran.status == 0, ran.err
        assert outcomes(ran.document) == ["moved", "untouched", "untouched"]
    whole(project)


@pytest.mark.parametrize("name", [name for name in KILLS if name not in LATE])
def test_a_kill_on_the_way_to_a_conflict_costs_nothing(project: Project, name: str) -> None:
    project.up.release("2.0", {"b.py": gate(REWORKED)})
    before = project.files()
    killed(project, name, "--onto", "git:v2.0")
    assert project.files() == before
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    assert ran.status == 4, ran.err
    assert outcomes(ran.document) == ["untouched", "conflict", "pending"]
    assert sorted(path.name for path in project.home.iterdir()) == ["state.json", "worktree"]
    resolve(project, "b")
    assert rebase(project, "--continue").status == 0
    whole(project)


def test_an_abort_after_a_kill_names_the_folder_that_is_left(project: Project) -> None:
    project.up.release("2.0", {"readme": "two\n"})
    killed(project, "series written", "--onto", "git:v2.0")
    assert (project.patches / "v2.0").exists()
    ran = rebase(project, "--abort")
    assert ran.status == 0
    assert f"no release names {project.patches / 'v2.0'}: look at it" in ran.out
    assert not project.home.exists()


def test_a_recipe_that_cannot_be_written_leaves_no_series(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.up.release("2.0", {"readme": "two\n"})
    before = project.files()

    def full(path: Path, content: bytes, **more: int) -> None:
        if path.name == "demo.yaml":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, content, **more)

    with monkeypatch.context() as patched:
        patched.setattr("stackpatch.cli.release.write_atomically", full)
        assert rebase(project, "--onto", "git:v2.0").status == 3
    assert project.files() == before
    assert not (project.patches / "v2.0").exists()
    assert rebase(project, "--continue").status == 0
    whole(project)


# With --continue the first folder that goes is the work tree ("recipe written" stops there).
@pytest.mark.parametrize("name", [*LATE, "before anything", "state being written"])
def test_a_kill_of_continue_keeps_what_the_person_did(project: Project, name: str) -> None:
    conflict(project, "b")
    resolve(project, "b")
    killed(project, name, "--continue")
    assert rebase(project, "--status", "--json").document["outcome"] in ("conflict", "stopped")
    ran = rebase(project, "--continue", "--json")
    assert ran.status == 0, ran.err
    assert outcomes(ran.document) == ["untouched", "resolved", "untouched"]
    whole(project)


def killed(project: Project, name: str, *words: str) -> None:
    child = project.child("rebase", "demo", *words, python=killer(*KILLS[name]))
    out, err = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, (out, err)


def whole(project: Project) -> None:
    """The new series and its release are there, and nothing else."""
    assert sorted(path.name for path in project.patches.iterdir()) == ["v1.0", "v2.0"]
    assert [path.name for path in project.recipe.parent.iterdir()] == ["demo.yaml"]
    assert len(list((project.patches / "v2.0").iterdir())) == 4
    assert yaml.safe_load(project.recipe.read_text())["releases"][1]["series"] == "v2.0"
    assert not (project.home / "state.json").exists()
    assert project.run("lint").status == 0


# --- suggestions ------------------------------------------------------------------------------


def test_a_tool_on_path_suggests_and_nothing_is_applied(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = project.folder / "bin"
    tools.mkdir()
    fake = tools / "wiggle"
    fake.write_text(f"#!/bin/sh\nsed 's/{REWORKED}/suggested = 1/' \"$2\"\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    document = conflict(project, "b")
    suggestion = next(s for s in document["conflict"]["suggestions"] if s["tool"] == "wiggle")
    assert suggestion["path"] == "b.py"
    assert "+    suggested = 1" in suggestion["diff"].splitlines()
    assert f"-    {REWORKED}" in suggestion["diff"].splitlines()
    assert "suggested" not in (project.worktree / "b.py").read_text()
    shown = rebase(project, "--status")
    assert "wiggle suggests for b.py (look at it; it is not applied):" in shown.out


UNCHANGED = {"wiggle": 'cat "$2"', "mergiraf": 'cat "$3"'}  # upstream's file, in its words' order
FAILS = {
    "fails": "exit 1",
    "says nothing": "exit 0",
    "is killed": "kill -9 $$",
    "leaves conflicts": 'echo "<<<<<<< left"; echo x; echo ">>>>>>> right"',
    "stops half way": "echo half; exit 1",
    "hangs": "exec sleep 60",
    "changes nothing": "",
}


@pytest.mark.parametrize("tool", UNCHANGED)
@pytest.mark.parametrize("how", FAILS)
def test_a_tool_that_fails_suggests_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, tool: str, how: str
) -> None:
    """And one that works beside it still does: the failing tool is named in no suggestion."""
    tools = project.folder / "bin"
    tools.mkdir()
    other = next(name for name in UNCHANGED if name != tool)
    ran = project.folder / "ran"
    works = f"sed 's/{REWORKED}/suggested = 1/' \"${2 if other == 'wiggle' else 3}\""
    scripts = {tool: f"echo {tool} >> {ran}; {FAILS[how] or UNCHANGED[tool]}", other: works}
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr("stackpatch.series.suggest._SECONDS", 2.0)
    suggestions = conflict(project, "b")["conflict"]["suggestions"]
    assert [one["tool"] for one in suggestions] == [other]
    assert ran.read_text().split() == [tool], "it was asked"


def test_without_a_tool_there_is_no_suggestion(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = project.folder / "bin"
    tools.mkdir()
    git = shutil.which("git")
    assert git is not None
    (tools / "git").symlink_to(git)
    monkeypatch.setenv("PATH", str(tools))
    assert conflict(project, "b")["conflict"]["suggestions"] == []


def test_what_the_real_wiggle_suggests(project: Project) -> None:
    """Debian's program: upstream and the patch change different words of one line."""
    assert shutil.which("wiggle"), "install wiggle (Debian, Ubuntu: apt install wiggle)"
    project.up.release("2.0", {"b.py": gate(f"check(props) and {STRICT}")})
    ran = rebase(project, "--onto", "git:v2.0", "--json")
    assert ran.status == 4, ran.err
    (suggestion,) = [s for s in ran.document["conflict"]["suggestions"] if s["tool"] == "wiggle"]
    lines = suggestion["diff"].splitlines()
    assert f"-    check(props) and {STRICT}" in lines
    assert f"+    check(props) and {RELAXED}" in lines
    left = (project.worktree / "b.py").read_text()
    assert "<<<<<<< upstream" in left, "shown, never applied"
    project.run("rebase", "demo", "--abort")
    # Where the same words were changed, wiggle does not know either.
    project.up.release("3.0", {"b.py": gate(REWORKED)})
    ran = rebase(project, "--onto", "git:v3.0", "--json")
    assert [s for s in ran.document["conflict"]["suggestions"] if s["tool"] == "wiggle"] == []


def test_state_is_one_file(project: Project) -> None:
    conflict(project, "b")
    assert sorted(path.name for path in project.home.iterdir()) == ["state.json", "worktree"]
    assert json.loads((project.home / "state.json").read_text())["waiting"] == "0002-Open-b.patch"
    ignored = (project.root / ".stackpatch" / ".gitignore").read_text()
    assert ignored == "*\n"
