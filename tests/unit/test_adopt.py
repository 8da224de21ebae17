"""Foreign commits as patches: random branches with merges come out as the branch, or are told."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.gitlab import Lab
from tests.upstreams import Upstream

from stackpatch.errors import InputError
from stackpatch.model.verdict import Evidence, Layer
from stackpatch.series.adopt import Adopted, Target, Wish, adopt, choose, mails, squashed
from stackpatch.series.rebase import gives_again
from stackpatch.sources.forks import Commit, read_commit

if TYPE_CHECKING:
    from stackpatch.sources.objects import Objects

BODY = "".join(f"line {number}\n" for number in range(30))


def everything(_: str) -> bool:
    return True


def run(
    objects: Objects, commits: list[Commit], tree: str, **wish: object
) -> tuple[tuple[Adopted, ...], str]:
    wanted = Wish(lambda _: (), **wish)  # type: ignore[arg-type]
    return adopt(objects, commits, Target(tree, tree, everything), wanted)


def listed(up: Upstream, *words: str) -> list[Commit]:
    found = up.git("rev-list", "--topo-order", "--reverse", *words).split()
    return [read_commit(up.objects, one) for one in found]


@pytest.fixture
def up(tmp_path: Path) -> Upstream:
    made = Upstream(tmp_path / "up", {"f": BODY, "g": BODY})
    made.git("checkout", "-q", "-b", "work")
    return made


# --- one by one -------------------------------------------------------------------------------


def test_each_commit_is_a_mail_and_a_tree(up: Upstream) -> None:
    up.commit({"f": BODY.replace("line 3\n", "three\n")}, "First")
    head = up.commit({"new": "n\n"}, "Second")
    rows, tree = run(up.objects, listed(up, "v1.0..work"), up.versions[0].tree, number=4)
    assert [row.outcome for row in rows] == ["untouched", "untouched"]
    assert [row.name for row in rows] == ["0004-First.patch", "0005-Second.patch"]
    assert tree == up.objects.tree_of(head)
    assert gives_again(up.objects, up.versions[0].tree, mails(rows), tree) is None


def test_a_root_commit_adds_its_files(up: Upstream) -> None:
    up.git("checkout", "-q", "--orphan", "other")
    up.git("rm", "-rq", "--cached", ".")
    root = up.commit({"only": "x\n", "f": None, "g": None}, "A root")
    rows, _ = run(up.objects, [read_commit(up.objects, root)], up.versions[0].tree)
    assert [(row.outcome, row.name) for row in rows] == [("untouched", "0001-A-root.patch")]


def test_what_the_series_has_is_not_called_upstream(up: Upstream) -> None:
    """The same change twice in a branch: the second is contained, not landed."""
    text = BODY.replace("line 3\n", "three\n")
    first = up.commit({"f": text}, "Once")
    up.git("checkout", "-q", "-b", "again", "v1.0")
    second = up.commit({"f": text}, "Again")
    commits = [read_commit(up.objects, one) for one in (first, second)]
    rows, _ = run(up.objects, commits, up.versions[0].tree)
    assert [row.outcome for row in rows] == ["untouched", "contained"]
    release = up.objects.tree_of(first)
    rows, tree = run(up.objects, commits, release)
    assert [row.outcome for row in rows] == ["landed", "landed"]
    assert tree == release


def test_evidence_of_the_history_is_kept(up: Upstream) -> None:
    commit = read_commit(up.objects, up.commit({"f": BODY.replace("3\n", "4\n")}, "Change"))
    said = (Evidence(Layer.PATCH_ID, "the same"),)
    target = Target(commit.tree, commit.tree, everything, lambda _: said)
    rows, _ = adopt(up.objects, [commit], target, Wish(lambda _: ()))
    assert (rows[0].outcome, rows[0].history) == ("landed", said)


def test_a_revert_in_the_branch_takes_back_what_it_reverts(up: Upstream) -> None:
    up.commit({"f": BODY.replace("line 3\n", "three\n")}, "Change")
    up.git("revert", "--no-edit", "HEAD")
    rows, tree = run(up.objects, listed(up, "v1.0..work"), up.versions[0].tree)
    assert [row.outcome for row in rows] == ["untouched", "untouched"]
    assert tree == up.versions[0].tree
    assert "which is in the branch too" in rows[1].notes[0]


def test_commits_are_chosen_by_their_first_digits(up: Upstream) -> None:
    commits = [replace(read_commit(up.objects, up.versions[0].commit), id=c * 40) for c in "ab"]
    assert choose(commits, ["A" * 7]) == {"a" * 40}
    assert choose(commits, []) == frozenset()
    for wrong in ("a" * 6, "c" * 9, ""):
        with pytest.raises(InputError, match="--leave-out"):
            choose(commits, [wrong])
    twins = [commits[0], replace(commits[0], id="a" * 39 + "b")]
    with pytest.raises(InputError, match="more than one commit"):
        choose(twins, ["a" * 8])


# --- one of all -------------------------------------------------------------------------------


def test_one_commit_of_all(up: Upstream) -> None:
    base = up.versions[0].commit
    up.commit({"f": BODY + "1\n"}, "First\n\nWhy.\n\nSigned-off-by: A <a@x.invalid>")
    up.commit({"g": BODY + "2\n"}, "Second")
    commits = listed(up, "v1.0..work")
    commits[1] = replace(commits[1], name="B", email="b@x.invalid", seconds=9_999_999_999)
    made = squashed(commits[-1], base, commits)
    assert (made.id, made.parents, made.tree) == (commits[1].id, (base,), commits[1].tree)
    assert made.subject == "First"
    assert made.message == (
        "First\n\nWhy.\n\n2 commits in one:\n\n"
        f"- {commits[0].id[:12]} First\n- {commits[1].id[:12]} Second\n\n"
        "Co-authored-by: B <b@x.invalid>\n"
    )
    assert made.seconds == 9_999_999_999, "when the work was done"
    alone = squashed(commits[0], base, commits[:1])
    assert alone.message == commits[0].message, "one commit keeps its words"


# --- merges at random -------------------------------------------------------------------------

STEP = st.tuples(
    st.booleans(),  # on which of two branches
    st.sampled_from("fg"),
    st.integers(0, 29),
    st.sampled_from(["change", "add", "drop", "merge", "evil"]),
)


def edited(text: str, at: int, kind: str, word: str) -> str:
    lines = text.splitlines(keepends=True)
    place = min(at, len(lines))
    lines[place : place + (kind != "add")] = [] if kind == "drop" else [f"{word}\n"]
    return "".join(lines)


def branch(up: Upstream, steps: list[tuple[bool, str, int, str]]) -> bool:
    """Make `work` with these commits and merges; whether a merge has changes of its own."""
    own = False
    up.git("branch", "-f", "side", "v1.0")
    up.git("checkout", "-q", "-B", "work", "v1.0")
    for number, (side, name, at, kind) in enumerate([*steps, (False, "f", 0, "merge")]):
        up.git("checkout", "-q", "side" if side else "work")
        if kind not in ("merge", "evil"):
            text = (up.folder / name).read_text()
            up.commit({name: edited(text, at, kind, f"step {number}")}, f"Step {number}")
            continue
        other = "work" if side else "side"
        done = subprocess.run(
            ("git", "-C", up.folder, "-c", "user.name=x", "-c", "user.email=x@x.invalid", "merge",
             "-q", "--no-ff", "--no-commit", other),
            capture_output=True,
        )  # fmt: skip
        merging = (up.folder / ".git" / "MERGE_HEAD").exists()
        if not merging:
            continue
        if done.returncode:
            for path in "fg":
                text = (up.folder / path).read_text()
                kept = [s for s in text.splitlines(keepends=True) if s[:7] not in MARKS]
                (up.folder / path).write_text("".join(kept))
            own = True
        if kind == "evil":
            (up.folder / "slipped-in").write_text(f"{number}\n")
            own = True
        up.git("add", "-A")
        up.git("commit", "-q", "-m", f"Merge {number}")
    up.git("checkout", "-q", "work")
    return own


MARKS = ("<<<<<<<", "=======", ">>>>>>>")


@settings(max_examples=25)
@given(steps=st.lists(STEP, min_size=1, max_size=7))
def test_a_branch_with_merges_comes_out_whole_or_is_told(
    steps: list[tuple[bool, str, int, str]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        up = Upstream(Path(name) / "up", {"f": BODY, "g": BODY})
        own = branch(up, steps)
        head = read_commit(up.objects, up.git("rev-parse", "work"))
        rows, tree = run(up.objects, listed(up, "v1.0..work"), up.versions[0].tree)
        told = [row for row in rows if row.outcome == "own-changes"]
        assert bool(told) == own, "a merge with changes of its own is always told"
        for row in rows:
            assert (row.mail is None) == (
                row.stops or row.outcome in ("merge", "empty", "contained", "landed")
            )
        if any(row.stops for row in rows):
            event("a person is asked")
            return
        event("whole")
        if not any(row.outcome == "landed" for row in rows):
            assert tree == head.tree, "nothing is lost and nothing doubled"
        assert gives_again(up.objects, up.versions[0].tree, mails(rows), tree) is None


def test_a_lab_commit_is_read(tmp_path: Path) -> None:
    """What `adopt` sees of a commit that another program wrote."""
    lab = Lab(tmp_path / "lab.git")
    made = lab.commit({"x": "1\n"}, message="A\nlong subject\n\nbody\n")
    assert read_commit(lab.objects, made).subject == "A long subject"
