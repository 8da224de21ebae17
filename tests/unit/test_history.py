"""What upstream's commits say of a patch, on real repositories: named, equal, first to touch."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from tests.upstreams import Upstream, filler, function

from stackpatch.model.verdict import Evidence, Layer, Word
from stackpatch.series.history import changed_by, committed, search
from stackpatch.series.landed import decide
from stackpatch.sources.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.model.patch import Patch

STRICT, RELAXED = "assert major == 10", "assert major in (10, 12)"
REWORKED = "assert supports(major)"


def source(line: str, top: str = "") -> str:
    return '"""Gates."""\n\n' + top + function("build", line) + filler(9)


@pytest.fixture
def up(tmp_path: Path) -> Upstream:
    return Upstream(tmp_path / "up", {"a.py": source(STRICT), "b.py": source(STRICT)})


def patch(up: Upstream, tmp_path: Path, trailers: str = "", word: str = RELAXED) -> Patch:
    series = up.series(tmp_path / "series", ("Open a", {"a.py": source(word)}, trailers))
    return series.patches[0]


def layers(found: tuple[Evidence, ...]) -> list[Layer]:
    return [one.layer for one in found]


def seen(up: Upstream, ours: Patch) -> tuple[Evidence, ...]:
    return search(up.objects, up.versions[0].commit, up.versions[-1].commit, ours)


# --- named ------------------------------------------------------------------------------------


def test_a_commit_that_the_patch_names(up: Upstream, tmp_path: Path) -> None:
    commit = up.commit({"a.py": source(RELAXED, "x = 1\n\n")}, "Open the gate")
    up.release("2.0", {"readme": "two\n"})
    link = f"Upstream-Status: Backport [https://github.com/o/r/commit/{commit}]"
    found = seen(up, patch(up, tmp_path, link))
    assert found[0].layer is Layer.COMMIT
    assert found[0].says == f"commit {commit[:12]}, which the patch names, is in this version"
    assert found[0].text == "Open the gate"


def test_a_named_commit_that_is_elsewhere_says_nothing(up: Upstream, tmp_path: Path) -> None:
    up.git("checkout", "-q", "-b", "side")
    commit = up.commit({"readme": "side\n"}, "On a side branch")
    up.git("checkout", "-q", "main")
    up.release("2.0", {"b.py": source(REWORKED)})
    for name in (commit, "0" * 39 + "1"):
        link = f"Upstream-Status: Backport [https://github.com/o/r/commit/{name}]"
        assert Layer.COMMIT not in layers(seen(up, patch(up, tmp_path / name[:4], link)))


@pytest.mark.parametrize(
    ("subject", "named"),
    [
        ("Open the gate (#77)", True),
        ("Open the gate (#770)", False),
        ("Merge pull request #77 from somebody/branch", True),
        ("Merge pull request #770 from somebody/branch", False),
        ('Revert "Merge pull request #77 from somebody/branch"', False),
        ("Open the gate (#7)", False),
        ("Mention (#77) in passing", False),
        ("Revert #77", False),
    ],
)
def test_a_pull_request_by_its_number(
    up: Upstream, tmp_path: Path, subject: str, named: bool
) -> None:
    commit = up.commit({"b.py": source(REWORKED)}, f"{subject}\n\nSee (#77) for more.")
    up.release("2.0", {"readme": "two\n"})
    link = "Upstream-Status: Submitted [https://github.com/o/r/pull/77]"
    found = [one for one in seen(up, patch(up, tmp_path, link)) if one.layer is Layer.COMMIT]
    said = [f"commit {commit[:12]} merged #77, which the patch names"]
    assert [one.says for one in found] == (said if named else [])


@pytest.mark.parametrize("end", ["\u2028", "\x0b", "\x0c", "\x85", "\x1c"])
def test_a_subject_with_an_odd_line_end(up: Upstream, tmp_path: Path, end: str) -> None:
    subject = f"Open{end}the gate{end}now (#77)"
    commit = up.commit({"a.py": source(RELAXED)}, subject)
    removed = up.commit({"a.py": None}, f"Drop{end}it")
    target = up.release("2.0", {"readme": "two\n"})
    link = "Upstream-Status: Submitted [https://github.com/o/r/pull/77]"
    found = seen(up, patch(up, tmp_path, link))
    said = {(one.says.split()[1], one.layer, one.text) for one in found}
    assert said >= {
        (commit[:12], Layer.COMMIT, subject),
        (removed[:12], Layer.SEARCH, f"Drop{end}it"),
    }
    changed = changed_by(
        up.objects, up.versions[0].commit, target.commit, "a.py", [STRICT.encode()]
    )
    assert [one.says.split()[1] for one in changed] == [removed[:12], commit[:12]]


def test_a_commit_before_the_base_does_not_count(up: Upstream, tmp_path: Path) -> None:
    """It was there when the patch was written."""
    up.commit({"b.py": source(REWORKED)}, "Something (#77)")
    base = up.release("1.5", {"readme": "x\n"})
    target = up.release("2.0", {"readme": "y\n"})
    link = "Upstream-Status: Submitted [https://github.com/o/r/pull/77]"
    ours = patch(up, tmp_path, link)
    assert layers(search(up.objects, base.commit, target.commit, ours)) == []


def test_a_named_commit_that_the_base_has_is_not_the_landing(up: Upstream, tmp_path: Path) -> None:
    """What broke it is often named beside what mends it."""
    link = f"https://github.com/o/r/commit/{up.versions[0].commit}"
    up.release("2.0", {"readme": "two\n"})
    assert seen(up, patch(up, tmp_path, f"Upstream-Status: Pending [broken by {link}]")) == ()


PULL = "Upstream-Status: Submitted [https://github.com/o/r/pull/77]"


@pytest.mark.parametrize(
    ("home", "named"),
    [
        ("https://github.com/o/r", True),
        ("https://github.com/fork/R.git/", True),
        ("git@github.com:o/r.git", True),
        ("/srv/git/other.git", True),
        ("file:///srv/git/other", True),
        ("https://github.com/o/other", False),
        ("https://github.com/r/other.git", False),
    ],
)
def test_a_pull_request_of_another_project(
    up: Upstream, tmp_path: Path, home: str, named: bool
) -> None:
    up.commit({"b.py": source(REWORKED)}, "Something (#77)")
    target = up.release("2.0", {"readme": "two\n"})
    ours = patch(up, tmp_path, PULL)
    found = search(up.objects, up.versions[0].commit, target.commit, ours, home=home)
    assert (Layer.COMMIT in layers(found)) == named


def test_a_landing_that_was_reverted(up: Upstream, tmp_path: Path) -> None:
    commit = up.commit({"a.py": source(RELAXED)}, "Open the gate (#77)")
    why = f"It broke.\n\nThis reverts commit {commit}."
    undone = up.commit({"a.py": source(STRICT)}, f'Revert "Open the gate (#77)" (#80)\n\n{why}')
    up.release("2.0", {"readme": "two\n"})
    link = f"{PULL}\nBug: https://github.com/o/r/commit/{commit}"
    ours = patch(up, tmp_path, link)
    found = seen(up, ours)
    assert {one.layer for one in found} == {Layer.SEARCH}
    ends = f", and commit {undone[:12]} reverts it"
    said = [one.says.removesuffix(ends) for one in found if one.says.endswith(ends)]
    assert said == [
        f"commit {commit[:12]}, which the patch names, is in this version",
        f"commit {commit[:12]} merged #77, which the patch names",
        f"commit {commit[:12]} has the same patch-id",
    ]
    target = up.versions[-1]
    assert decide(up.objects, target.tree, ours, history=found).word is Word.NEEDED


def test_a_revert_that_was_reverted_is_a_landing(up: Upstream, tmp_path: Path) -> None:
    commit = up.commit({"a.py": source(RELAXED)}, "Open the gate (#77)")
    undone = up.commit({"a.py": source(STRICT)}, f"Revert\n\nThis reverts commit {commit}.")
    again = up.commit({"a.py": source(RELAXED)}, f"Reapply\n\nThis reverts commit {undone}.")
    up.release("2.0", {"readme": "two\n"})
    named, equal, _ = seen(up, patch(up, tmp_path, PULL))
    assert (named.layer, named.says.split()[1]) == (Layer.COMMIT, commit[:12])
    assert (equal.layer, equal.says.split()[1]) == (Layer.PATCH_ID, again[:12])


def test_a_landing_after_one_that_was_reverted(up: Upstream, tmp_path: Path) -> None:
    first = up.commit({"a.py": source(RELAXED)}, "Open the gate")
    up.commit({"a.py": source(STRICT)}, f"Revert\n\nThis reverts commit {first}.")
    second = up.commit({"a.py": source(RELAXED)}, "Open the gate, once more")
    up.commit({"a.py": source(STRICT)}, "Shut it, in other words than git's")
    up.release("2.0", {"readme": "two\n"})
    equal, _ = seen(up, patch(up, tmp_path))
    assert (equal.layer, equal.says.split()[1]) == (Layer.PATCH_ID, second[:12])


# --- equal ------------------------------------------------------------------------------------


def test_an_equal_patch_id(up: Upstream, tmp_path: Path) -> None:
    commit = up.commit({"a.py": source(RELAXED)}, "Other words")
    up.release("2.0", {"readme": "two\n"})
    found = [one for one in seen(up, patch(up, tmp_path)) if one.layer is Layer.PATCH_ID]
    assert [one.says for one in found] == [f"commit {commit[:12]} has the same patch-id"]


def test_equal_further_down_in_the_file(up: Upstream, tmp_path: Path) -> None:
    up.commit({"a.py": source(STRICT, "x = 1\n" * 9)}, "Move it down")
    commit = up.commit({"a.py": source(RELAXED, "x = 1\n" * 9)}, "Open")
    up.release("2.0", {"readme": "two\n"})
    said = [one.says for one in seen(up, patch(up, tmp_path)) if one.layer is Layer.PATCH_ID]
    assert said == [f"commit {commit[:12]} has the same patch-id"]


def test_half_of_it_is_not_equal(up: Upstream, tmp_path: Path) -> None:
    both = {"a.py": source(RELAXED), "b.py": source(RELAXED)}
    ours = up.series(tmp_path / "series", ("Open both", both, "")).patches[0]
    up.commit({"a.py": source(RELAXED)}, "Open one")
    up.release("2.0", {"readme": "two\n"})
    assert Layer.PATCH_ID not in layers(seen(up, ours))


# --- where it went ----------------------------------------------------------------------------


def test_a_file_is_followed_through_its_names(up: Upstream, tmp_path: Path) -> None:
    first = up.commit({"a.py": None, "pkg/b.py": source(STRICT)}, "Make a package")
    second = up.commit({"pkg/b.py": None, "pkg/c.py": source(STRICT, "x = 1\n")}, "Rename it")
    opened = up.commit({"pkg/c.py": source(RELAXED, "x = 1\n")}, "Open it there")
    target = up.release("2.0", {"readme": "two\n"})
    ours = patch(up, tmp_path)
    said = {one.says: one.path for one in seen(up, ours) if one.layer is Layer.SEARCH}
    assert said == {
        f"commit {first[:12]} of 2026-01-01 renamed a.py to pkg/b.py": "pkg/b.py",
        f"commit {second[:12]} of 2026-01-01 renamed pkg/b.py to pkg/c.py": "pkg/c.py",
        f"commit {opened[:12]} is the first that touches the line {RELAXED!r}": "a.py",
    }
    base = up.versions[0].commit
    changed = changed_by(up.objects, base, target.commit, "a.py", [STRICT.encode()])
    assert [(one.says.split()[1], one.says.split()[4]) for one in changed] == [
        (first[:12], "renamed"),
        (second[:12], "renamed"),
        (opened[:12], "changed"),
    ]


def test_a_file_that_was_removed(up: Upstream, tmp_path: Path) -> None:
    up.commit({"a.py": source(REWORKED)}, "Rework")
    removed = up.commit({"a.py": None}, "Drop it (#9)")
    up.release("2.0", {"readme": "two\n"})
    (one,) = seen(up, patch(up, tmp_path))
    assert one.says == f"commit {removed[:12]} of 2026-01-01 removed a.py"
    assert (one.path, one.text) == ("a.py", "Drop it (#9)")


def test_a_file_that_came_back_is_not_gone(up: Upstream, tmp_path: Path) -> None:
    up.commit({"a.py": None}, "Drop it")
    up.commit({"a.py": source(STRICT)}, "Bring it back")
    up.release("2.0", {"readme": "two\n"})
    assert seen(up, patch(up, tmp_path)) == ()


# --- the first that touches a line ------------------------------------------------------------


def test_the_first_commit_with_an_added_line(up: Upstream, tmp_path: Path) -> None:
    first = up.commit({"a.py": source(RELAXED, "y = 2\n")}, "Open, among others")
    up.commit({"a.py": source(REWORKED, "y = 2\n")}, "Rework")
    up.release("2.0", {"readme": "two\n"})
    found = [one for one in seen(up, patch(up, tmp_path)) if one.layer is Layer.SEARCH]
    (one,) = found
    assert one.says.startswith(f"commit {first[:12]} is the first that touches the line")
    assert RELAXED in one.says
    assert (one.path, one.text) == ("a.py", "Open, among others")


def test_short_lines_are_not_searched(up: Upstream, tmp_path: Path) -> None:
    """`}` and `pass` stand everywhere, and prove nothing."""
    up.commit({"a.py": source("pass")}, "Not ours")
    up.release("2.0", {"readme": "two\n"})
    assert seen(up, patch(up, tmp_path, word="pass  # x")) == ()


# --- without a history ------------------------------------------------------------------------


def test_without_a_common_commit_that_is_said(up: Upstream, tmp_path: Path) -> None:
    up.git("checkout", "-q", "--orphan", "other")
    other = up.release("2.0", {"a.py": source(RELAXED)})
    found = search(up.objects, up.versions[0].commit, other.commit, patch(up, tmp_path))
    (one,) = found
    assert (one.layer, one.says.startswith("no history connects")) == (Layer.SEARCH, True)
    assert changed_by(up.objects, up.versions[0].commit, other.commit, "a.py", [b"x" * 20]) == ()


def test_a_shallow_clone_has_no_history(up: Upstream, tmp_path: Path) -> None:
    """Both ends are there, the commits between them are not: nothing is made up."""
    ours = patch(up, tmp_path)
    up.commit({"a.py": source(RELAXED)}, "The landing")
    target = up.release("2.0", {"readme": "two\n"})
    shallow = tmp_path / "shallow.git"
    run = ("git", "-c", "protocol.file.allow=always")
    subprocess.run((*run, "init", "-q", "--bare", shallow), check=True)
    for commit in (up.versions[0].commit, target.commit):
        up.git("config", "uploadpack.allowAnySHA1InWant", "true")
        subprocess.run(
            (*run, f"--git-dir={shallow}", "fetch", "-q", "--depth=1", f"file://{up.folder}",
             f"{commit}:refs/keep/{commit}"),
            check=True,
        )  # fmt: skip
    found = search(Objects(shallow), up.versions[0].commit, target.commit, ours)
    assert [one.says.startswith("no history connects") for one in found] == [True]


# --- who changed it ---------------------------------------------------------------------------


def test_who_changed_the_lines(up: Upstream) -> None:
    commit = up.commit({"a.py": source(REWORKED)}, "Rework (#8)")
    up.commit({"a.py": source(REWORKED, "x = 1\n")}, "Touch it again")
    target = up.release("2.0", {"readme": "two\n"})
    base = up.versions[0].commit
    (one,) = changed_by(up.objects, base, target.commit, "a.py", [STRICT.encode(), b"}"])
    assert one.says == f"commit {commit[:12]} of 2026-01-01 changed {STRICT!r}"
    assert (one.path, one.text) == ("a.py", "Rework (#8)")


def test_two_lines_of_one_commit_are_one_answer(up: Upstream) -> None:
    commit = up.commit({"a.py": "gone = everything\n"}, "Throw it away")
    target = up.release("2.0", {"readme": "two\n"})
    lines = [b"    check_shape(device)", STRICT.encode(), STRICT.encode()]
    found = changed_by(up.objects, up.versions[0].commit, target.commit, "a.py", lines)
    assert [one.says.split(" of ")[0] for one in found] == [f"commit {commit[:12]}"]


def test_where_no_line_tells_the_last_commit_that_touched_the_file(up: Upstream) -> None:
    up.commit({"a.py": source(STRICT, "x = 1\n")}, "First")
    last = up.commit({"a.py": source(STRICT, "x = 2\n")}, "Last")
    target = up.release("2.0", {"readme": "two\n"})
    base = up.versions[0].commit
    (one,) = changed_by(up.objects, base, target.commit, "a.py", [b"nobody has this line"])
    assert one.says == f"commit {last[:12]} of 2026-01-01 is the last that touched a.py"
    assert changed_by(up.objects, base, target.commit, "b.py", [b"nobody has this line"]) == ()


def test_a_line_with_signs_of_a_pattern_is_text(up: Upstream, tmp_path: Path) -> None:
    odd = 'x = re.compile("(a|b)*[") + --flag'
    commit = up.commit({"a.py": source(odd)}, "Odd")
    target = up.release("2.0", {"a.py": source(REWORKED)})
    found = changed_by(up.objects, commit, target.commit, "a.py", [odd.encode()])
    assert len(found) == 1
    assert target.commit[:12] in found[0].says


def test_when_a_commit_was_made(up: Upstream) -> None:
    assert committed(up.objects, up.versions[0].commit) == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_persons_settings_do_not_change_the_answer(
    up: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = up.commit({"a.py": source(RELAXED)}, "Open")
    up.release("2.0", {"readme": "two\n"})
    ours = patch(up, tmp_path)
    plain = seen(up, ours)
    assert commit[:12] in plain[0].says
    config = tmp_path / "config"
    config.write_text(
        "[log]\ndate = relative\nshowSignature = true\n[diff]\nnoprefix = true\n"
        "[color]\nui = always\n[diff]\nalgorithm = patience\n[core]\nquotePath = false\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert seen(up, ours) == plain
