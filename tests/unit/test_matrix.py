"""The matrix and its memory: right cells, and no work for what did not change."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.upstreams import Upstream, filler, function

from stackpatch.model.verdict import Verdict, Word
from stackpatch.series.apply import apply_series
from stackpatch.series.landed import decide
from stackpatch.series.matrix import compute
from stackpatch.series.memo import Memo

if TYPE_CHECKING:
    from pathlib import Path

STRICT, RELAXED = "assert major == 10", "assert major in (10, 12)"
EFFECT = r"Effect: a.py :: build :: major in \(10, 12\)"


def source(line: str, before: str = "") -> str:
    return '"""Gates."""\n\nimport sys\n\n\n' + before + function("build", line) + filler(9)


class Case:
    """Seven versions: needed, needed with an offset, untouched, conflict, landed, evolved, lost."""

    def __init__(self, tmp_path: Path) -> None:
        self.up = Upstream(tmp_path / "up", {"a.py": source(STRICT), "other": "1\n"})
        self.series = self.up.series(
            tmp_path / "series",
            ("Open the gate", {"a.py": source(RELAXED)}, EFFECT),
            ("Say so", {"a.py": source(RELAXED + "  # both"), "note": "both\n"}, ""),
        )
        self.up.release("1.1", {"a.py": source(STRICT, filler(5, "new"))})
        self.up.release("1.2", {"other": "2\n"})
        self.up.release("1.3", {"a.py": source("assert supports(major)")})
        self.up.release("1.4", {"a.py": source(RELAXED)})
        self.up.release("1.5", {"a.py": source("assert major in (10, 12), 'no'")})
        self.up.release("1.6", {"a.py": source(STRICT)})
        apply_series(self.up.objects, self.up.versions[0].tree, self.series.patches)


def words(verdicts: tuple[Verdict, ...]) -> list[str]:
    return [verdict.word.value for verdict in verdicts]


def test_every_cell(tmp_path: Path) -> None:
    case = Case(tmp_path)
    matrix = compute(case.up.objects, case.series.patches, case.up.versions, Memo())
    assert matrix.versions == ("1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6")
    first, second = matrix.rows
    assert words(first.verdicts) == [
        "needed", "needed", "needed", "conflict", "upstreamed", "upstreamed", "needed",
    ]  # fmt: skip
    assert [v.detail for v in first.verdicts[:3]] == ["clean", "offset 7", "offset 7"]
    assert [v.detail for v in first.verdicts[4:6]] == ["identical", "equivalent"]
    assert words(second.verdicts)[:3] == ["needed"] * 3, "judged on top of the first"
    assert words(second.verdicts)[4] == "needed", "the first landed, the second still applies"


def test_first_landed_counts_only_what_stays(tmp_path: Path) -> None:
    case = Case(tmp_path)
    memo = Memo()
    all_of_it = compute(case.up.objects, case.series.patches, case.up.versions, memo)
    assert all_of_it.first_landed(all_of_it.rows[0]) is None, "1.6 took it back"
    until = compute(case.up.objects, case.series.patches, case.up.versions[:6], memo)
    assert until.first_landed(until.rows[0]) == "1.4"


def test_newest_clean_and_ready(tmp_path: Path) -> None:
    case = Case(tmp_path)
    one = case.series.patches[:1]
    matrix = compute(case.up.objects, one, case.up.versions[:6], Memo())
    assert matrix.newest_clean == "1.2"
    assert matrix.newest_ready == "1.5"
    assert compute(case.up.objects, (), case.up.versions, Memo()).newest_clean is None


@pytest.mark.parametrize("order", [(5, 4, 3, 2, 1, 0), (3, 0, 5, 1, 4, 2)])
def test_newest_is_by_number_in_whatever_order_they_were_asked_for(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    case = Case(tmp_path)
    asked = [case.up.versions[at] for at in order]
    matrix = compute(case.up.objects, case.series.patches[:1], asked, Memo())
    assert matrix.versions == tuple(version.version for version in asked)
    assert (matrix.newest_clean, matrix.newest_ready) == ("1.2", "1.5")
    assert matrix.first_landed(matrix.rows[0]) == "1.4"


def test_a_branch_comes_after_the_numbers_and_branches_as_they_were_asked_for(
    tmp_path: Path,
) -> None:
    case = Case(tmp_path)
    landed, needed = case.up.versions[4], case.up.versions[6]
    one = case.series.patches[:1]
    asked = [replace(landed, version="main"), case.up.versions[0], replace(needed, version="a")]
    matrix = compute(case.up.objects, one, asked, Memo())
    assert (matrix.newest_clean, matrix.newest_ready) == ("a", "a")
    turned = compute(case.up.objects, one, asked[::-1], Memo())
    assert (turned.newest_clean, turned.newest_ready) == ("a", "main")
    assert turned.first_landed(turned.rows[0]) == "main"


def test_a_patch_that_is_not_meant_for_a_version_has_no_say_there(tmp_path: Path) -> None:
    case = Case(tmp_path)
    series = case.up.series(
        tmp_path / "meant",
        ("Open the gate", {"a.py": source(RELAXED)}, f"{EFFECT}\nApplies-To: <1.3"),
        ("Say so", {"note": "both\n"}, "Applies-To: >=1.1,<1.5"),
    )
    matrix = compute(case.up.objects, series.patches, case.up.versions[:6], Memo())
    assert [row.meant for row in matrix.rows] == [
        (True, True, True, False, False, False),
        (False, True, True, True, True, False),
    ]
    assert matrix.newest_clean == "1.4", "where the first conflicts or has landed, it is not meant"
    apart = compute(case.up.objects, series.patches, case.up.versions[5:6], Memo())
    assert (apart.newest_clean, apart.newest_ready) == (None, None), "nobody is meant for it"


def test_versions_that_touch_nothing_are_not_judged_again(tmp_path: Path) -> None:
    case = Case(tmp_path)
    for number in range(20):
        case.up.release(f"2.{number}", {"other": f"{number}\n"})
    memo = Memo()
    compute(case.up.objects, case.series.patches[:1], case.up.versions, memo)
    assert memo.misses == 5, "five different a.py with a readme or other beside"
    assert memo.hits == len(case.up.versions) - 5


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    case = Case(tmp_path)
    file = tmp_path / "verdicts.json"
    memo = Memo(file)
    first = compute(case.up.objects, case.series.patches, case.up.versions, memo)
    memo.save()
    again = Memo(file)
    second = compute(case.up.objects, case.series.patches, case.up.versions, again)
    assert (again.misses, second) == (0, first)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"rules": "old", "verdicts": {}}', b'{"verdicts": 3}']
)
def test_a_damaged_memory_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    case = Case(tmp_path)
    file = tmp_path / "verdicts.json"
    file.write_bytes(damage)
    matrix = compute(case.up.objects, case.series.patches, case.up.versions, Memo(file))
    assert words(matrix.rows[0].verdicts)[0] == "needed"


def test_a_damaged_entry_is_judged_again(tmp_path: Path) -> None:
    case = Case(tmp_path)
    file = tmp_path / "verdicts.json"
    memo = Memo(file)
    first = compute(case.up.objects, case.series.patches, case.up.versions, memo)
    memo.save()
    document = json.loads(file.read_text())
    for entry in document["verdicts"].values():
        if isinstance(entry, dict):
            entry["verdict"]["verdict"] = "upstream, surely"
    file.write_text(json.dumps(document))
    again = Memo(file)
    assert compute(case.up.objects, case.series.patches, case.up.versions, again) == first
    assert again.hits == len(case.up.versions) * 2 - again.misses


def test_a_verdict_that_searched_the_tree_is_keyed_by_it(tmp_path: Path) -> None:
    """The symbol is gone from its file; another file decides, and that file changes."""
    case = Case(tmp_path)
    one = case.series.patches[:1]
    gone = case.up.release("3.0", {"a.py": None, "b.py": source(STRICT)})
    landed = case.up.release("3.1", {"b.py": source(RELAXED)})
    memo = Memo()
    matrix = compute(case.up.objects, one, [gone, landed], memo)
    fresh = [decide(case.up.objects, v.tree, one[0]) for v in (gone, landed)]
    assert list(matrix.rows[0].verdicts) == fresh
    assert words(matrix.rows[0].verdicts) == ["conflict", "upstreamed"]


def test_verdicts_survive_json(tmp_path: Path) -> None:
    case = Case(tmp_path)
    matrix = compute(case.up.objects, case.series.patches, case.up.versions, Memo())
    for row in matrix.rows:
        for verdict in row.verdicts:
            assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict
            assert verdict.evidence, "every verdict carries evidence"


def test_only_landed_and_obsolete_may_be_dropped() -> None:
    assert {word for word in Word if word.may_drop} == {Word.UPSTREAMED, Word.OBSOLETE}
