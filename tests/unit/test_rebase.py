"""A whole rebase: state, work tree, every way to go on, and kills between the steps."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.upstreams import Upstream, filler, function

from stackpatch.errors import InputError, WaitingError
from stackpatch.model.patch import parse_patch
from stackpatch.model.series import parse_series
from stackpatch.model.verdict import Word
from stackpatch.series.apply import apply_series
from stackpatch.series.landed import decide
from stackpatch.series.pick import Outcome
from stackpatch.series.rebase import Rebase, advance, culprit
from stackpatch.series.rebase_state import State

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.model.series import Series

STRICT, RELAXED = "assert major == 10", "assert major in (10, 12)"
REWORKED = "assert supports(major)"
EFFECT = r"Effect: {name}.py :: build :: major in \(10, 12\)"


def source(line: str) -> str:
    return '"""Gates."""\n\nimport sys\n\n\n' + function("build", line) + filler(9)


def covers(_: str) -> bool:
    return True


class Case:
    """Three patches on three files; the new version conflicts with those named."""

    def __init__(self, tmp_path: Path, *conflicts: str) -> None:
        names = ("a", "b", "c")
        self.up = Upstream(tmp_path / "up", {f"{n}.py": source(STRICT) for n in names})
        self.series: Series = self.up.series(
            tmp_path / "series",
            *((f"Open {n}", {f"{n}.py": source(RELAXED)}, EFFECT.format(name=n)) for n in names),
        )
        changed = {f"{n}.py": source(REWORKED) for n in conflicts}
        self.new = self.up.release("2.0", changed | {"readme": "new\n"})
        self.objects = self.up.objects
        apply_series(self.objects, self.up.versions[0].tree, self.series.patches)
        self.home = tmp_path / "home"
        self.rebase = Rebase(self.home, self.objects, self.series)

    def start(self) -> State:
        return self.rebase.start("stack", "1.0", "git:2.0", self.new.tree, covers=covers)

    def resolve(self, name: str) -> None:
        (self.home / "worktree" / f"{name}.py").write_text(source(RELAXED))


def outcomes(state: State) -> list[str]:
    return [one.outcome.value for one in state.moves]


def test_a_clean_rebase_ends_at_once(tmp_path: Path) -> None:
    case = Case(tmp_path)
    state = case.start()
    assert outcomes(state) == ["untouched"] * 3
    assert state.waiting is None
    assert not (case.home / "worktree").exists()


def test_a_conflict_waits_with_a_work_tree(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    state = case.start()
    assert outcomes(state) == ["untouched", "conflict"]
    assert state.waiting == case.series.patches[1].name
    tree = case.home / "worktree"
    assert (tree / "a.py").read_text() == source(RELAXED), "patches before it are in"
    half = (tree / "b.py").read_text()
    assert "<<<<<<< upstream git:2.0" in half
    assert f"    {REWORKED}" in half
    assert f"    {RELAXED}" in half
    assert (tree / "readme").read_text() == "new\n"
    status = subprocess.run(
        ("git", "-C", tree, "status", "--porcelain"), capture_output=True, check=True
    )
    assert status.stdout == b" M b.py\n", "git shows the person what is half done"


def test_continue_takes_what_the_person_wrote(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    case.start()
    case.resolve("b")
    state = case.rebase.resume(case.rebase.state() or pytest.fail("no state"), covers=covers)
    assert outcomes(state) == ["untouched", "resolved", "untouched"]
    assert state.waiting is None
    assert not (case.home / "worktree").exists()
    mails = {m.name: m.mail for m in state.moves if m.mail is not None}
    listing = "".join(f"{name}\n" for name in mails).encode()
    series = parse_series("new", listing, mails)
    again = apply_series(case.objects, case.new.tree, series.patches)
    assert again.applied
    assert again.tree == state.tree
    assert [one.offset for one in again.results] == [0, 0, 0]


def test_continue_refuses_markers_and_nothing(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    state = case.start()
    with pytest.raises(WaitingError, match=r"conflicts are left in b\.py"):
        case.rebase.resume(state, covers=covers)
    (case.home / "worktree" / "b.py").write_text(source(REWORKED))
    with pytest.raises(WaitingError, match="changes nothing") as raised:
        case.rebase.resume(state, covers=covers)
    assert "--skip" in (raised.value.hint or "")
    assert case.rebase.state() == state, "nothing was lost"


def test_markers_of_upstreams_own_are_no_conflict(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    state = case.start()
    case.resolve("b")
    own = case.home / "worktree" / "b.py"
    own.write_text(own.read_text() + '"""\n<<<<<<< HEAD\n=======\n>>>>>>> main\n"""\n')
    assert case.rebase.resume(state, covers=covers).waiting is None


def test_skip_drops_the_patch(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    state = case.rebase.skip(case.start(), covers=covers)
    assert outcomes(state) == ["untouched", "skipped", "untouched"]
    assert state.moves[1].mail is None


def test_two_conflicts_wait_one_after_the_other(tmp_path: Path) -> None:
    case = Case(tmp_path, "a", "c")
    state = case.start()
    assert state.waiting == case.series.patches[0].name
    case.resolve("a")
    state = case.rebase.resume(state, covers=covers)
    assert outcomes(state) == ["resolved", "untouched", "conflict"]
    assert state.waiting == case.series.patches[2].name
    assert (case.home / "worktree" / "a.py").read_text() == source(RELAXED)


def test_a_second_start_names_the_first(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    case.start()
    with pytest.raises(InputError, match=r"a rebase of stack onto git:2\.0 is under way"):
        case.start()


def test_a_work_tree_removed_by_hand(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    state = case.start()
    shutil.rmtree(case.home / "worktree")
    with pytest.raises(InputError, match="is gone") as raised:
        case.rebase.resume(state, covers=covers)
    assert "--restart" in (raised.value.hint or "")
    assert case.rebase.skip(state, covers=covers).waiting is None, "skipping needs no work tree"


def test_the_state_survives_writing_and_reading(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    state = case.start()
    assert Rebase(case.home, case.objects, case.series).state() == state


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"schema": "other/1"}', b"\xff"])
def test_a_damaged_state_is_said_not_guessed(tmp_path: Path, damage: bytes) -> None:
    case = Case(tmp_path, "b")
    case.start()
    (case.home / "state.json").write_bytes(damage)
    with pytest.raises(InputError, match="cannot be read") as raised:
        case.rebase.state()
    assert "--abort" in (raised.value.hint or "")
    case.rebase.forget()
    assert case.rebase.state() is None


def test_forget_leaves_nothing(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    case.start()
    case.rebase.forget()
    assert not case.home.exists()
    case.rebase.forget()


def test_a_changed_series_is_noticed(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    state = case.start()
    edited = {p.name: p.raw.replace(b"Why.", b"Because.") for p in case.series.patches}
    listing = "".join(f"{name}\n" for name in edited).encode()
    other = Rebase(case.home, case.objects, parse_series("s", listing, edited))
    with pytest.raises(InputError, match="the series of stack changed"):
        other.resume(state, covers=covers)


def test_a_dry_run_says_what_the_real_one_does(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    empty = State("stack", "1.0", "git:2.0", case.new.tree, case.series.digest, case.new.tree, ())
    dry = advance(case.objects, empty, case.series.patches, covers=covers)
    assert not case.home.exists(), "and writes nothing"
    assert dry == case.start()


def test_a_kill_before_the_state_is_written_leaves_a_fresh_start(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    case.start()
    (case.home / "state.json").unlink()  # the work tree is made before the state
    assert case.rebase.state() is None
    assert outcomes(case.start()) == ["untouched", "conflict"]


def test_the_work_tree_ignores_the_persons_git_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = tmp_path / "gitconfig"
    hostile.write_text(
        "[core]\n\tautocrlf = true\n[commit]\n\tgpgsign = true\n[init]\n\ttemplateDir = /nowhere\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(hostile))
    case = Case(tmp_path, "b")
    case.start()
    case.resolve("b")
    state = case.rebase.resume(case.rebase.state() or pytest.fail("no state"), covers=covers)
    assert case.objects.read(state.tree, "b.py") == source(RELAXED).encode()


def test_the_culprit_is_the_first_version_that_no_longer_takes_it(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.up.release("3.0", {"b.py": source(REWORKED)})
    case.up.release("4.0", {"readme": "four\n"})
    first, second = (
        [(v.version, decide(case.up.objects, v.tree, patch)) for v in case.up.versions]
        for patch in case.series.patches[:2]
    )
    found = culprit(second)
    assert found is not None
    assert (found[0], found[1].word) == ("3.0", Word.CONFLICT)
    assert culprit(first) is None
    assert culprit(second[2:]) is None, "it never applied there"


def test_a_state_that_waits_for_nobody_is_told(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    state = replace(case.start(), waiting="0009-nobody.patch")
    for step in (case.rebase.resume, case.rebase.skip):
        with pytest.raises(InputError, match=r"waits for 0009-nobody\.patch, which") as raised:
            step(state, covers=covers)
        assert "--abort" in (raised.value.hint or "")


def test_state_files_are_json_a_person_can_read(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    case.start()
    document = json.loads((case.home / "state.json").read_text())
    assert document["schema"] == "stackpatch.rebase-state/1"
    assert document["waiting"] == case.series.patches[1].name


def test_outcomes_that_stop() -> None:
    assert {o for o in Outcome if o.stops} == {Outcome.CONFLICT, Outcome.MISPLACED}


def test_resolved_mail_keeps_the_patchs_words(tmp_path: Path) -> None:
    case = Case(tmp_path, "b")
    state = case.start()
    case.resolve("b")
    state = case.rebase.resume(state, covers=covers)
    old = case.series.patches[1]
    new = parse_patch(old.name, state.moves[1].mail or b"")
    assert (new.message, new.author_email, new.date) == (old.message, old.author_email, old.date)
