"""Remembered verdicts: the same as judged anew, whatever moved, broke or was killed in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.upstreams import Upstream, filler, function

from stackpatch.series import memo as memo_module
from stackpatch.series import rules
from stackpatch.series.apply import apply_series
from stackpatch.series.landed import decide
from stackpatch.series.matrix import compute
from stackpatch.series.memo import Memo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.upstreams import Version

    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects

STRICT, RELAXED = "assert major == 10", "assert major in (10, 12)"
EFFECT = r"Effect: a.py :: build :: major in \(10, 12\)"


def source(line: str, name: str = "build") -> str:
    return '"""Gates."""\n\nimport sys\n\n\n' + function(name, line) + filler(9)


class Case:
    """A patch to `build` in a.py, and an upstream that can be made to move it."""

    def __init__(self, tmp_path: Path) -> None:
        self.up = Upstream(tmp_path / "up", {"a.py": source(STRICT), "b.py": "x = 1\n"})
        series = self.up.series(
            tmp_path / "series", ("Open the gate", {"a.py": source(RELAXED)}, EFFECT)
        )
        self.patches = series.patches
        self.objects = self.up.objects
        apply_series(self.objects, self.up.versions[0].tree, self.patches)

    def words(self, memo: Memo, versions: Sequence[Version]) -> list[str]:
        """The remembered verdicts, held against fresh ones."""
        (row,) = compute(self.objects, self.patches, versions, memo).rows
        (patch,) = self.patches
        fresh = [decide(self.up.objects, version.tree, patch) for version in versions]
        assert list(row.verdicts) == fresh
        return [verdict.word.value for verdict in fresh]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_moved_symbol_is_judged_once_while_its_new_place_stays(case: Case) -> None:
    made = [case.up.release("2.0", {"a.py": "y = 1\n", "moved.py": source(RELAXED)})]
    made += [case.up.release(f"2.{n}", {"b.py": f"x = {n}\n"}) for n in range(1, 9)]
    memo = Memo()
    assert case.words(memo, made) == ["upstreamed"] * 9
    assert (memo.misses, memo.hits) == (1, 8)


def test_what_is_remembered_for_one_release_is_not_said_of_another(case: Case) -> None:
    """In the first, moved.py is new since; in the second it was there before the patch was."""
    gone = case.up.release("2.0", {"a.py": None, "moved.py": source(RELAXED)})
    before = case.up.release("1.5", {"a.py": source(STRICT)})
    later = case.up.release("2.1", {"a.py": None, "b.py": "x = 2\n"})
    (patch,) = case.patches
    origins = (case.up.versions[0].tree, before.tree)
    for order in (origins, origins[::-1]):
        memo = Memo()
        for tree in (gone.tree, later.tree, gone.tree):
            for origin in order:
                found = memo.examine(case.objects, tree, patch, origin=origin).verdict
                assert found == decide(case.up.objects, tree, patch, origin=origin)
                assert found.word.may_drop == (origin == origins[0])
    assert memo.hits > 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"moved.py": source(STRICT)}, "conflict"),
        ({"moved.py": None, "z/other.py": source(RELAXED)}, "upstreamed"),
        ({"second.py": source(STRICT)}, "unsure"),
        ({"moved.py": source(RELAXED, "made")}, "unsure"),
        ({"a.py": source(STRICT)}, "needed"),
    ],
)
def test_another_answer_is_judged_anew(case: Case, change: dict[str, str], word: str) -> None:
    before = case.up.release("2.0", {"a.py": "y = 1\n", "moved.py": source(RELAXED)})
    after = case.up.release("2.1", change)
    back = case.up.release("2.2", {"b.py": "x = 7\n"})
    memo = Memo()
    assert case.words(memo, [before, after, back]) == ["upstreamed", word, word]


def test_a_new_process_asks_nothing_of_trees_that_it_knows(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [case.up.release("2.0", {"a.py": "y = 1\n", "moved.py": source(RELAXED)})]
    made += [case.up.release(f"2.{n}", {"b.py": f"x = {n}\n"}) for n in range(1, 4)]
    file = tmp_path / "verdicts.json"
    memo = Memo(file)
    case.words(memo, made)
    memo.save()

    def refuse(*_: object) -> None:
        pytest.fail("a tree that is known was searched again")

    monkeypatch.setattr(memo_module, "search", refuse)
    again = Memo(file)
    assert case.words(again, made) == ["upstreamed"] * 4
    assert again.misses == 0


def test_a_verdict_that_walked_the_tree_holds_for_that_tree_alone(case: Case) -> None:
    gone = case.up.release("2.0", {"a.py": None, "b.py": "x = 1\n"})
    named = case.up.release("2.1", {"b.py": "import build\nmajor = props = 1\n"})
    memo = Memo()
    words = case.words(memo, [gone, named, gone])
    assert words[0] == words[2]
    assert memo.misses == 2


def entries(file: Path) -> dict[str, object]:
    document = json.loads(file.read_text())
    found = document["verdicts"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    "damage", [None, 3, "x", "", [], [[]], [["a"]], [[["a", "b", "c"]]], {}, {"verdict": {}}]
)
def test_a_damaged_entry_costs_only_time(case: Case, tmp_path: Path, damage: object) -> None:
    made = [
        case.up.versions[0],
        case.up.release("2.0", {"a.py": "y = 1\n", "moved.py": source(RELAXED)}),
        case.up.release("2.1", {"b.py": "x = 2\n"}),
        case.up.release("2.2", {"moved.py": None}),
    ]
    file = tmp_path / "verdicts.json"
    memo = Memo(file)
    words = case.words(memo, made)
    memo.save()
    kept = file.read_text()
    kinds = {"?" in key: key for key in entries(file)}
    assert len(kinds) == 2, "verdicts, and the questions that led to them"
    for key in entries(file):
        document = json.loads(kept)
        document["verdicts"][key] = damage
        file.write_text(json.dumps(document))
        assert case.words(Memo(file), made) == words, key


def test_other_rules_forget_everything(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "verdicts.json"
    memo = Memo(file)
    case.words(memo, case.up.versions)
    memo.save()
    known = Memo(file)
    case.words(known, case.up.versions)
    assert known.misses == 0
    rules.rules.cache_clear()
    monkeypatch.setattr("stackpatch.model.own_code.digest", lambda *_: "other")
    other = Memo(file)
    case.words(other, case.up.versions)
    assert other.misses == 1
    rules.rules.cache_clear()


KILLED = """
import os, signal, sys
from pathlib import Path
from stackpatch.series.memo import Memo
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
memo = Memo(Path(sys.argv[1]))
memo._known["x"] = "y" * 1_000_000
memo._new = True
memo.save()
"""


def test_a_kill_while_saving_leaves_the_older_verdicts(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "verdicts.json"
    memo = Memo(file)
    case.words(memo, case.up.versions)
    memo.save()
    before = file.read_bytes()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert file.read_bytes() == before
    again = Memo(file)
    case.words(again, case.up.versions)
    assert again.misses == 0


def test_nothing_new_is_not_written(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "verdicts.json"
    memo = Memo(file)
    case.words(memo, case.up.versions)
    memo.save()
    os.utime(file, (1, 1))
    again = Memo(file)
    case.words(again, case.up.versions)
    again.save()
    assert file.stat().st_mtime == 1


# --- at random ----------------------------------------------------------------------------------

_CONTENTS = st.sampled_from(
    [
        None,
        "y = 1\n",
        source(STRICT),
        source(RELAXED),
        source("assert major in (10, 12, 13)"),
        source(RELAXED, "made"),
        "import build\n" + source(STRICT, "made"),
    ]
)
_RELEASES = st.lists(
    st.fixed_dictionaries(dict.fromkeys(("a.py", "b.py", "d/c.py"), _CONTENTS)),
    min_size=2,
    max_size=6,
)


@settings(max_examples=40)
@given(releases=_RELEASES)
def test_what_is_remembered_is_what_is_judged(
    tmp_path_factory: pytest.TempPathFactory, releases: list[dict[str, str | None]]
) -> None:
    case = Case(tmp_path_factory.mktemp("case"))
    made = list(case.up.versions)
    present = {"a.py", "b.py"}
    for number, files in enumerate(releases):
        changed = {p: text for p, text in files.items() if text is not None or p in present}
        present = (present | set(changed)) - {p for p, text in changed.items() if text is None}
        made.append(case.up.release(f"9.{number}", {**changed, "n": f"{number}\n"}))
    file = tmp_path_factory.mktemp("memo") / "verdicts.json"
    for _ in range(2):
        memo = Memo(file)
        case.words(memo, [*made, *made[::-1]])
        memo.save()


def examined(objects: Objects, tree: str, patch: Patch) -> tuple[str, ...]:
    """The symbols that a judgement searched the tree for."""
    from stackpatch.series.landed import examine

    return tuple(symbol for symbol, _ in examine(objects, tree, patch).asked)


def test_a_judgement_says_what_it_asked(case: Case) -> None:
    moved = case.up.release("2.0", {"a.py": "y = 1\n", "moved.py": source(RELAXED)})
    (patch,) = case.patches
    assert examined(case.objects, case.up.versions[0].tree, patch) == ()
    assert "build" in examined(case.objects, moved.tree, patch)
    assert examined(case.objects, case.up.versions[0].tree, patch) == (), "each its own questions"
